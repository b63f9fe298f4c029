import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import test from 'ava'
import { isRunning } from '#agent/gateway/sockets/sockets.ts'
import { eventually } from '#base/async/eventually.ts'
import type { Backend, Certificate, EngineState, Listener, Route } from '#gateway/engine.ts'
import { startLoad } from './load.ts'
import { GatewayPlace, gatewayAddresses } from './place.ts'
import { backend, listener, prefix, route, state, target } from './state.ts'
import { certificate } from './tls.ts'

let place: GatewayPlace
let one: Certificate
let two: Certificate
let other: Certificate
test.before(async () => {
  place = await GatewayPlace.open()
  one = await certificate('test/one', 'one.test')
  two = await certificate('test/two', 'one.test')
  other = await certificate('test/other', 'other.test')
  await Promise.all(['10.1.0.1', '10.1.0.2', '10.1.0.3'].map((address) => place.backend(address, 8080)))
})
test.after.always(async () => {
  await place?.[Symbol.asyncDispose]()
})

const endpoints = ['10.1.0.1:8080', '10.1.0.2:8080', '10.1.0.3:8080']
const https = (port: number, certificates: readonly Certificate[], hostname?: string): Listener =>
  listener({
    ...{ id: `test/gw/https-${port}-${hostname ?? ''}`, port, protocol: 'HTTPS' },
    ...(hostname === undefined ? {} : { hostname }),
    tls: { mode: 'terminate', certificates },
  })

/** The certificate that a client is shown for a name, or the alert that it gets. */
function shown(port: number, servername: string): Promise<X509Certificate | string> {
  return new Promise((done) => {
    const socket: TLSSocket = connectTls({
      socket: place.socket(gatewayAddresses[0], port),
      servername,
      rejectUnauthorized: false,
    })
    socket.once('secureConnect', () => {
      done(new X509Certificate(socket.getPeerCertificate().raw))
      socket.destroy()
    })
    socket.once('error', (error) => done(String(error)))
  })
}

test.serial('TLS listeners: by name, renewed in place, refused where no certificate has the name', async (t) => {
  const exact = (certs: readonly Certificate[]): EngineState =>
    state(
      [https(443, certs, 'one.test'), https(443, [other], 'other.test'), https(8443, [other])],
      [
        route('tls', ['one.test'], [{ targets: [target('test/a:80')] }], {
          attachments: [{ listener: 'test/gw/https-443-one.test', hostnames: ['one.test'] }],
        }),
      ],
      [backend('test/a:80', endpoints)],
    )
  const first = await place.engine.apply(exact([one]))
  t.deepEqual([...first.faults], [])
  const serial = async (port: number, name: string): Promise<string> => {
    const got = await shown(port, name)
    return typeof got === 'string' ? got : got.serialNumber
  }
  t.is(await serial(443, 'one.test'), new X509Certificate(one.certPem).serialNumber)
  t.is(await serial(443, 'other.test'), new X509Certificate(other.certPem).serialNumber)
  t.regex(await serial(443, 'third.test'), /alert/)
  t.is(await serial(8443, 'third.test'), new X509Certificate(other.certPem).serialNumber)
  const out = await place.run(
    'curl',
    '-sk',
    '--resolve',
    'one.test:443:10.9.0.1',
    'https://one.test/x',
    '-w',
    '\n%{http_version} %{http_code}',
  )
  t.regex(out, /2 200$/)
  t.true(out.includes('"x-forwarded-proto":"https"'))
  // The same Secret with other content.
  const renewed = await place.engine.apply(exact([{ ...two, id: one.id }]))
  t.deepEqual([...renewed.faults], [])
  t.is(await serial(443, 'one.test'), new X509Certificate(two.certPem).serialNumber)
  t.is(renewed.reloads, first.reloads)
})

test.serial('what this engine does not do is a fault, and nothing goes on without it', async (t) => {
  const secret = backend('test/secret:443', endpoints, { tls: { sni: 'x', caPem: 'system', subjectAltNames: [] } })
  const mutual = listener({
    ...{ id: 'test/gw/mutual', port: 446, protocol: 'HTTPS' },
    tls: { mode: 'terminate', certificates: [one], clientAuthority: { caPem: one.certPem, mode: 'require' } },
  })
  const { faults } = await place.engine.apply(
    state(
      [
        listener(),
        mutual,
        listener({ id: 'test/gw/through', port: 447, protocol: 'TLS', tls: { mode: 'passthrough', certificates: [] } }),
      ],
      [
        route('secret', ['secret.test'], [{ targets: [target(secret.id)] }]),
        route('sticky', ['sticky.test'], [{ session: { type: 'cookie', name: 'x' }, targets: [target('test/a:80')] }]),
      ],
      [secret, backend('test/a:80', endpoints)],
    ),
  )
  t.deepEqual([...faults.keys()].toSorted(), [
    'HTTP/test/sticky/0',
    'test/gw/mutual',
    'test/gw/through',
    'test/secret:443',
  ])
  t.is((await place.ask('http://secret.test/')).code, 500)
  t.is((await place.ask('http://sticky.test/')).code, 200)
  await t.throwsAsync(place.ask('http://x.test/', { port: 446 }), { message: /ECONNREFUSED/ })
})

test.serial('a request for one listener on a connection for another is told so (421)', async (t) => {
  const at = (name: string, hostname: string | undefined): Listener =>
    listener({
      ...{ id: `test/gw/${name}`, port: 443, protocol: 'HTTPS' },
      ...(hostname === undefined ? {} : { hostname }),
      tls: { mode: 'terminate', certificates: [one] },
    })
  const to = (name: string, hostname: string): Route =>
    route(name, [hostname], [{ targets: [target('test/a:80')] }], {
      attachments: [{ listener: `test/gw/${name}`, hostnames: [hostname] }],
    })
  const { faults } = await place.engine.apply(
    state(
      [at('one', 'one.test'), at('wide', '*.wide.test'), at('any', undefined)],
      [to('one', 'one.test'), to('wide', '*.wide.test'), to('any', '')],
      [backend('test/a:80', endpoints)],
    ),
  )
  t.deepEqual([...faults], [])
  const code = async (sni: string, host: string): Promise<string> =>
    (
      await place.run(
        'curl',
        '-sk',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        '--resolve',
        `${sni}:443:10.9.0.1`,
        '-H',
        `host: ${host}`,
        `https://${sni}/`,
      )
    ).trim()
  t.is(await code('one.test', 'one.test'), '200')
  t.is(await code('one.test', 'a.wide.test'), '421')
  t.is(await code('a.wide.test', 'b.wide.test'), '200')
  t.is(await code('a.wide.test', 'one.test'), '421')
  t.is(await code('x.test', 'y.test'), '200')
  t.is(await code('x.test', 'one.test'), '421')
})

test.serial('a certificate that is none, or whose key is another’s, is a fault of its listener alone', async (t) => {
  const { faults } = await place.engine.apply(
    state(
      [
        https(443, [{ id: 'x', certPem: 'rubbish', keyPem: one.keyPem }], 'one.test'),
        https(444, [{ id: 'y', certPem: one.certPem, keyPem: other.keyPem }], 'one.test'),
        https(445, [other], 'other.test'),
        listener(),
      ],
      [route('plain', ['plain.test'], [{ targets: [target('test/a:80')] }])],
      [backend('test/a:80', endpoints)],
    ),
  )
  t.deepEqual([...faults.keys()].toSorted(), ['test/gw/https-443-one.test', 'test/gw/https-444-one.test'])
  t.not(typeof (await shown(445, 'other.test')), 'string')
  t.is((await place.ask('http://plain.test/')).code, 200)
})

test.serial(
  '1,000 changes of routes, listeners, certificates, endpoints and weights under load: no reload, no failed request',
  async (t) => {
    const routes = new Map<string, Route>()
    const listeners = new Map<string, Listener>()
    const backends = new Map<string, Backend>()
    listeners.set('test/gw/http', listener())
    backends.set('test/steady:80', backend('test/steady:80', endpoints))
    const steady = route('steady', ['steady.test'], [{ targets: [target('test/steady:80')] }])
    routes.set(steady.id, steady)
    backends.set('test/moving:80', backend('test/moving:80', endpoints))
    const weighted = (weight: number): Route =>
      route(
        'weighted',
        ['weighted.test'],
        [
          {
            matches: [prefix('/')],
            targets: [target('test/steady:80', { weight }), target('test/moving:80', { weight: 100 - weight })],
          },
          {
            matches: [prefix('/if'), { headers: [{ name: 'x', type: 'exact', value: `${weight}` }], query: [] }],
            targets: [target('test/moving:80')],
          },
        ],
      )
    let revision = 0
    const current = (): EngineState => ({
      revision: ++revision,
      listeners: new Map(listeners),
      routes: new Map(routes),
      backends: new Map(backends),
    })
    const change = (i: number): void => {
      switch (i % 5) {
        case 0: {
          const added = route(
            `r${i % 100}`,
            [`r${i % 100}.test`],
            [{ matches: [prefix(`/${i}`)], targets: [target('test/moving:80')] }],
          )
          routes.has(added.id) && i % 3 === 0 ? routes.delete(added.id) : routes.set(added.id, added)
          return
        }
        case 1: {
          const port = 2000 + (i % 50)
          const added = listener({ id: `test/gw/extra-${port}`, port })
          listeners.has(added.id) ? listeners.delete(added.id) : listeners.set(added.id, added)
          return
        }
        case 2:
          listeners.set(
            'test/gw/https-443-one.test',
            https(443, [{ ...(i % 2 === 0 ? one : two), id: 'test/one' }], 'one.test'),
          )
          return
        case 3:
          backends.set(
            'test/moving:80',
            backend(
              'test/moving:80',
              endpoints.filter((_, n) => (i >> 2) % 4 !== n),
            ),
          )
          return
        default: {
          const made = weighted(1 + (i % 98))
          routes.set(made.id, made)
        }
      }
    }
    routes.set('HTTP/test/weighted', weighted(50))
    const before = await place.engine.apply(current())
    const config = join(place.dir, 'haproxy/haproxy.cfg')
    const text = readFileSync(config, 'utf8')
    const { mtimeMs } = statSync(config)
    const { pid } = place.engine
    const load = startLoad(place, ['http://steady.test/', 'http://weighted.test/', 'http://weighted.test/if'])
    const took: number[] = []
    for (let i = 0; i < 1000; i++) {
      change(i)
      const start = performance.now()
      const { faults } = await place.engine.apply(current())
      took.push(performance.now() - start)
      if (faults.size > 0) t.fail(JSON.stringify([...faults]))
    }
    const { requests, failures } = await load.stop()
    const after = await place.engine.apply(current())
    t.log(`${requests} requests meanwhile; a change took ${took.toSorted((x, y) => x - y)[500]?.toFixed(1)} ms (p50)`)
    t.deepEqual([...failures], [])
    t.true(requests > 1000)
    t.is(after.reloads, before.reloads)
    t.is(place.engine.pid, pid)
    t.is(statSync(config).mtimeMs, mtimeMs)
    t.is(readFileSync(config, 'utf8'), text)
  },
)

test.serial('kill -9 of HAProxy: connections wait, the next process has everything', async (t) => {
  const { pid } = place.engine
  if (pid === undefined) return t.fail('there is no HAProxy')
  process.kill(pid, 'SIGKILL')
  t.is((await place.ask('http://steady.test/')).code, 200)
  t.is((await place.ask('http://weighted.test/')).code, 200)
  t.not(place.engine.pid, pid)
})

test.serial(
  'another agent finds HAProxy serving, mends what was changed behind its back and loses no request',
  async (t) => {
    const wanted = state(
      [listener(), https(443, [one], 'one.test')],
      [
        route('kept', ['kept.test'], [{ targets: [target('test/a:80')] }]),
        route('split', ['split.test'], [{ targets: [target('test/a:80'), target('test/b:80')] }]),
        route(
          'if',
          ['if.test'],
          [{ matches: [{ method: 'GET', headers: [], query: [] }], targets: [target('test/b:80')] }],
        ),
      ],
      [backend('test/a:80', endpoints.slice(0, 2)), backend('test/b:80', endpoints.slice(2))],
    )
    await place.engine.apply(wanted)
    const { pid } = place.engine
    const load = startLoad(place, ['http://kept.test/', 'http://split.test/', 'http://if.test/'], { kept: 2, fresh: 1 })
    await place.engine.detach()
    t.is((await place.ask('http://kept.test/')).code, 200)
    await place.reopen()
    const outcome = await place.engine.apply({ ...wanted, revision: wanted.revision + 1 })
    t.deepEqual([...outcome.faults], [])
    t.is(place.engine.pid, pid)
    const { failures, requests } = await load.stop()
    t.deepEqual([...failures], [])
    t.true(requests > 0)

    // Somebody changes tables while no agent looks.
    await place.engine.detach()
    await place.meddle()
    t.is((await place.ask('http://kept.test/')).code, 404)
    await place.reopen()
    await place.engine.apply({ ...wanted, revision: wanted.revision + 2 })
    for (const host of ['kept', 'split', 'if']) t.is((await place.ask(`http://${host}.test/`)).code, 200)
    t.is((await place.ask('http://stray.test/')).code, 404)
    t.is(place.engine.pid, pid)
  },
)

test.serial('a HAProxy that does not answer is ended by the agent that finds it, and another serves', async (t) => {
  const wanted = state(
    [listener()],
    [route('kept', ['kept.test'], [{ targets: [target('test/a:80')] }])],
    [backend('test/a:80', endpoints)],
  )
  await place.engine.apply(wanted)
  const { pid } = place.engine
  if (pid === undefined) return t.fail('there is no HAProxy')
  await place.engine.detach()
  t.true(isRunning(pid, join(place.dir, 'haproxy/haproxy.cfg')))
  process.kill(pid, 'SIGSTOP')
  const waiting = place.ask('http://kept.test/')
  await place.reopen()
  await place.engine.apply({ ...wanted, revision: wanted.revision + 1 })
  t.is((await place.ask('http://kept.test/')).code, 200)
  t.is((await waiting).code, 200)
  t.not(place.engine.pid, pid)
  await eventually(() => !isRunning(pid, join(place.dir, 'haproxy/haproxy.cfg')), { withinMs: 20_000 })
})

test.serial(
  'an agent of another version puts its own HAProxy beside the one that it finds, and no request fails',
  async (t) => {
    const wanted = state(
      [listener()],
      [route('kept', ['kept.test'], [{ targets: [target('test/a:80')] }])],
      [backend('test/a:80', endpoints)],
    )
    const before = await place.engine.apply(wanted)
    const { pid } = place.engine
    await place.engine.detach()
    const record = join(place.dir, 'haproxy/engine.json')
    writeFileSync(record, readFileSync(record, 'utf8').replace(/"shape":"[^"]+"/, '"shape":"another"'))
    const load = startLoad(place, ['http://kept.test/'], { kept: 3, fresh: 2 })
    await place.reopen()
    const after = await place.engine.apply({ ...wanted, revision: wanted.revision + 1 })
    t.is((await place.ask('http://kept.test/')).code, 200)
    const { failures } = await load.stop()
    t.deepEqual([...failures], [])
    t.not(place.engine.pid, pid)
    t.is(after.reloads, before.reloads + 1)
  },
)

test.serial(
  'golden signals are turned off and on again under load: counted while on, and no request fails',
  async (t) => {
    const wanted = state(
      [listener()],
      [route('kept', ['kept.test'], [{ targets: [target('test/a:80')] }])],
      [backend('test/a:80', endpoints)],
    )
    const counted = async (): Promise<number> =>
      [...(await place.engine.signals())].reduce(
        (sum, { rule, codes }) => sum + (rule === 'HTTP/test/kept/0' ? (codes.get('200') ?? 0) : 0),
        0,
      )
    const table = (): boolean => readFileSync(join(place.dir, 'haproxy/haproxy.cfg'), 'utf8').includes('stick-table')
    await place.engine.apply(wanted)
    const load = startLoad(place, ['http://kept.test/'], { kept: 2, fresh: 1 })
    for (const [i, goldenSignals] of [false, true].entries()) {
      await place.engine.detach()
      await place.reopen({ goldenSignals })
      const { faults } = await place.engine.apply({ ...wanted, revision: wanted.revision + 1 + i })
      t.deepEqual([...faults], [])
      t.is((await place.ask('http://kept.test/')).code, 200)
      t.is(table(), goldenSignals)
      t.is((await counted()) > 0, goldenSignals)
    }
    t.deepEqual([...(await load.stop()).failures], [])
  },
)

test.serial(
  'more pools and TLS slots than there are: reloaded beside itself, idle and busy connections lose nothing',
  async (t) => {
    const many = Array.from({ length: 400 }, (_, i) => backend(`test/many-${i}:80`, endpoints))
    const wanted = (backends: readonly Backend[], ports: number): EngineState =>
      state(
        [listener(), ...Array.from({ length: ports }, (_, i) => https(10_000 + i, [one], 'one.test'))],
        [
          route('steady', ['steady.test'], [{ targets: [target('test/many-0:80')] }]),
          ...backends.map((b, i) => route(`many-${i}`, [`many-${i}.test`], [{ targets: [target(b.id)] }])),
        ],
        backends,
      )
    const before = await place.engine.apply(wanted(many.slice(0, 10), 1))
    const load = startLoad(place, ['http://steady.test/'], { kept: 6, fresh: 2 })
    const idle = Array.from({ length: 20 }, () => place.agent({ keepAlive: true, maxSockets: 1 }))
    await Promise.all(idle.map((agent) => place.ask('http://steady.test/', { agent })))
    const grown = await place.engine.apply(wanted(many, 6))
    t.true(grown.reloads > before.reloads)
    t.is((await place.ask('http://many-399.test/')).code, 200)
    const codes = await Promise.all(idle.map(async (agent) => (await place.ask('http://steady.test/', { agent })).code))
    t.deepEqual([...new Set(codes)], [200])
    const { failures } = await load.stop()
    t.deepEqual([...failures], [])
    t.not(typeof (await shown(10_005, 'one.test')), 'string')
  },
)
