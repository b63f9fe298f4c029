import test from 'ava'
import type { EngineState, Filter, Route } from '#gateway/engine.ts'
import { GatewayPlace } from './place.ts'
import { backend, listener, prefix, route, state, target } from './state.ts'

let place: GatewayPlace
test.before(async () => {
  place = await GatewayPlace.open()
  await Promise.all([
    place.backend('10.1.0.1', 8080),
    place.backend('10.1.0.2', 8080),
    place.backend('fd00:1::1', 8080),
    place.backend('10.1.0.3', 8082, 'h2c'),
  ])
})
test.after.always(async () => {
  await place?.[Symbol.asyncDispose]()
})

const a = backend('test/a:80', ['10.1.0.1:8080'])
const b = backend('test/b:80', ['10.1.0.2:8080'])
const six = backend('test/six:80', ['fd00:1::1:8080'])
const grpc = backend('test/grpc:80', ['10.1.0.3:8082'], { protocol: 'h2c' })
const all = [a, b, six, grpc]

async function apply(wanted: EngineState): Promise<Map<string, string>> {
  const { faults } = await place.engine.apply(wanted)
  return new Map([...faults].map(([id, { message }]) => [id, message]))
}
const withRoutes = (...routes: readonly Route[]): EngineState => state([listener()], routes, all)

test.serial('a route leads to its backend, by address, port, hostname and path, in both families', async (t) => {
  const faults = await apply(
    withRoutes(
      route(
        'one',
        ['one.test'],
        [
          { matches: [prefix('/')], targets: [target(a.id)] },
          { matches: [prefix('/b')], targets: [target(b.id)] },
          { matches: [{ path: { type: 'exact', value: '/six' }, headers: [], query: [] }], targets: [target(six.id)] },
        ],
      ),
    ),
  )
  t.deepEqual([...faults], [])
  t.is((await place.seen('http://one.test/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://one.test/b/c?x=/six', { address: 'fd00:9::1' })).backend, '10.1.0.2:8080')
  t.is((await place.seen('http://one.test/b')).backend, '10.1.0.2:8080')
  t.is((await place.seen('http://one.test/bc')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://one.test/six')).backend, 'fd00:1::1:8080')
  t.is((await place.seen('http://one.test/six/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://one.test/', { headers: { host: 'ONE.test:80' } })).backend, '10.1.0.1:8080')
  t.is((await place.ask('http://two.test/')).code, 404)
  await t.throwsAsync(place.ask('http://one.test/', { port: 81 }), { message: /ECONNREFUSED/ })
})

test.serial(
  'headers, methods, query parameters and regular expressions choose, in the order of precedence',
  async (t) => {
    const faults = await apply(
      withRoutes(
        route(
          'm',
          ['m.test'],
          [
            {
              matches: [{ headers: [{ name: 'Version', type: 'exact', value: 'two' }], query: [] }],
              targets: [target(b.id)],
            },
            { matches: [{ ...prefix('/v'), method: 'POST' }], targets: [target(six.id)] },
            {
              matches: [{ ...prefix('/v'), query: [{ name: 'a b', type: 'exact', value: 'c&d' }] }],
              targets: [target(b.id)],
            },
            {
              matches: [{ path: { type: 'regex', value: '/num/[0-9]+' }, headers: [], query: [] }],
              targets: [target(b.id)],
            },
            {
              matches: [{ path: { type: 'regex', value: '/(a+)+' }, headers: [], query: [] }],
              targets: [target(six.id)],
            },
            { matches: [prefix('/')], targets: [target(a.id)] },
          ],
        ),
      ),
    )
    t.deepEqual([...faults], [])
    const at = async (url: string, ask = {}): Promise<string> => (await place.seen(`http://m.test${url}`, ask)).backend
    t.is(await at('/'), '10.1.0.1:8080')
    t.is(await at('/', { headers: { version: 'two' } }), '10.1.0.2:8080')
    t.is(await at('/', { headers: { version: 'twofold' } }), '10.1.0.1:8080')
    t.is(await at('/v/x', { method: 'POST', body: 'x' }), 'fd00:1::1:8080')
    t.is(await at('/v/x?a+b=c%26d'), '10.1.0.2:8080')
    t.is(await at('/v/x?a+b=c%26d&a+b=other'), '10.1.0.2:8080')
    t.is(await at('/v/x?a+b=other&a+b=c%26d'), '10.1.0.1:8080')
    t.is(await at('/num/17'), '10.1.0.2:8080')
    t.is(await at('/num/17x'), '10.1.0.1:8080')
    // A pattern that would take for ever is given up, and what it cannot decide is not its.
    const start = performance.now()
    t.is(await at(`/${'a'.repeat(40)}!`), '10.1.0.1:8080')
    t.true(performance.now() - start < 1000)
  },
)

test.serial('the most specific hostname and the listener that owns it decide, and no other', async (t) => {
  const wide = listener({ id: 'test/gw/wide', hostname: '*.wide.test' })
  const narrow = listener({ id: 'test/gw/narrow', hostname: '*.narrow.wide.test' })
  const at = (name: string, on: string, hosts: readonly string[], to: string, path = '/'): Route =>
    route(name, hosts, [{ matches: [prefix(path)], targets: [target(to)] }], {
      attachments: [{ listener: on, hostnames: hosts }],
    })
  await apply(
    state(
      [listener(), wide, narrow],
      [
        at('any', 'test/gw/http', [''], six.id),
        at('wide', 'test/gw/wide', ['*.wide.test'], a.id),
        at('exact', 'test/gw/wide', ['x.wide.test'], b.id, '/x'),
        at('lost', 'test/gw/wide', ['y.narrow.wide.test'], b.id),
        at('narrow', 'test/gw/narrow', ['z.narrow.wide.test'], b.id),
      ],
      all,
    ),
  )
  t.is((await place.seen('http://else.test/')).backend, 'fd00:1::1:8080')
  t.is((await place.seen('http://wide.test/')).backend, 'fd00:1::1:8080')
  t.is((await place.seen('http://q.p.wide.test/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://x.wide.test/x')).backend, '10.1.0.2:8080')
  t.is((await place.seen('http://x.wide.test/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://z.narrow.wide.test/')).backend, '10.1.0.2:8080')
  t.is((await place.ask('http://y.narrow.wide.test/')).code, 404)
})

test.serial('a Gateway gets another address: connections that are open are served on', async (t) => {
  const routes = [route('one', ['one.test'], [{ targets: [target(a.id)] }])]
  await apply(state([listener({ addresses: ['10.9.0.1'] })], routes, all))
  const agent = place.agent({ keepAlive: true, maxSockets: 1 })
  t.is((await place.ask('http://one.test/', { agent })).code, 200)
  await apply(state([listener()], routes, all))
  t.is((await place.ask('http://one.test/', { agent })).code, 200)
  t.is((await place.ask('http://one.test/', { address: 'fd00:9::1' })).code, 200)
  // Another Gateway that shares one of the addresses, on the same port.
  const more = listener({ id: 'test/other/http', addresses: ['10.9.0.1', '10.9.0.2'], hostname: 'two.test' })
  const two = route('two', ['two.test'], [{ targets: [target(b.id)] }], {
    attachments: [{ listener: 'test/other/http', hostnames: ['two.test'] }],
  })
  await apply(state([listener(), more], [...routes, two], all))
  t.is((await place.ask('http://one.test/', { agent })).code, 200)
  for (const address of ['10.9.0.1', '10.9.0.2'])
    t.is((await place.seen('http://two.test/', { address })).backend, '10.1.0.2:8080')
  t.is((await place.ask('http://one.test/', { address: '10.9.0.2' })).code, 404)
  t.is((await place.ask('http://one.test/', { address: 'fd00:9::1' })).code, 200)
  agent.destroy()
})

test.serial('headers are changed on the way in and out, for the rule and for one of its backends', async (t) => {
  const change = (type: 'request-headers' | 'response-headers', name: string): Filter => ({
    ...{ type, set: [{ name: `${name}-set`, value: 'new; \\ "value"' }], add: [{ name: `${name}-add`, value: 'b' }] },
    remove: [`${name}-remove`],
  })
  await apply(
    withRoutes(
      route(
        'h',
        ['h.test'],
        [
          {
            filters: [change('request-headers', 'x-rule'), change('response-headers', 'x-out')],
            targets: [target(a.id, { filters: [change('request-headers', 'x-target')] })],
          },
        ],
      ),
    ),
  )
  const { headers, body } = await place.ask('http://h.test/', {
    headers: { 'x-rule-set': 'old', 'x-rule-add': 'a', 'x-rule-remove': 'gone', 'x-target-set': 'old' },
  })
  const seen = (JSON.parse(body.toString()) as { headers: Record<string, string> }).headers
  t.is(seen['x-rule-set'], 'new; \\ "value"')
  t.is(seen['x-rule-add'], 'a, b')
  t.is(seen['x-rule-remove'], undefined)
  t.is(seen['x-target-set'], 'new; \\ "value"')
  t.is(headers['x-out-set'], 'new; \\ "value"')
  t.is(headers['x-out-add'], 'b')
})

test.serial('redirects and rewrites', async (t) => {
  const rules = (filters: readonly Filter[], path: string) => ({
    matches: [prefix(path)],
    filters,
    targets: [target(a.id)],
  })
  await apply(
    withRoutes(
      route(
        'r',
        ['r.test'],
        [
          rules([{ type: 'redirect', scheme: 'https', code: 301 }], '/s'),
          rules(
            [
              {
                type: 'redirect',
                hostname: 'other.test',
                port: 8443,
                code: 302,
                path: { type: 'prefix', value: '/new' },
              },
            ],
            '/p',
          ),
          rules([{ type: 'redirect', code: 307, path: { type: 'full', value: '/full' } }], '/f'),
          rules([{ type: 'redirect', code: 308, path: { type: 'prefix', value: '/' } }], '/cut'),
          rules([{ type: 'redirect', code: 303, hostname: 'see.test' }], '/o'),
          rules([{ type: 'rewrite', hostname: 'inner.test', path: { type: 'prefix', value: '/' } }], '/w'),
          rules([{ type: 'rewrite', path: { type: 'full', value: '/one' } }], '/x'),
        ],
      ),
    ),
  )
  const location = async (path: string): Promise<string> => {
    const { code, headers } = await place.ask(`http://r.test${path}`)
    return `${code} ${headers.location}`
  }
  t.is(await location('/s/a?b=c'), '301 https://r.test/s/a?b=c')
  t.is(await location('/p/a?b=c'), '302 http://other.test:8443/new/a?b=c')
  t.is(await location('/f/a'), '307 http://r.test/full')
  t.is(await location('/cut/a'), '308 http://r.test/a')
  t.is(await location('/cut'), '308 http://r.test/')
  t.is(await location('/o/a'), '303 http://see.test/o/a')
  const inner = await place.seen('http://r.test/w/deep?q=1')
  t.is(inner.url, '/deep?q=1')
  t.is(inner.headers.host, 'inner.test')
  t.is((await place.seen('http://r.test/w')).url, '/')
  t.is((await place.seen('http://r.test/x/y')).url, '/one')
})

test.serial('weights are kept, a broken reference answers 500 for its share, no endpoints 503', async (t) => {
  const none = backend('test/none:80', [])
  await apply(
    state(
      [listener()],
      [
        route(
          'w',
          ['w.test'],
          [{ targets: [target(a.id, { weight: 9 }), target(b.id), target(six.id, { weight: 0 })] }],
        ),
        route('broken', ['broken.test'], [{ targets: [target(a.id), target(undefined)] }]),
        route('gone', ['gone.test'], [{ targets: [target(undefined)] }]),
        route('empty', ['empty.test'], [{ targets: [target(none.id)] }]),
        route('nothing', ['nothing.test'], [{}]),
      ],
      [...all, none],
    ),
  )
  const agent = place.agent({ keepAlive: true, maxSockets: 4 })
  const count = new Map<string, number>()
  for (let i = 0; i < 600; i++) {
    const { backend: name } = await place.seen('http://w.test/', { agent })
    count.set(name, (count.get(name) ?? 0) + 1)
  }
  t.is(count.get('fd00:1::1:8080'), undefined)
  const share = (count.get('10.1.0.2:8080') ?? 0) / 600
  t.true(share > 0.05 && share < 0.16, `${share}`)
  const codes = new Set<number>()
  for (let i = 0; i < 40; i++) codes.add((await place.ask('http://broken.test/', { agent })).code)
  t.deepEqual([...codes].toSorted(), [200, 500])
  t.is((await place.ask('http://gone.test/')).code, 500)
  t.is((await place.ask('http://nothing.test/')).code, 500)
  t.is((await place.ask('http://empty.test/')).code, 503)
  agent.destroy()
})

test.serial('CORS: a preflight is answered here, other requests get their headers', async (t) => {
  const cors: Filter = {
    ...{ type: 'cors', allowOrigins: ['https://ok.test', 'https://*.many.test'], allowCredentials: true },
    ...{ allowMethods: ['GET', 'PUT'], allowHeaders: ['x-a'], exposeHeaders: ['x-b'], maxAgeSeconds: 60 },
  }
  await apply(withRoutes(route('c', ['c.test'], [{ filters: [cors], targets: [target(a.id)] }])))
  const preflight = (origin: string) =>
    place.ask('http://c.test/', { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'PUT' } })
  const yes = await preflight('https://a.many.test')
  t.is(yes.code, 204)
  t.is(yes.headers['access-control-allow-origin'], 'https://a.many.test')
  t.is(yes.headers['access-control-allow-methods'], 'GET, PUT')
  t.is(yes.headers['access-control-allow-credentials'], 'true')
  t.is(yes.headers['access-control-max-age'], '60')
  t.is((await preflight('https://no.test')).headers['access-control-allow-origin'], undefined)
  const plain = await place.ask('http://c.test/', { headers: { origin: 'https://ok.test' } })
  t.is(plain.code, 200)
  t.is(plain.headers['access-control-allow-origin'], 'https://ok.test')
  t.is(plain.headers['access-control-expose-headers'], 'x-b')
})

test.serial('HTTP/2 in the clear, from clients and to backends; HTTP/1 clients reach such backends too', async (t) => {
  await apply(
    withRoutes(
      route('g', ['g.test'], [{ targets: [target(grpc.id)] }]),
      route('o', ['o.test'], [{ targets: [target(a.id)] }]),
    ),
  )
  t.is((await place.seen('http://g.test/x')).backend, '10.1.0.3:8082')
  for (const [host, version] of [
    ['g.test', '--http2-prior-knowledge'],
    ['o.test', '--http2-prior-knowledge'],
    ['g.test', '--http1.1'],
  ] as const) {
    const out = await place.run(
      'curl',
      '-s',
      version,
      '-H',
      `host: ${host}`,
      'http://10.9.0.1/y',
      '-w',
      '\n%{http_version} %{http_code}',
    )
    t.regex(out, version === '--http1.1' ? /1\.1 200$/ : /2 200$/, host)
  }
})

test.serial('a rule that cannot be written is a fault with its name; the others are in force', async (t) => {
  const many = Array.from({ length: 400 }, (_, i) => ({
    matches: [{ ...prefix('/'), headers: [{ name: 'x', type: 'exact' as const, value: `${i}${'v'.repeat(40)}` }] }],
    targets: [target(a.id)],
  }))
  const faults = await apply(
    withRoutes(
      route(
        'bad',
        ['bad.test'],
        [
          { matches: [prefix('/a b')], targets: [target(a.id)] },
          { matches: [prefix('/ok')], targets: [target(b.id)] },
        ],
      ),
      route('large', ['large.test'], many),
      route('good', ['good.test'], [{ targets: [target(a.id)] }]),
    ),
  )
  t.true(faults.has('HTTP/test/bad/0'))
  t.false(faults.has('HTTP/test/bad/1'))
  t.true(faults.has('HTTP/test/large/0'))
  t.is((await place.seen('http://good.test/')).backend, '10.1.0.1:8080')
  t.is((await place.seen('http://bad.test/ok')).backend, '10.1.0.2:8080')
  t.is((await place.ask('http://large.test/')).code, 500)
})
