import { once } from 'node:events'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import type { HttpEvent } from '#gateway/engine.ts'
import { startLoad } from './load.ts'
import { GatewayPlace, gatewayAddresses } from './place.ts'
import { backend, listener, prefix, route, state, target } from './state.ts'

let place: GatewayPlace
test.before(async () => {
  place = await GatewayPlace.open()
  await place.backend('10.1.0.1', 8080)
})
test.after.always(async () => {
  await place?.[Symbol.asyncDispose]()
})

const a = backend('test/a:80', ['10.1.0.1:8080'])
const good = route('good', ['good.test'], [{ targets: [target(a.id)] }])

/** Bytes in, bytes out until the other side closes or time is up. */
async function raw(text: string, withinMs = 3000): Promise<string> {
  const socket = place.socket(gatewayAddresses[0], 80)
  let got = ''
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    got += chunk
  })
  socket.on('error', () => {})
  socket.write(text, 'latin1')
  const timer = setTimeout(() => socket.destroy(), withinMs)
  await once(socket, 'close')
  clearTimeout(timer)
  return got
}
const codes = (text: string): string[] => [...text.matchAll(/^HTTP\/1\.[01] (\d+)/gm)].map((m) => m[1] ?? '')

test.serial('requests that two servers would read differently are refused', async (t) => {
  await place.engine.apply(state([listener()], [good], [a]))
  const smuggled: Record<string, string> = {
    'both lengths': 'POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef',
    'a length that is none': 'POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: +5\r\n\r\nabcde',
    'a chunk size that is none':
      'POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n',
    'a header without a name': 'GET / HTTP/1.1\r\nHost: good.test\r\n: x\r\n\r\n',
    'a space before the colon': 'GET / HTTP/1.1\r\nHost: good.test\r\nContent-Length : 5\r\n\r\nabcde',
    'a control character in the path': 'GET /\x01 HTTP/1.1\r\nHost: good.test\r\n\r\n',
    'two hosts': 'GET / HTTP/1.1\r\nHost: good.test\r\nHost: other.test\r\n\r\n',
    'a NUL': 'GET / HTTP/1.1\r\nHost: good.test\r\nX: a\0b\r\n\r\n',
  }
  for (const [name, text] of Object.entries(smuggled)) t.deepEqual(codes(await raw(text)), ['400'], name)
  // With both framings the chunked one counts, and the connection ends: nothing behind it is taken for a request.
  const both = await raw(
    'POST / HTTP/1.1\r\nHost: good.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: good.test\r\n\r\n',
  )
  t.false(both.includes('/evil'), both)
})

test.serial('headers that are too large are refused, and counted', async (t) => {
  const before = await refused()
  t.deepEqual(codes(await raw(`GET / HTTP/1.1\r\nHost: good.test\r\nX: ${'x'.repeat(60_000)}\r\n\r\n`)), ['400'])
  t.deepEqual(codes(await raw(`GET /${'p'.repeat(60_000)} HTTP/1.1\r\nHost: good.test\r\n\r\n`)), ['400'])
  t.true((await refused()) - before >= 2)
  t.is((await place.ask('http://good.test/', { headers: { x: 'x'.repeat(20_000) } })).code, 200)
})
/** No path of a request has a space or a number sign. */
const pathOf = (text: string): string => `/${text.replaceAll(/[ #]/g, '+')}`
const refused = async (): Promise<number> => (await place.engine.refused()).get('malformed') ?? 0

test.serial('a client that sends its header byte by byte holds up nobody and is sent away', async (t) => {
  const slow = Array.from({ length: 50 }, () => {
    const socket = place.socket(gatewayAddresses[0], 80)
    socket.on('error', () => {})
    socket.write('GET / HTTP/1.1\r\nHost: good')
    return socket
  })
  const ended = Promise.all(slow.map((socket) => once(socket.resume(), 'close')))
  const load = startLoad(place, ['http://good.test/'], { kept: 2, fresh: 1 })
  await ended
  const { failures, requests } = await load.stop()
  t.deepEqual([...failures], [])
  t.true(requests > 100)
})

test.serial('text that tries to break out of a row, a command or the configuration stays text', async (t) => {
  const evil = [
    'x;show info',
    'x\\;disable frontend plain',
    'x"y',
    "x'y",
    'x#y',
    'x$y',
    '<<',
    '%[env(PATH)]',
    'x|p0',
    'x,T,1,pa0',
  ]
  const { faults } = await place.engine.apply(
    state(
      [listener()],
      [
        good,
        ...evil.map((text, i) =>
          route(
            `evil-${i}`,
            ['evil.test'],
            [
              { matches: [prefix(pathOf(text))], targets: [target(a.id)] },
              {
                matches: [{ headers: [{ name: 'x-evil', type: 'exact', value: text }], query: [] }],
                filters: [{ type: 'response-headers', set: [{ name: 'x-back', value: text }], add: [], remove: [] }],
                targets: [target(a.id)],
              },
            ],
          ),
        ),
        route(
          'lines',
          ['lines.test'],
          [
            { matches: [prefix('/a\nadd map x'), prefix('/b c')], targets: [target(a.id)] },
            {
              matches: [{ headers: [{ name: 'x', type: 'exact', value: 'a\n\nshow info\n' }], query: [] }],
              targets: [target(a.id)],
            },
          ],
        ),
      ],
      [a],
    ),
  )
  t.deepEqual([...faults.keys()], ['HTTP/test/lines/0'])
  for (const text of evil) {
    t.deepEqual(
      codes(await raw(`GET ${pathOf(text)}/z HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n`)),
      ['200'],
      text,
    )
    const { headers, code } = await place.ask('http://evil.test/', { headers: { 'x-evil': text } })
    t.is(code, 200, text)
    t.is(headers['x-back'], text)
  }
  t.is((await place.ask('http://good.test/')).code, 200)
})

test.serial('what a client says of rules is not believed', async (t) => {
  const { headers } = await place.seen('http://good.test/', {
    headers: { 'x-weft-rule': 'x', 'x-forwarded-proto': 'https' },
  })
  t.is(headers['x-forwarded-proto'], 'http')
})

test.serial('signals: requests by rule, backend and code with a histogram, errors of the engine too', async (t) => {
  const dead = backend('test/dead:80', ['10.1.0.1:9'])
  const bad = route('refused', ['refused.test'], [{ targets: [target(dead.id)] }])
  const split = route('split', ['split.test'], [{ targets: [target(a.id), target(undefined)] }])
  await place.engine.apply(state([listener()], [good, bad, split], [a, dead]))
  const count = async (rule: string, backendId: string, code: string): Promise<number> => {
    const found = (await place.engine.signals()).find((s) => s.rule === rule && s.backend === backendId)
    return found?.codes.get(code) ?? 0
  }
  const before = await count('HTTP/test/good/0', a.id, '200')
  const agent = place.agent({ keepAlive: true, maxSockets: 2 })
  for (let i = 0; i < 20; i++) await place.ask('http://good.test/', { agent })
  await place.ask('http://good.test/?code=418', { agent })
  t.is((await place.ask('http://refused.test/', { agent })).code, 503)
  await place.ask('http://nowhere.test/', { agent })
  t.is((await count('HTTP/test/good/0', a.id, '200')) - before, 20)
  t.is(await count('HTTP/test/good/0', a.id, '418'), 1)
  t.is(await count('HTTP/test/refused/0', dead.id, '503'), 1)
  t.true((await count('', '', '404')) >= 1)
  const [signal] = (await place.engine.signals()).filter((s) => s.rule === 'HTTP/test/good/0')
  t.is(signal?.histogram.count, signal?.histogram.buckets.at(-1)?.count)
  agent.destroy()
})

test.serial(
  'http events: every request while somebody listens, with rule, backend and endpoint, and none after',
  async (t) => {
    await place.engine.apply(state([listener()], [good], [a]))
    const heard: HttpEvent[] = []
    const stop = new AbortController()
    place.engine.events((event) => heard.push(event), stop.signal)
    // The engine is asked to tell before the next of its answers.
    await place.engine.signals()
    await place.ask('http://good.test/seen?x=1', { method: 'PUT', body: 'x' })
    await place.ask('http://other.test/nothing')
    await eventually(() => heard.length >= 2)
    stop.abort()
    t.is(heard.length, 2)
    const [first, second] = heard
    t.like(first, {
      ...{
        method: 'PUT',
        host: 'good.test',
        path: '/seen',
        code: 200,
        address: '10.9.0.1',
        port: 80,
        client: '10.9.0.1',
      },
      ...{ rule: 'HTTP/test/good/0', backend: a.id, endpoint: '10.1.0.1:8080', protocol: 'HTTP/1.1' },
    })
    t.like(second, { host: 'other.test', path: '/nothing', code: 404, rule: '', backend: '', endpoint: '' })
    await place.engine.signals()
    await place.ask('http://good.test/unseen')
    await place.engine.signals()
    t.is(heard.length, 2)
  },
)
