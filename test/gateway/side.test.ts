import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import test from 'ava'
import type { Filter } from '#gateway/engine.ts'
import { GatewayPlace } from './place.ts'
import { backend, listener, route, state, target } from './state.ts'

let place: GatewayPlace
test.before(async () => {
  place = await GatewayPlace.open()
  await Promise.all([place.backend('10.1.0.1', 8080), place.backend('10.1.0.2', 8080), place.backend('10.1.0.3', 8080)])
  const { faults } = await place.engine.apply(
    state(
      [listener()],
      [
        route('mirror', ['mirror.test'], [{ filters: [mirror(b.id), mirror(c.id)], targets: [target(a.id)] }]),
        route('half', ['half.test'], [{ filters: [mirror(b.id, 1, 2)], targets: [target(a.id)] }]),
        route('request', ['request.test'], [{ timeouts: { requestMs: 500 }, targets: [target(a.id)] }]),
        route(
          'backend',
          ['backend.test'],
          [{ timeouts: { backendRequestMs: 300 }, retry: { codes: [], attempts: 2 }, targets: [target(a.id)] }],
        ),
        route(
          'retry',
          ['retry.test'],
          [{ retry: { codes: [503, 418], attempts: 3, backoffMs: 5 }, targets: [target(a.id)] }],
        ),
        route('dead', ['dead.test'], [{ timeouts: { requestMs: 5000 }, targets: [target(dead.id)] }]),
        route('gone', ['gone.test'], [{ timeouts: { requestMs: 5000 }, targets: [target(gone.id)] }]),
        route('deadfast', ['deadfast.test'], [{ targets: [target(dead.id)] }]),
      ],
      [a, b, c, dead, gone],
    ),
  )
  if (faults.size > 0) throw new Error(JSON.stringify([...faults]))
})
test.after.always(async () => {
  await place?.[Symbol.asyncDispose]()
})

const a = backend('test/a:80', ['10.1.0.1:8080'])
const b = backend('test/b:80', ['10.1.0.2:8080'])
const c = backend('test/c:80', ['10.1.0.3:8080'])
/** Two endpoints that nobody listens at, and one. */
const gone = backend('test/gone:80', ['10.1.0.1:9'])
const dead = backend('test/dead:80', ['10.1.0.1:9', '10.1.0.2:9', '10.1.0.3:8080'])
const mirror = (to: string, numerator = 1, denominator = 1): Filter => ({
  type: 'mirror',
  backend: to,
  fraction: { numerator, denominator },
})
const large = randomBytes(4 << 20)
const sum = createHash('sha256').update(large).digest('hex')

/** The first good answer; the last one where time is up, for the assertion to show. */
async function askUntil<T>(read: () => Promise<T>, good: (value: T) => boolean): Promise<T> {
  const until = performance.now() + 15_000
  for (;;) {
    const value = await read()
    if (good(value) || performance.now() > until) return value
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

test.serial('a mirror gets every byte of a PATCH with 4 MB, in two copies, and nobody waits for it', async (t) => {
  const before = await place.engine.side.counts()
  const seen = await place.seen('http://mirror.test/m?remember=one', { method: 'PATCH', body: large })
  t.is(seen.method, 'PATCH')
  t.is(seen.sha256, sum)
  t.is(seen.bytes, large.length)
  const after = await askUntil(
    () => place.engine.side.counts(),
    (now) => (now?.mirrored ?? 0) - (before?.mirrored ?? 0) === 2,
  )
  t.is((after?.mirrored ?? 0) - (before?.mirrored ?? 0), 2)
  t.is(after?.mirrorsFailed, before?.mirrorsFailed)
  for (const host of ['10.1.0.2', '10.1.0.3']) {
    const { body } = await place.ask(`http://${host}/recall?key=one`, { address: host, port: 8080 })
    t.deepEqual(JSON.parse(body.toString()), {
      method: 'PATCH',
      url: '/m?remember=one',
      sha256: sum,
      host: 'mirror.test',
    })
  }
})

test.serial('a fraction of mirrors is kept', async (t) => {
  const before = (await place.engine.side.counts())?.mirrored ?? 0
  const agent = place.agent({ keepAlive: true, maxSockets: 4 })
  await Promise.all(Array.from({ length: 200 }, () => place.ask('http://half.test/', { agent })))
  const mirrored = await askUntil(
    async () => ((await place.engine.side.counts())?.mirrored ?? 0) - before,
    (n) => n > 70,
  )
  t.true(mirrored > 60 && mirrored < 140, `${mirrored}`)
  agent.destroy()
})

test.serial(
  'a request deadline is exact: before the head 504, and a dripping answer is cut and not passed for whole',
  async (t) => {
    t.is((await place.ask('http://request.test/?delay=100')).code, 200)
    let start = performance.now()
    t.is((await place.ask('http://request.test/?delay=3000')).code, 504)
    let took = performance.now() - start
    t.true(took > 450 && took < 900, `${took}`)
    start = performance.now()
    await t.throwsAsync(place.ask('http://request.test/?drip=200'))
    took = performance.now() - start
    t.true(took > 450 && took < 900, `${took}`)
  },
)

test.serial('a backend deadline is of one attempt, and attempts are counted', async (t) => {
  const start = performance.now()
  t.is((await place.ask('http://backend.test/?delay=3000')).code, 504)
  const took = performance.now() - start
  t.true(took > 850 && took < 1500, `${took}`)
})

test.serial(
  'retries send the same 4 MB again, for any code, and give the last answer when there are no more',
  async (t) => {
    const seen = await place.seen('http://retry.test/?fail=2&key=r1', { method: 'PUT', body: large })
    t.is(seen.sha256, sum)
    t.is((await place.seen('http://retry.test/?fail=3&code=418&key=r2')).method, 'GET')
    t.is((await place.ask('http://retry.test/?fail=9&key=r3', { method: 'POST', body: 'x' })).code, 503)
    t.is((await place.ask('http://retry.test/?code=404')).code, 404)
  },
)

test.serial('an endpoint that is dead is passed over, by both engines, without a failed request', async (t) => {
  const agent = place.agent({ keepAlive: true, maxSockets: 4 })
  for (const host of ['dead.test', 'deadfast.test'])
    for (let i = 0; i < 30; i++) t.is((await place.seen(`http://${host}/`, { agent })).backend, '10.1.0.3:8080')
  agent.destroy()
})

test.serial('WebSockets pass, through HAProxy alone and through the side engine', async (t) => {
  for (const host of ['deadfast.test', 'request.test', 'mirror.test']) {
    const socket = place.socket('10.9.0.1', 80)
    let got = ''
    socket.setEncoding('latin1').on('data', (text: string) => {
      got += text
    })
    const asked = `GET /ws HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n`
    socket.write(asked)
    await askUntil(
      async () => got,
      (text) => text.includes('\r\n\r\n'),
    )
    t.regex(got, /^HTTP\/1\.1 101 /, host)
    socket.write('ping-pong')
    await askUntil(
      async () => got,
      (text) => text.endsWith('ping-pong'),
    )
    t.true(got.endsWith('ping-pong'), host)
    socket.destroy()
  }
})

test.serial('a WebSocket that no endpoint takes is answered 503 and counted', async (t) => {
  const failed = async (): Promise<number> => (await place.engine.refused()).get('tunnel-failed') ?? 0
  const before = await failed()
  const headers = {
    ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  }
  t.is((await place.ask('http://gone.test/ws', { headers })).code, 503)
  t.is(await failed(), before + 1)
})

test.serial('its connections to backends are used again', async (t) => {
  const agent = place.agent({ keepAlive: true, maxSockets: 8 })
  const first = (await place.seen('http://request.test/', { agent })).connections
  await Promise.all(Array.from({ length: 400 }, () => place.seen('http://request.test/', { agent })))
  const last = (await place.seen('http://request.test/', { agent })).connections
  t.true(last - first <= 16, `${last - first} new connections for 400 requests`)
  agent.destroy()
})

/** `WEFT_GATEWAY_REQUESTS=100000` for the long form. */
const requestsInAll = Number(process.env.WEFT_GATEWAY_REQUESTS ?? 3000)
const residentMb = (pid: number | undefined): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024

test.serial(
  'many requests with mirrors, retries and deadlines: bytes identical, memory flat, connections used again',
  async (t) => {
    const agent = place.agent({ keepAlive: true, maxSockets: 16 })
    const body = randomBytes(2000)
    const expected = createHash('sha256').update(body).digest('hex')
    const hosts = ['mirror.test', 'retry.test', 'request.test']
    let next = 0
    const wrong = new Map<string, number>()
    const client = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        const host = hosts[next++ % hosts.length]
        const { code, body: answer } = await place.ask(`http://${host}/`, { method: 'PATCH', body, agent })
        const right = code === 200 && answer.includes(expected)
        if (!right) wrong.set(`${host} ${code}`, (wrong.get(`${host} ${code}`) ?? 0) + 1)
      }
    }
    const burst = async (count: number): Promise<void> => {
      await Promise.all(Array.from({ length: 16 }, () => client(Math.ceil(count / 16))))
    }
    // Past the growth of the first requests.
    await burst(requestsInAll / 3)
    const first = { side: residentMb(place.engine.side.pid), haproxy: residentMb(place.engine.pid) }
    const before = (await place.seen('http://request.test/', { agent })).connections
    await burst((requestsInAll * 2) / 3)
    const last = { side: residentMb(place.engine.side.pid), haproxy: residentMb(place.engine.pid) }
    const after = (await place.seen('http://request.test/', { agent })).connections
    t.deepEqual([...wrong], [])
    t.log(
      `${requestsInAll} requests; side engine ${first.side.toFixed(0)} -> ${last.side.toFixed(0)} MB, HAProxy ${first.haproxy.toFixed(0)} -> ${last.haproxy.toFixed(0)} MB, ${after - before} new connections`,
    )
    t.true(last.side - first.side < 40, `${last.side - first.side} MB more`)
    t.true(last.haproxy - first.haproxy < 10)
    t.true(after - before < 64)
    agent.destroy()
  },
)

test.serial('kill -9 of the side engine: its rules are back, others did not notice', async (t) => {
  const { pid } = place.engine.side
  if (pid === undefined) return t.fail('there is no side engine')
  process.kill(pid, 'SIGKILL')
  t.is((await place.ask('http://deadfast.test/')).code, 200)
  const code = await askUntil(
    async () => (await place.ask('http://request.test/')).code,
    (got) => got === 200,
  )
  t.is(code, 200)
})
