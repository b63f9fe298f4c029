import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2'
import { request as request1 } from 'node:https'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { Deadlines } from './deadlines.ts'
import { adminToken, configMap, requestOf, startTrial, type Trial } from './trial.ts'

const maps = '/api/v1/namespaces/default/configmaps'
const authorization = `Bearer ${adminToken}`

interface Wire extends AsyncDisposable {
  readonly trial: Trial
  readonly port: number
  readonly session: ClientHttp2Session
}

async function openWire(options: { readonly bodyTimeoutMs?: number; readonly asAdmin?: boolean } = {}): Promise<Wire> {
  const trial = await startTrial(options)
  const port = await trial.api.listen({ host: '127.0.0.1', port: 0 })
  const { authority, admin } = trial.pki
  const credentials = options.asAdmin ? { cert: admin.certificate, key: admin.key } : {}
  const session = connectHttp2(`https://127.0.0.1:${port}`, { ca: authority.certificate, ...credentials })
  session.on('error', () => {})
  return {
    trial,
    port,
    session,
    async [Symbol.asyncDispose]() {
      session.destroy()
      await trial[Symbol.asyncDispose]()
    },
  }
}

interface Reply {
  readonly status: number
  readonly text: string
}

async function reply(stream: ClientHttp2Stream): Promise<Reply> {
  const [headers] = (await once(stream, 'response')) as [Record<string, unknown>]
  let text = ''
  stream.setEncoding('utf8')
  for await (const piece of stream) text += piece
  return { status: Number(headers[':status']), text }
}

function send(
  { session }: Wire,
  method: string,
  path: string,
  body?: string | Buffer,
  headers: object = {},
): Promise<Reply> {
  const stream = session.request({
    ':method': method,
    ':path': path,
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    ...headers,
  })
  stream.end(body)
  return reply(stream)
}

/** Bytes as they are, over HTTP/1.1; resolves with everything the server says. */
async function raw({ trial, port }: Wire, write: (socket: TLSSocket) => void): Promise<string> {
  const socket = connectTls({ host: '127.0.0.1', port, ca: trial.pki.authority.certificate, servername: 'localhost' })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  let text = ''
  socket.on('data', (piece) => {
    text += piece
  })
  write(socket)
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

const isStatus = (t: ExecutionContext, { status, text }: Reply, code: number): void => {
  t.is(status, code, text)
  const object = JSON.parse(text)
  t.is(object.kind, 'Status')
  t.is(object.code, code)
}

test('create, read, list and delete over HTTP/2 as the holder of a certificate', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  t.is((await send(wire, 'POST', maps, JSON.stringify(configMap('a')))).status, 201)
  t.is(JSON.parse((await send(wire, 'GET', `${maps}/a`)).text).metadata.name, 'a')
  t.is(JSON.parse((await send(wire, 'GET', maps)).text).items.length, 1)
  t.is((await send(wire, 'DELETE', `${maps}/a`)).status, 200)
  isStatus(t, await send(wire, 'GET', `${maps}/a`), 404)
})

test('the same over HTTP/1.1 with a token, and the connection is kept', async (t) => {
  await using wire = await openWire()
  const text = await raw(wire, (socket) => {
    const body = JSON.stringify(configMap('a'))
    const head = `Host: x\r\nAuthorization: ${authorization}\r\n`
    socket.write(
      `POST ${maps} HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    socket.write(`GET /api/v1/namespaces/default HTTP/1.1\r\n${head}Connection: close\r\n\r\n`)
  })
  t.regex(text, /^HTTP\/1.1 201 Created/)
  t.regex(text, /HTTP\/1.1 200 OK[\s\S]*"name":"default"/)
})

test('only health is open to those who show nothing', async (t) => {
  await using wire = await openWire()
  for (const path of ['/healthz', '/livez', '/readyz', '/livez?verbose']) {
    t.is((await send(wire, 'GET', path)).status, 200, path)
  }
  for (const path of ['/version', '/metrics', '/api', '/apis', '/openapi/v2', maps, '/nothing']) {
    isStatus(t, await send(wire, 'GET', path), 401)
  }
  isStatus(t, await send(wire, 'GET', maps, undefined, { authorization: 'Bearer wrong' }), 401)
})

test('what everybody must be able to read: version, metrics, paths', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  const version = JSON.parse((await send(wire, 'GET', '/version')).text)
  t.deepEqual([version.major, version.minor], ['1', '36'])
  t.regex(version.gitVersion, /^v1\.36\./)
  await send(wire, 'GET', maps)
  const metrics = (await send(wire, 'GET', '/metrics')).text
  for (const name of [
    'request_total',
    'request_duration_seconds',
    'current_inflight_requests',
    'longrunning_requests',
    'storage_objects',
  ]) {
    t.true(metrics.includes(`# TYPE apiserver_${name} `), name)
  }
  t.regex(
    metrics,
    /apiserver_request_total\{verb="LIST",group="",version="v1",resource="configmaps",subresource="",scope="namespace",code="200"\} 1/,
  )
  isStatus(t, await send(wire, 'GET', '/no/such/path'), 404)
  isStatus(t, await send(wire, 'GET', '/apis/no.such.group/v1/things'), 404)
  isStatus(t, await send(wire, 'GET', `${maps}/a/no-such-subresource`), 404)
})

test('bodies that are no objects are 400, whatever is wrong with them', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  const deep = (open: string, close: string): string => `${open.repeat(100_000)}${close.repeat(100_000)}`
  const bodies: (readonly [string, string | Buffer, object?])[] = [
    ['nothing', ''],
    ['truncated', '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"na'],
    ['no object', '[1,2]'],
    ['a number', '7'],
    ['null', 'null'],
    ['another kind', JSON.stringify({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'a' } })],
    ['another version', JSON.stringify({ apiVersion: 'v2', kind: 'ConfigMap', metadata: { name: 'a' } })],
    ['a wrong type', JSON.stringify(configMap('a', { data: 'x' }))],
    ['metadata of a wrong type', JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: [] })],
    ['no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])],
    ['deep arrays', deep('[', ']')],
    ['deep objects', deep('{"a":', '}')],
    ['deep YAML', deep('[', ']'), { 'content-type': 'application/yaml' }],
    [
      'YAML that multiplies',
      `a: &a [${'x,'.repeat(50)}]\nb: &b [${'*a,'.repeat(50)}]\nc: &c [${'*b,'.repeat(50)}]\nd: [${'*c,'.repeat(50)}]\n`,
      { 'content-type': 'application/yaml' },
    ],
    ['no protobuf', 'k8s but not really', { 'content-type': 'application/vnd.kubernetes.protobuf' }],
    ['truncated protobuf', Buffer.from('6b3873000a', 'hex'), { 'content-type': 'application/vnd.kubernetes.protobuf' }],
  ]
  for (const [what, body, headers] of bodies) {
    const { status, text } = await send(wire, 'POST', maps, body, headers)
    t.is(status, 400, `${what}: ${text.slice(0, 300)}`)
  }
  isStatus(t, await send(wire, 'POST', maps, '<a/>', { 'content-type': 'text/xml' }), 415)
  isStatus(t, await send(wire, 'GET', '/api/v1/namespaces/%zz/pods'), 400)
  t.is((await send(wire, 'GET', '/readyz')).status, 200)
})

test('enormous bodies are 413 before they are read, announced or not', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  const huge = 'x'.repeat(4 * 1024 * 1024)
  isStatus(t, await send(wire, 'POST', maps, huge), 413)
  const announced = await raw(wire, (socket) =>
    socket.write(
      `POST ${maps} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Length: ${10 ** 9}\r\n\r\n{`,
    ),
  )
  t.regex(announced, /^HTTP\/1.1 413 /)
  const before = process.memoryUsage().rss
  for (let i = 0; i < 6; i++) t.is((await send(wire, 'POST', maps, huge)).status, 413)
  t.true(process.memoryUsage().rss - before < 100 * 1024 * 1024)
  t.is((await send(wire, 'GET', '/readyz')).status, 200)
})

test('a body that does not come is 408, a header that does not come closes the connection', async (t) => {
  await using wire = await openWire({ asAdmin: true, bodyTimeoutMs: 300 })
  const slow = wire.session.request({ ':method': 'POST', ':path': maps, 'content-type': 'application/json' })
  slow.write('{"apiVersion":')
  isStatus(t, await reply(slow), 408)
  const body = await raw(wire, (socket) =>
    socket.write(`POST ${maps} HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nContent-Length: 100\r\n\r\n{`),
  )
  t.regex(body, /^HTTP\/1.1 408 /)
  const header = await raw(wire, (socket) => socket.write('GET /healthz HTTP/1.1\r\nHost'))
  t.regex(header, /^HTTP\/1.1 4\d\d |^$/)
})

test('what is no HTTP at all, and headers without end, are turned away', async (t) => {
  await using wire = await openWire()
  t.regex(await raw(wire, (socket) => socket.write('rubbish\r\n\r\n')), /^HTTP\/1.1 400 /)
  // So long that the rest of it is still under way when the server has had enough: the answer may be lost by that.
  t.regex(
    await raw(wire, (socket) => socket.write(`GET /healthz HTTP/1.1\r\nA: ${'x'.repeat(200_000)}\r\n\r\n`)),
    /^HTTP\/1.1 4\d\d |^$/,
  )
  t.is((await send(wire, 'GET', '/healthz')).status, 200)
})

test('a client that goes away in the middle takes nothing with it', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  for (let i = 0; i < 50; i++) {
    const stream = wire.session.request({ ':method': 'POST', ':path': maps, 'content-type': 'application/json' })
    stream.on('error', () => {})
    stream.write('{"apiVersion":')
    stream.close(8)
  }
  const watch = wire.session.request({ ':path': `${maps}?watch=1` })
  await once(watch, 'response')
  watch.close()
  t.is((await send(wire, 'POST', maps, JSON.stringify(configMap('a')))).status, 201)
  const left = async () =>
    /^apiserver_longrunning_requests (\d+)$/m.exec((await send(wire, 'GET', '/metrics')).text)?.[1]
  await eventually(async () => (await left()) === '0')
  t.is(await left(), '0')
})

test('many watches on one connection get each event', async (t) => {
  await using wire = await openWire({ asAdmin: true })
  const watches = Array.from({ length: 100 }, () => wire.session.request({ ':path': `${maps}?watch=1` }))
  await Promise.all(watches.map((watch) => once(watch, 'response')))
  const lines = watches.map(async (watch) => {
    let text = ''
    watch.setEncoding('utf8')
    for await (const piece of watch) {
      text += piece
      if (text.endsWith('\n')) break
    }
    return JSON.parse(text) as { type: string }
  })
  await send(wire, 'POST', maps, JSON.stringify(configMap('a')))
  t.deepEqual(new Set((await Promise.all(lines)).map(({ type }) => type)), new Set(['ADDED']))
  for (const watch of watches) watch.close()
})

test('an upgrade of what is no stream, or by nobody, is refused as a Status', async (t) => {
  await using wire = await openWire()
  const upgrade = (path: string, headers: object) =>
    new Promise<number>((resolve, reject) => {
      const { port, trial } = wire
      const all = { connection: 'Upgrade', upgrade: 'websocket', ...headers }
      const request = request1({
        host: '127.0.0.1',
        port,
        path,
        headers: all,
        ca: trial.pki.authority.certificate,
        agent: false,
      })
      request.on('response', (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
      request.on('error', reject)
      request.end()
    })
  t.is(await upgrade('/api/v1/namespaces/default/pods/p/exec?command=sh', {}), 401)
  t.is(await upgrade(`${maps}/a`, { authorization }), 400)
  t.is(await upgrade('/api/v1/namespaces/default/pods/p/exec?command=sh', { authorization }), 404)
  t.is(await upgrade('/api/v1/namespaces/default/pods/p/log', { authorization }), 404)
  const token = `base64url.bearer.authorization.k8s.io.${Buffer.from(adminToken).toString('base64url')}`
  const protocols = { 'sec-websocket-protocol': `v5.channel.k8s.io, ${token}` }
  t.is(await upgrade('/api/v1/namespaces/default/pods/p/exec?command=sh', protocols), 404, 'a browser’s way to show it')
})

test('an address that is taken is named', async (t) => {
  await using wire = await openWire()
  const again = () => wire.trial.api.listen({ host: '127.0.0.1', port: wire.port })
  const error = await t.throwsAsync(again)
  t.is(
    error?.message,
    `Cannot listen on 127.0.0.1:${wire.port} for the API: listen EADDRINUSE: address already in use 127.0.0.1:${wire.port}`,
  )
})

test('in process the journey is the same: no token, no answer', async (t) => {
  await using trial = await startTrial()
  const { authorization: _, ...rest } = requestOf('GET', maps).headers
  t.is((await trial.api.handler({ ...requestOf('GET', maps), headers: rest })).status, 401)
  t.is((await trial.api.handler(requestOf('GET', maps))).status, 200)
})

test('Deadlines calls what is late, in order, and not what was done before', (t) => {
  const clock = new FakeClock()
  const deadlines = new Deadlines(1000, clock)
  const late: string[] = []
  const [a, b, c] = ['a', 'b', 'c'].map((name) => deadlines.start(() => late.push(name)))
  b?.()
  clock.advance(900)
  deadlines.start(() => late.push('d'))
  t.deepEqual(late, [])
  clock.advance(350)
  t.deepEqual(late, ['a', 'c'])
  a?.()
  c?.()
  clock.advance(1250)
  t.deepEqual(late, ['a', 'c', 'd'])
})

test('acting as another takes the right to, and then has his rights only', async (t) => {
  await using trial = await startTrial()
  const as = (name: string, more: Record<string, string> = {}) =>
    trial.call('GET', '/api/v1/namespaces', undefined, { 'impersonate-user': name, ...more })
  const nobody = await as('nobody')
  t.is(nobody.status, 403)
  t.regex(nobody.object.message ?? '', /User "nobody" cannot list resource "namespaces"/)
  t.is((await as('nobody', { 'impersonate-group': 'system:masters' })).status, 200)
  t.is((await as('nobody', { 'impersonate-uid': '7' })).status, 400)
  t.is((await trial.call('GET', '/api', undefined, { 'impersonate-group': 'x' })).status, 400)
  const account = await as('system:serviceaccount:default:x')
  t.regex(account.object.message ?? '', /User "system:serviceaccount:default:x" cannot list/)
})
