import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer as createHttp, type IncomingMessage, request } from 'node:http'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, connect, createServer as createTcp, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import test from 'ava'
import WebSocket from 'ws'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeRegistry } from '../fake-registry.ts'
import { createLeaf } from '../pki/certificate.ts'
import { loadOrCreatePki } from '../pki/pki.ts'
import type { SubresourceCall } from '../step.ts'
import { authorizationOf } from './bearer.ts'
import { chooseContainer } from './container.ts'
import { Kubelets } from './kubelet.ts'
import { logHandler } from './log.ts'
import { logSocketHandler } from './log-socket.ts'
import { kubeletPath, upgradeHandler, upgradeHead } from './upgrade.ts'

const metadata = (name: string) => ({
  name,
  namespace: 'default',
  uid: `uid-${name}`,
  resourceVersion: '1',
  creationTimestamp: '',
})

function pod(name: string, containers: readonly string[], nodeName?: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: metadata(name),
    spec: { containers: containers.map((name) => ({ name, resources: {} })), ...(nodeName ? { nodeName } : {}) },
    status: {},
  }
}

function node(name: string, port: number): Node {
  const status = {
    addresses: [{ type: 'InternalIP', address: '127.0.0.1' }],
    daemonEndpoints: { kubeletEndpoint: { Port: port } },
  }
  return { apiVersion: 'v1', kind: 'Node', metadata: metadata(name), spec: {}, status } as unknown as Node
}

function call(
  registry: FakeRegistry,
  subresource: string,
  query: string,
  more: Partial<SubresourceCall['request']> = {},
): SubresourceCall {
  const user = { name: 'tester', groups: [] }
  const about = {
    group: '',
    version: 'v1',
    resource: 'pods',
    subresource,
    namespace: 'default',
    name: 'a',
    path: undefined,
  }
  return {
    request: {
      method: 'POST',
      path: '',
      query,
      headers: {},
      body: undefined,
      signal: new AbortController().signal,
      ...more,
    },
    attributes: { user, verb: 'create', ...about },
    body: undefined,
    query: new URLSearchParams(query),
    dryRun: false,
    registry,
  }
}

test('chooseContainer() takes the named or the only one, and says which there are', (t) => {
  t.is(chooseContainer(pod('a', ['only']), undefined), 'only')
  t.is(chooseContainer(pod('a', ['x', 'y']), 'y'), 'y')
  t.throws(() => chooseContainer(pod('a', ['x', 'y']), undefined), {
    message: 'a container name must be specified for pod a, choose one of: [x y]',
  })
  t.throws(() => chooseContainer(pod('a', ['x']), 'z'), { message: 'container z is not valid for pod a' })
})

test('kubeletPath() says it in the kubelet’s words', (t) => {
  const registry = new FakeRegistry().put(pods, pod('a', ['main'], 'n'))
  const path = (subresource: string, query: string) => kubeletPath(call(registry, subresource, query))
  t.is(
    path('exec', 'command=sh&command=-c&command=echo+%22x%22&stdin=true&stdout=true&tty=false'),
    '/exec/default/a/main?input=1&output=1&command=sh&command=-c&command=echo+%22x%22',
  )
  t.is(path('attach', 'stdout=1&stderr=true&tty=true&container=main'), '/attach/default/a/main?output=1&error=1&tty=1')
  t.is(path('portforward', ''), '/portForward/default/a')
  t.is(path('portforward', 'ports=80'), '/portForward/default/a?port=80')
  t.throws(() => path('exec', 'command=sh'), { message: 'you must specify at least one of stdin, stdout, stderr' })
  t.throws(() => path('exec', 'stdout=true'), { message: 'you must specify at least one command for the container' })
})

test('upgradeHead() passes the upgrade on and keeps the credentials', (t) => {
  const headers = {
    authorization: 'Bearer secret',
    cookie: 'x',
    upgrade: 'SPDY/3.1',
    connection: 'Upgrade',
    'x-stream-protocol-version': 'v4.channel.k8s.io, v3.channel.k8s.io',
    'sec-websocket-key': 'k',
    'sec-websocket-protocol': 'v5.channel.k8s.io,base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.channel.k8s.io',
  }
  t.is(
    upgradeHead('POST', '/exec/a', '10.0.0.1:10250', headers),
    'POST /exec/a HTTP/1.1\r\nHost: 10.0.0.1:10250\r\nConnection: Upgrade\r\nupgrade: SPDY/3.1\r\n' +
      'x-stream-protocol-version: v4.channel.k8s.io\r\nx-stream-protocol-version: v3.channel.k8s.io\r\n' +
      'sec-websocket-key: k\r\nsec-websocket-protocol: v5.channel.k8s.io, v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n',
  )
})

interface FakeKubelet {
  readonly server: Server
  readonly port: number
  readonly kubelets: Kubelets
  readonly seen: { user?: string | undefined; url?: string | undefined }
}

const directory = mkdtempSync(join(tmpdir(), 'weft-stream-'))
const made = loadOrCreatePki({ directory, names: [], serviceAddresses: [] })
const open: (() => void)[] = []
test.after.always(() => {
  for (const close of open) close()
  rmSync(directory, { recursive: true })
})

/** A kubelet's side of TLS: shows a certificate for 127.0.0.1, wants one of the cluster's. */
async function fakeKubelet(onUpgrade: (socket: Duplex) => void, names = ['127.0.0.1']): Promise<FakeKubelet> {
  const pki = await made
  const leaf = await createLeaf(pki.authority, {
    subject: { commonName: 'system:node:n' },
    usage: 'server',
    names,
    now: Date.now(),
  })
  const seen: { user?: string | undefined; url?: string | undefined } = {}
  const tls = {
    cert: leaf.certificate,
    key: leaf.key,
    ca: pki.authority.certificate,
    requestCert: true,
    allowHalfOpen: true,
  }
  const server = createServer(tls, (request, response) => {
    seen.user = [(request.socket as TLSSocket).getPeerCertificate().subject?.CN].flat()[0]
    seen.url = request.url
    if (request.url?.includes('waiting')) {
      response.writeHead(400).end('container "waiting" in pod "a" is waiting to start: ContainerCreating')
      return
    }
    response.write('one\n')
    if (!request.url?.includes('follow')) response.end('two\n')
  })
  server.on('upgrade', (request, socket) => {
    seen.url = request.url
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n')
    onUpgrade(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const kubelets = new Kubelets({ credentials: () => pki.kubeletClient, authority: pki.authority.certificate })
  open.push(() => {
    kubelets.close()
    server.closeAllConnections()
    server.close()
  })
  return { server, port: (server.address() as AddressInfo).port, kubelets, seen }
}

/** Two connected sockets, half-closable: the caller's and the one the API server would have. */
async function socketPair(): Promise<{ caller: Socket; server: Socket }> {
  const listener = createTcp({ allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const caller = connect({ port: (listener.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const [server] = (await once(listener, 'connection')) as [Socket]
  listener.close()
  return { caller, server }
}

async function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of socket as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

function registryWith(port: number): FakeRegistry {
  return new FakeRegistry().put(pods, pod('a', ['main', 'waiting'], 'n')).put(nodes, node('n', port))
}

const upgrade = { upgrade: 'SPDY/3.1', connection: 'Upgrade' }
const execQuery = 'command=cat&stdin=true&stdout=true&container=main'

test('an upgrade joins caller and kubelet; the caller’s half-close arrives, and what was sent with the head', async (t) => {
  const kubelet = await fakeKubelet((socket) => {
    // Like `cat; exit`: says back what it was told, and ends once the caller has.
    socket.on('data', (chunk) => socket.write(chunk))
    socket.on('end', () => socket.end('[end]'))
  })
  const { caller, server } = await socketPair()
  const joined = upgradeHandler(kubelet.kubelets)(
    call(registryWith(kubelet.port), 'exec', execQuery, { headers: upgrade }),
    server,
    Buffer.from('first,'),
  )
  caller.end('second')
  const text = await readAll(caller)
  t.is(text.split('\r\n\r\n')[1], 'first,second[end]')
  t.true(text.startsWith('HTTP/1.1 101 '))
  t.is(kubelet.seen.url, '/exec/default/a/main?input=1&output=1&command=cat')
  await joined
})

test('a caller that breaks off ends the kubelet’s side, and a kubelet that ends first ends the caller’s', async (t) => {
  const ends = Promise.withResolvers<void>()
  const kubelet = await fakeKubelet((socket) => {
    socket.on('error', () => {})
    socket.on('close', () => ends.resolve())
    socket.resume()
    socket.on('end', () => socket.end())
  })
  const { caller, server } = await socketPair()
  const joined = upgradeHandler(kubelet.kubelets)(
    call(registryWith(kubelet.port), 'exec', execQuery, { headers: upgrade }),
    server,
    Buffer.alloc(0),
  )
  await once(caller, 'data')
  caller.destroy()
  await ends.promise
  await joined
  const hangsUp = await fakeKubelet((socket) => socket.end('bye'))
  const pair = await socketPair()
  const over = upgradeHandler(hangsUp.kubelets)(
    call(registryWith(hangsUp.port), 'exec', execQuery, { headers: upgrade }),
    pair.server,
    Buffer.alloc(0),
  )
  t.true((await readAll(pair.caller)).endsWith('bye'))
  pair.caller.end()
  await over
})

test('a megabyte each way arrives whole', async (t) => {
  const kubelet = await fakeKubelet((socket) => void socket.pipe(socket))
  const { caller, server } = await socketPair()
  const joined = upgradeHandler(kubelet.kubelets)(
    call(registryWith(kubelet.port), 'portforward', '', { headers: upgrade }),
    server,
    Buffer.alloc(0),
  )
  const sent = Buffer.alloc(1 << 20, 'weft')
  caller.end(sent)
  const text = await readAll(caller)
  t.is(text.slice(text.indexOf('\r\n\r\n') + 4), sent.toString())
  await joined
})

test('what cannot be reached or is not the kubelet it should be is an error before anything is said', async (t) => {
  const nowhere = await fakeKubelet(() => {})
  const { server } = await socketPair()
  const at = (port: number, kubelets: Kubelets) =>
    upgradeHandler(kubelets)(call(registryWith(port), 'exec', execQuery, { headers: upgrade }), server, Buffer.alloc(0))
  const refused = await t.throwsAsync(() => at(1, nowhere.kubelets), { instanceOf: StatusError })
  t.regex(refused?.message ?? '', /error dialing backend: dial tcp 127\.0\.0\.1:1: .*ECONNREFUSED/)
  const other = await fakeKubelet(() => {}, ['10.9.9.9'])
  const wrong = await t.throwsAsync(() => at(other.port, other.kubelets), { instanceOf: StatusError })
  t.regex(wrong?.message ?? '', /IP: 127\.0\.0\.1 is not in the cert/)
  t.is(server.bytesWritten, 0)
  server.destroy()
})

async function text(body: Uint8Array | AsyncIterable<Uint8Array>): Promise<string> {
  if (body instanceof Uint8Array) return Buffer.from(body).toString()
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

test('logs are the kubelet’s text, asked for as the API server', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const answer = await logHandler(kubelet.kubelets)(
    call(registryWith(kubelet.port), 'log', 'container=main&tailLines=2', { method: 'GET' }),
  )
  if (!('body' in answer)) return t.fail()
  t.is(await text(answer.body), 'one\ntwo\n')
  t.deepEqual(kubelet.seen, { user: 'kube-apiserver-kubelet-client', url: '/containerLogs/default/a/main?tailLines=2' })
})

test('a followed log comes as it is written and ends with its caller', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const leave = new AbortController()
  const answer = await logHandler(kubelet.kubelets)(
    call(registryWith(kubelet.port), 'log', 'container=main&follow=true', { method: 'GET', signal: leave.signal }),
  )
  if (!('body' in answer) || answer.body instanceof Uint8Array) return t.fail()
  const chunks = answer.body[Symbol.asyncIterator]()
  const first = await chunks.next()
  t.is(Buffer.from(first.value as Uint8Array).toString(), 'one\n')
  leave.abort()
  t.true((await chunks.next()).done)
})

test('a kubelet’s refusal keeps its words; options that make no sense never reach it', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const ask = (query: string) =>
    logHandler(kubelet.kubelets)(call(registryWith(kubelet.port), 'log', query, { method: 'GET' }))
  const waiting = await t.throwsAsync(() => ask('container=waiting'), { instanceOf: StatusError })
  t.is(waiting?.message, 'container "waiting" in pod "a" is waiting to start: ContainerCreating')
  t.is((waiting as StatusError).code, 400)
  const odd = await t.throwsAsync(() => ask('container=main&tailLines=-1'), { instanceOf: StatusError })
  t.is(odd?.message, 'PodLogOptions "a" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0')
})

test('a pod without a node has no log yet, and nobody to exec into', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const registry = new FakeRegistry().put(pods, pod('a', ['main']))
  const answer = await logHandler(kubelet.kubelets)(call(registry, 'log', '', { method: 'GET' }))
  t.is('body' in answer && (await text(answer.body)), '')
  const { server } = await socketPair()
  await t.throwsAsync(
    () => upgradeHandler(kubelet.kubelets)(call(registry, 'exec', execQuery), server, Buffer.alloc(0)),
    {
      message: 'pod a does not have a host assigned',
    },
  )
  server.destroy()
})

/** A door that upgrades to the log, as listen.ts does: a failure before the switch is an answer in HTTP. */
async function logDoor(kubelet: FakeKubelet) {
  const left = Promise.withResolvers<void>()
  const server = createHttp()
  server.on('upgrade', (request, socket, head) => {
    const gone = new AbortController()
    socket.once('close', () => gone.abort())
    const query = request.url?.split('?')[1] ?? ''
    const headers = request.headers as Record<string, string>
    const asked = call(registryWith(kubelet.port), 'log', query, { method: 'GET', headers, signal: gone.signal })
    logSocketHandler(logHandler(kubelet.kubelets))(asked, socket, head).then(left.resolve, (error: Error) => {
      socket.end(`HTTP/1.1 400 Refused\r\nConnection: close\r\n\r\n${error.message}`)
      left.resolve()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  open.push(() => server.close())
  const { port } = server.address() as AddressInfo
  return {
    left: left.promise,
    port,
    socket: (query: string, protocols: string[]) =>
      new WebSocket(`ws://127.0.0.1:${port}/log?container=main&${query}`, protocols),
  }
}

/** What a socket says until it is closed, and with which code. */
function said(socket: WebSocket): Promise<{ messages: string[]; code: number }> {
  const messages: string[] = []
  return new Promise((resolve, reject) => {
    socket.on('message', (data: Buffer, isBinary) => messages.push(`${isBinary ? 'binary' : 'text'} ${data}`))
    socket.on('error', reject)
    socket.on('close', (code) => resolve({ messages, code }))
  })
}

test('a log over WebSocket: bytes, or base64 for those who can take text only; its end closes the socket', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  for (const protocols of [[], ['binary.k8s.io']]) {
    const door = await logDoor(kubelet)
    const { messages, code } = await said(door.socket('', protocols))
    t.is(messages.map((message) => message.replace('binary ', '')).join(''), 'one\ntwo\n')
    t.true(messages.every((message) => message.startsWith('binary ')))
    t.is(code, 1000)
    await door.left
  }
  const door = await logDoor(kubelet)
  const { messages } = await said(door.socket('', ['base64.binary.k8s.io']))
  const decoded = messages.map((message) => Buffer.from(message.replace('text ', ''), 'base64').toString())
  t.is(decoded.join(''), 'one\ntwo\n')
})

test('a log that is followed over WebSocket ends with its reader, and a kubelet that dies is no good end', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const door = await logDoor(kubelet)
  const socket = door.socket('follow=true', [])
  const [first] = (await once(socket, 'message')) as [Buffer]
  t.is(first.toString(), 'one\n')
  socket.close()
  await door.left

  const dies = await fakeKubelet(() => {})
  const other = await logDoor(dies)
  const following = other.socket('follow=true', [])
  const all = said(following)
  await once(following, 'message')
  dies.server.closeAllConnections()
  t.is((await all).code, 1011)
})

test('a handshake for a log that is no good is answered in HTTP', async (t) => {
  const kubelet = await fakeKubelet(() => {})
  const refused = async (query: string, protocols: string[]) => {
    const door = await logDoor(kubelet)
    const socket = door.socket(query, protocols)
    const error = await said(socket).catch((failure: Error) => failure)
    await door.left
    return error instanceof Error ? error.message : 'taken'
  }
  t.regex(await refused('tailLines=-1', []), /Unexpected server response: 400/)
  t.regex(await refused('', ['v4.channel.k8s.io']), /Unexpected server response: 400/)
  const door = await logDoor(kubelet)
  const headers = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' }
  const asking = request({ port: door.port, path: '/log?container=main', headers }).end()
  const [answer] = (await once(asking, 'response')) as [IncomingMessage]
  t.is(answer.statusCode, 400)
  answer.resume()
  await door.left
})

test('authorizationOf() finds the token among the protocols', (t) => {
  const token = Buffer.from('a-token').toString('base64url')
  t.is(authorizationOf(`v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.${token}`), 'Bearer a-token')
  t.is(authorizationOf('v4.channel.k8s.io'), undefined)
  t.is(authorizationOf(undefined), undefined)
})
