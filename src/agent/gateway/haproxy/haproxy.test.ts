import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { FakeClock } from '#base/clock.ts'
import type { Backend, EngineState, Listener, Route } from '#gateway/engine.ts'
import { ListenSockets } from '../sockets/sockets.ts'
import { EngineError } from './cli.ts'
import { configText } from './config.ts'
import { parseEvent } from './events.ts'
import { FakeHaproxy, type Lie } from './fake-haproxy.ts'
import { HaproxyEngine } from './haproxy.ts'
import { encodeToken, splitRows } from './program.ts'
import { Routing } from './routing.ts'

const listener = (id: string, hostname: string | undefined, port: number): Listener => ({
  ...{ id, addresses: ['10.9.0.1', 'fd00::1'], port, protocol: 'HTTP' },
  ...(hostname === undefined ? {} : { hostname }),
})
const listeners = [
  listener('any', undefined, 80),
  listener('wide', '*.test', 80),
  listener('exact', 'a.test', 80),
  listener('else', undefined, 81),
]
const hostnames = ['', '*.test', 'a.test', 'b.test', '*.b.test'] as const
const values = ['/', '/a', '/a/', '/a/b', '/a/b/c', '/ab'] as const

const match = fc.record({
  path: fc.option(fc.record({ type: fc.constantFrom('exact', 'prefix', 'regex'), value: fc.constantFrom(...values) }), {
    nil: undefined,
  }),
  method: fc.option(fc.constantFrom('GET', 'POST'), { nil: undefined }),
  headers: fc.array(
    fc.record({ name: fc.constantFrom('x', 'y'), type: fc.constant('exact'), value: fc.constantFrom('1', '2') }),
    { maxLength: 1 },
  ),
  query: fc.constant([]),
})
const someRoute = fc.record({
  name: fc.constantFrom('r1', 'r2', 'r3'),
  age: fc.constantFrom('1', '2', '3'),
  listener: fc.constantFrom('any', 'wide', 'exact', 'else'),
  hostnames: fc.uniqueArray(fc.constantFrom(...hostnames), { minLength: 1, maxLength: 2 }),
  matches: fc.array(match, { maxLength: 3 }),
  backends: fc.array(fc.constantFrom('one', 'two', 'broken'), { maxLength: 2 }),
})
/** One of: a route as drawn, a route gone, a listener come or gone, a backend come or gone. */
const change = fc.oneof(
  fc.record({ do: fc.constant('route' as const), route: someRoute }),
  fc.record({ do: fc.constant('remove' as const), name: fc.constantFrom('r1', 'r2', 'r3') }),
  fc.record({ do: fc.constant('listener' as const), index: fc.nat({ max: 3 }) }),
  fc.record({ do: fc.constant('backend' as const), id: fc.constantFrom('one', 'two') }),
)

const backendOf = (id: string): Backend => ({ id, protocol: 'h1', endpoints: [] })
const pools = new Map([
  ['one', 'pa0'],
  ['two', 'pa1'],
])

test('Routing kept through changes has what a fresh one makes of the last state', (t) => {
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 12 }), (changes) => {
      const state = {
        listeners: new Map(listeners.map((l) => [l.id, l])),
        routes: new Map<string, Route>(),
        backends: new Map<string, Backend>(),
      }
      const kept = new Routing(() => false)
      const seen = new Map<string, string>()
      let revision = 0
      for (const c of changes) {
        if (c.do === 'route') state.routes.set(c.route.name, routeOf(c.route))
        else if (c.do === 'remove') state.routes.delete(c.name)
        else if (c.do === 'backend') toggle(state.backends, c.id, backendOf(c.id))
        else toggle(state.listeners, listeners[c.index]?.id ?? '', listeners[c.index] as Listener)
        const now: EngineState = {
          revision: ++revision,
          listeners: new Map(state.listeners),
          routes: new Map(state.routes),
          backends: new Map(state.backends),
        }
        const pool = (id: string): string | undefined => (now.backends.has(id) ? pools.get(id) : undefined)
        const made = kept.update(now, pool, new Set())
        // What the engine writes, one change after the other, comes to the same.
        for (const [key, value] of made.routes.set) seen.set(key, value)
        for (const key of made.routes.remove) seen.delete(key)
        const fresh = new Routing(() => false)
        fresh.update(now, pool, new Set())
        t.deepEqual(sorted(kept.routes), sorted(fresh.routes))
        t.deepEqual(sorted(seen), sorted(fresh.routes))
        t.deepEqual(sorted(kept.programs), sorted(fresh.programs))
        t.deepEqual(sorted(kept.splits), sorted(fresh.splits))
      }
    }),
    { numRuns: 200 },
  )
})

const sorted = (map: ReadonlyMap<string, string>): [string, string][] =>
  [...map].toSorted(([a], [b]) => (a < b ? -1 : 1))

function toggle<V>(map: Map<string, V>, key: string, value: V): void {
  if (!map.delete(key)) map.set(key, value)
}

type Drawn = typeof someRoute extends fc.Arbitrary<infer T> ? T : never
const routeOf = ({ name, age, listener: on, hostnames: hosts, matches, backends }: Drawn): Route => ({
  id: name,
  kind: 'HTTP',
  age: `${age} ${name}`,
  attachments: [{ listener: on, hostnames: hosts }],
  rules: [
    {
      id: `${name}/0`,
      matches: matches.map(({ path, method, ...rest }) => ({
        ...rest,
        ...(path === undefined ? {} : { path }),
        ...(method === undefined ? {} : { method }),
      })),
      filters: [],
      targets: backends.map((id) => ({ weight: 1, filters: [], ...(id === 'broken' ? {} : { backend: id }) })),
    },
  ],
})

test('splitRows() divides 65,536 exactly as the weights say, and each number has one row', (t) => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 1, maxLength: 5 }), (weights) => {
      fc.pre(weights.some((w) => w > 0))
      const rows = splitRows(
        'w',
        weights.map((weight, i) => ({ row: `${i}`, weight })),
      )
      const total = weights.reduce((a, b) => a + b, 0)
      const sizes = weights.map(() => 0)
      for (const [key, row] of rows) sizes[Number(row)] = (sizes[Number(row)] ?? 0) + 16 ** (18 - key.length)
      t.is(
        sizes.reduce((a, b) => a + b, 0),
        65_536,
      )
      for (const [i, weight] of weights.entries()) t.true(Math.abs((sizes[i] ?? 0) - (weight / total) * 65_536) <= 1)
    }),
  )
})

test('encodeToken() leaves nothing that ends a token, a candidate, a row or a command', (t) => {
  fc.assert(fc.property(fc.string(), (text) => t.regex(encodeToken(text), /^[\w.~:/@*+%-]*$/)))
  t.is(encodeToken('a,b;c d\n%'), 'a%2cb%3bc%20d%0a%25')
})

test('parseEvent() reads what the configuration writes, and nothing that was cut', (t) => {
  const line = '200|--|pa0|key|10.0.0.9|52738|10.9.0.1|80|7|HTTP/1.1|GET|10.1.0.1:8080|612E74|2F78'
  t.like(parseEvent(line), { code: '200', row: 'pa0|key', client: '10.0.0.9', latencyMs: 7, host: 'a.t', path: '/x' })
  t.is(parseEvent(line.slice(0, 60)), undefined)
  t.like(parseEvent('400|PR|-|10.0.0.9|1|10.9.0.1|80|0|HTTP/1.1|-|<NOSRV>|-|-'), { code: '400', row: '', host: '' })
})

test('configText() depends on capacity and servers alone', (t) => {
  const options = {
    capacity: { pools: { h1: 2, h2c: 1 }, tlsSlots: { strict: 1, lax: 1 } },
    fds: { plain: [3, 4], tls: { strict: [[5, 6]], lax: [[7, 8]] } },
    ...{ dir: '/run/x', luaFile: '/x/weft.lua', threads: 1, connectionsMax: 1000, generation: 1 },
    goldenSignals: true,
  }
  const text = configText({ ...options, servers: new Map() })
  t.is(text.match(/^backend pa\d+ from h1$/gm)?.length, 2)
  t.is(text.match(/^ {2}bind /gm)?.length, 6)
  t.regex(text, /bind fd@5 ssl crt-list \/run\/x\/tls\/strict-0\.list .* strict-sni/)
})

/** Nobody connects here. */
class NoSockets extends ListenSockets {
  override adopt(): void {}
}

/** A state that another of these changes in every way: rows come, go and get other values, programs and splits as well, and servers. */
const stateOf = (revision: number, paths: readonly string[], endpoints: readonly string[], weight: number) => {
  const rule = (name: string, path: string, method: string | undefined) => ({
    ...{ id: `${name}${path}`, filters: [] },
    matches: [
      { path: { type: 'prefix' as const, value: path }, headers: [], query: [], ...(method ? { method } : {}) },
    ],
    targets: [
      { weight: 1, filters: [], backend: 'one' },
      { weight, filters: [], backend: 'two' },
    ],
  })
  const route: Route = {
    ...{ id: 'r', kind: 'HTTP', age: '1 r', attachments: [{ listener: 'any', hostnames: ['a.test'] }] },
    rules: paths.flatMap((path) => [rule('get', `${path}/get`, 'GET'), rule('all', path, undefined)]),
  }
  return {
    revision,
    listeners: new Map(listeners.slice(0, 1).map((l) => [l.id, l])),
    routes: new Map([[route.id, route]]),
    backends: new Map(
      ['one', 'two'].map((id) => [
        id,
        { ...backendOf(id), endpoints: endpoints.map((address) => ({ address, port: 80 })) },
      ]),
    ),
  }
}

test('a reply of the run-time API that is an error, or a row that reads back differently, is said; every table is then compared and mended', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-haproxy-'))
  const fake = await FakeHaproxy.start(dir, { pools: { h1: 4, h2c: 1 }, tlsSlots: { strict: 0, lax: 0 } })
  using sockets = new NoSockets()
  const steer = async (): Promise<void> => {}
  const engine = await HaproxyEngine.open({ dir, sockets, steer, publish: () => {}, clock: new FakeClock() })
  try {
    let revision = 0
    const before = () => engine.apply(stateOf(++revision, ['/a', '/b'], ['10.1.0.1', '10.1.0.2'], 1))
    // A server that drains leaves when the sweep finds it idle, which the clock never comes to: each time another is new.
    let newest = ''
    const after = () => engine.apply(stateOf(++revision, ['/b', '/c'], ['10.1.0.2', newest], 3))
    const tables = () => ({
      maps: Object.fromEntries([...fake.maps].map(([name, rows]) => [name, sorted(rows)])),
      ready: [...fake.servers]
        .flatMap(([server, state]) => (state === 'ready' ? [server.replace(newest || ' ', 'NEW')] : []))
        .toSorted(),
    })
    await before()
    const first = tables()
    fake.commands.length = 0
    newest = '10.2.0.1'
    await after()
    const plan = [...fake.commands]
    const last = tables()
    t.is(last.ready.filter((server) => server.includes('NEW')).length, 2, last.ready.join())

    const lied = new Set<string>()
    for (const [at, command] of plan.entries())
      for (const how of ['refused', 'silent', 'cut'] as const) {
        const words = command.split(' ').slice(0, 2).join(' ')
        if (!canLie(words, how)) continue
        lied.add(`${words}, ${how}`)
        newest = ''
        await before()
        t.deepEqual(tables(), first, command)
        fake.commands.length = 0
        newest = `10.3.${revision >> 8}.${revision & 255}`
        fake.lie = { at, how }
        const error = await t.throwsAsync(after, { instanceOf: EngineError }, `${how}: ${command}`)
        fake.lie = undefined
        if (how === 'refused') t.regex(error?.message ?? '', /No such map/, command)
        fake.commands.length = 0
        await after()
        t.is(fake.commands.filter((line) => line.startsWith('show map ')).length, fake.maps.size, 'all were read')
        t.deepEqual(tables(), last, `${how}: ${command}`)
      }
    t.deepEqual(
      [...lied].toSorted(),
      [
        ...['add map', 'add server', 'set server', 'weft del', 'weft get', 'weft set'].map((c) => `${c}, refused`),
        ...silenceable.map((c) => `${c}, silent`),
        ...cuttable.map((c) => `${c}, cut`),
      ].toSorted(),
    )
  } finally {
    await engine.detach()
    await fake[Symbol.asyncDispose]()
    rmSync(dir, { recursive: true })
  }
})

/** That a server did not change its state shows in no reply; only rows have values to cut. */
const silenceable = ['add map', 'add server', 'weft del', 'weft set']
const cuttable = ['add map', 'weft set']
const canLie = (words: string, how: Lie): boolean =>
  how === 'refused' || (how === 'silent' ? silenceable : cuttable).includes(words)
