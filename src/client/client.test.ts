import { once } from 'node:events'
import { createServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { MessageChannel } from 'node:worker_threads'
import test from 'ava'
import type { ConfigMap, Event, Pod } from '#api/gen/core-v1.ts'
import {
  configMaps,
  deployments,
  events,
  leases,
  namespaces,
  nodes,
  pods,
  serviceAccounts,
} from '#api/gen/resources.ts'
import { isStatus, type StatusError, serviceUnavailable, timeout } from '#api/meta/status.ts'
import { formatMicroTime } from '#api/meta/time.ts'
import type { ApiHandler, ApiRequest } from '#api/wire.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { clientConformance } from './conformance.ts'
import { EventRecorder } from './events.ts'
import { FakeClient } from './fake.ts'
import { createHttpClient } from './http.ts'
import { Informer, Informers, nodeOfPod } from './informer.ts'
import { formatKubeconfig, parseKubeconfig } from './kubeconfig.ts'
import { keepLease } from './lease.ts'
import { createPortHandler, servePort } from './port.ts'
import { type Change, follow, initialState, type State, step } from './watch.ts'

const map = (name: string, data: Record<string, string> = {}) => ({ metadata: { namespace: 'a', name }, data })

test('step() shows the objects of a streamed list when its bookmark comes', (t) => {
  const object = { metadata: { name: 'x', resourceVersion: '3' } } as ConfigMap
  const one = step(initialState<ConfigMap>(), { type: 'event', event: { type: 'ADDED', object } })
  t.is(one.change, undefined)
  const two = step(one.state, {
    type: 'event',
    event: { type: 'BOOKMARK', resourceVersion: '7', initialEventsEnd: true },
  })
  t.deepEqual(two.change, { type: 'replace', objects: [object], revision: '7' })
  t.deepEqual(two.state, { at: 'following', source: 'stream', revision: '7' })
})

test('step() falls back to lists where the stream stalls, and keeps to them', (t) => {
  const { state } = step(initialState<ConfigMap>(), { type: 'stalled' })
  t.deepEqual(state, { at: 'fetching', source: 'list', objects: [] })
  const listed = step(state, { type: 'page', page: { metadata: { resourceVersion: '9' }, items: [] } })
  t.deepEqual(listed.state, { at: 'following', source: 'list', revision: '9' })
})

test('step() goes on at its revision after trouble, without looking at everything again', (t) => {
  const following: State<ConfigMap> = { at: 'following', source: 'stream', revision: '12' }
  const error = serviceUnavailable('down')
  const { state, change } = step(following, { type: 'failed', error })
  t.deepEqual(state, { at: 'waiting', next: following })
  t.deepEqual(change, { type: 'trouble', error })
  t.deepEqual(step(state, { type: 'waited' }).state, following)
})

test('step() looks at everything again when the server has not come as far as the copy', (t) => {
  const following: State<ConfigMap> = { at: 'following', source: 'stream', revision: '12' }
  const error = timeout('Too large resource version: 12, current: 3', 1, [{ reason: 'ResourceVersionTooLarge' }])
  const { state } = step(following, { type: 'failed', error })
  t.deepEqual(state, { at: 'waiting', next: { at: 'fetching', source: 'stream', objects: [] } })
})

test('follow() relists after 410 and resumes by itself after a disconnect', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  await client.create(configMaps, map('one'))
  const seen: string[] = []
  const words = (c: Change<ConfigMap>) =>
    c.type === 'replace'
      ? `replace ${c.objects.map((o) => o.metadata.name)}`
      : c.type === 'trouble' || c.type === 'progress'
        ? c.type
        : `${c.type} ${c.object.metadata.name}`
  await using scope = new Scope()
  scope.start(async (signal) => {
    for await (const change of follow(client, configMaps, { signal, clock, random: () => 0 })) seen.push(words(change))
  })
  await eventually(() => seen.length === 1)
  client.storage.disconnect(serviceUnavailable('gone'))
  await eventually(() => seen.length === 2)
  await client.create(configMaps, map('two'))
  clock.advance(1_000)
  await eventually(() => seen.length === 3)
  client.storage.disconnect(serviceUnavailable('gone'))
  await eventually(() => seen.length === 4)
  await client.delete(configMaps, { namespace: 'a', name: 'one' })
  client.storage.compact()
  clock.advance(2_000)
  await eventually(() => seen.length === 5)
  t.deepEqual(seen, ['replace one', 'trouble', 'changed two', 'trouble', 'replace two'])
})

test('follow() uses lists in pages where the server has no streaming list', async (t) => {
  const client = new FakeClient({ watchList: false })
  for (let i = 0; i < 1_001; i++) client.seed(configMaps, map(`m${i}`))
  const stop = new AbortController()
  for await (const change of follow(client, configMaps, { signal: stop.signal })) {
    if (change.type === 'replace') {
      t.is(change.objects.length, 1_001)
      stop.abort()
    }
  }
})

test('an Informer tells of what vanished during a gap, and of one that was replaced by its namesake', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  await client.create(configMaps, map('gone'))
  await client.create(configMaps, map('again'))
  const informer = new Informer(client, configMaps, { clock })
  const told: string[] = []
  informer.onChange((next, old) =>
    told.push(`${old?.metadata.name ?? '-'}:${old?.metadata.uid ?? ''} -> ${next?.metadata.uid ?? '-'}`),
  )
  await using scope = new Scope()
  scope.start((signal) => informer.run(signal))
  await informer.whenSynced(scope.signal)
  client.storage.disconnect(serviceUnavailable('down'))
  await eventually(() => informer.status().trouble !== undefined)
  await client.delete(configMaps, { namespace: 'a', name: 'gone' })
  await client.delete(configMaps, { namespace: 'a', name: 'again' })
  const { metadata } = await client.create(configMaps, map('again'))
  client.storage.compact()
  clock.advance(1_000)
  await informer.whenSeen(metadata.resourceVersion, scope.signal)
  t.deepEqual(told, ['-: -> uid-1', '-: -> uid-2', 'gone:uid-1 -> -', 'again:uid-2 -> -', '-: -> uid-3'])
  t.is(informer.size, 1)
})

test('an Informer keeps its indexes right and its objects frozen', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n1' } })
  const informer = new Informer(client, pods)
  const byNode = informer.index('node', nodeOfPod)
  await using scope = new Scope()
  scope.start((signal) => informer.run(signal))
  await informer.whenSynced(scope.signal)
  t.deepEqual(
    byNode.get('n1').map((p) => p.metadata.name),
    ['p'],
  )
  const cached = informer.get('a/p')
  t.throws(() => Object.assign(cached?.spec ?? {}, { nodeName: 'n2' }), { instanceOf: TypeError })
  const moved = await client.update(pods, { ...pod, spec: { ...pod.spec, nodeName: 'n2' } })
  await informer.whenSeen(moved.metadata.resourceVersion, scope.signal)
  t.deepEqual([...byNode.values()], ['n2'])
  t.is(informer.list('a').length, 1)
  t.is(informer.list('b').length, 0)
})

test('Informers share one watch between all who ask for the same', async (t) => {
  const client = new FakeClient()
  let watches = 0
  client.rule((call) => {
    if (call.verb === 'watch') watches++
    return undefined
  })
  await using informers = new Informers({ client })
  t.is(informers.of(pods), informers.of(pods))
  t.not(informers.of(pods) as unknown, informers.of(pods, { labelSelector: 'a=b' }))
  await informers.whenSynced(new AbortController().signal)
  t.is(watches, 2)
})

test('the fake counts generations, keeps status apart and refuses stale updates', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n' } })
  const status = { ...pod, spec: { nodeName: 'x' }, status: { phase: 'Running' } } as unknown as Pod
  const running = await client.update(pods, status, { subresource: 'status' })
  t.is(running.status.phase, 'Running')
  t.is(running.spec.nodeName, 'n')
  t.is(running.metadata.generation, 1)
  t.true(isStatus(await t.throwsAsync(client.update(pods, pod)), 'Conflict'))
  const patched = await client.patch<Pod>(pods, pod.metadata, 'merge', { spec: { schedulerName: 's' } })
  t.is(patched.metadata.generation, 2)
  t.is(patched.status.phase, 'Running')
})

test('the fake gives a bound pod its grace, and honours finalizers and preconditions', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n' } })
  await client.delete(pods, pod.metadata)
  t.is((await client.get(pods, pod.metadata)).metadata.deletionGracePeriodSeconds, 30)
  const wrong = client.delete(pods, pod.metadata, { gracePeriodSeconds: 0, preconditions: { uid: 'other' } })
  t.true(isStatus(await t.throwsAsync(wrong), 'Conflict'))
  await client.delete(pods, pod.metadata, { gracePeriodSeconds: 0 })
  t.true(isStatus(await t.throwsAsync(client.get(pods, pod.metadata)), 'NotFound'))
  const held = await client.create(configMaps, { metadata: { namespace: 'a', name: 'm', finalizers: ['x/y'] } })
  await client.delete(configMaps, held.metadata)
  t.truthy((await client.get(configMaps, held.metadata)).metadata.deletionTimestamp)
  await client.patch(configMaps, held.metadata, 'merge', { metadata: { finalizers: null } })
  t.true(isStatus(await t.throwsAsync(client.get(configMaps, held.metadata)), 'NotFound'))
})

test('an EventRecorder counts what is identical and combines what is similar', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' } })
  const recorder = new EventRecorder({ client, component: 'test', clock })
  await using scope = new Scope()
  scope.start((signal) => recorder.run(signal))
  for (let i = 0; i < 3; i++) recorder.record(pod, { type: 'Normal', reason: 'Same', message: 'again' })
  for (let i = 0; i < 13; i++) recorder.record(pod, { type: 'Warning', reason: 'Many', message: `number ${i}` })
  await eventually(() => client.calls.filter((c) => c.resource === 'events').length === 16)
  const { items } = await client.list<Event>(events, { namespace: 'a' })
  const same = items.find((e) => e.reason === 'Same')
  t.is(same?.count, 3)
  t.is(same?.involvedObject.uid, pod.metadata.uid)
  t.is(items.length, 1 + 10 + 1)
  t.is(items.find((e) => e.message?.startsWith('(combined'))?.count, 3)
})

test('an EventRecorder never waits: what is too much is dropped and counted', (t) => {
  const recorder = new EventRecorder({ client: new FakeClient(), component: 'test', clock: new FakeClock() })
  const about = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', uid: 'u' } } as Pod
  for (let i = 0; i < 40; i++) recorder.record(about, { type: 'Normal', reason: 'R', message: 'm' })
  t.is(recorder.dropped, 15)
})

/** A small real server over HTTP/2, for the transport alone: answers are the test's. */
async function http2Server(handle: (stream: ServerHttp2Stream, path: string) => void) {
  const server = createServer()
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session) => {
    sessions.add(session)
    session.once('close', () => sessions.delete(session))
  })
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    handle(stream, String(headers[':path']))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    connections: () => sessions.size,
    /** As kill -9 does: sockets end, nothing is said. */
    kill() {
      for (const session of sessions) session.socket.destroy()
    },
    [Symbol.dispose]() {
      for (const session of sessions) session.destroy()
      server.close()
    },
  }
}

const answerJson = (stream: ServerHttp2Stream, status: number, body: unknown, headers = {}) => {
  stream.respond({ ':status': status, 'content-type': 'application/json', ...headers })
  stream.end(JSON.stringify(body))
}

test('the HTTP client reuses a connection, and says what a refusal is', async (t) => {
  const missing = { kind: 'Status', status: 'Failure', code: 404, reason: 'NotFound', message: 'no such thing' }
  using server = await http2Server((stream, path) => {
    if (path.endsWith('/missing')) return answerJson(stream, 404, missing)
    if (path.endsWith('/proxy')) {
      stream.respond({ ':status': 502 })
      return stream.end('bad gateway')
    }
    return answerJson(stream, 200, { metadata: { name: path } })
  })
  using client = createHttpClient({ server: server.url })
  const many = await Promise.all(
    Array.from({ length: 20 }, (_, i) => client.get(configMaps, { namespace: 'a', name: `m${i}` })),
  )
  t.is(many[7]?.metadata.name, '/api/v1/namespaces/a/configmaps/m7')
  t.is(server.connections(), 1)
  const notFound = await t.throwsAsync(client.get(configMaps, { namespace: 'a', name: 'missing' }))
  t.true(isStatus(notFound, 'NotFound'))
  const gateway = await t.throwsAsync(client.get(configMaps, { namespace: 'a', name: 'proxy' }), {
    message: 'bad gateway',
  })
  t.is((gateway as StatusError).code, 502)
})

test('the HTTP client opens another connection when one is full of watches', async (t) => {
  using server = await http2Server((stream, path) => {
    if (path.includes('watch=true')) stream.respond({ ':status': 200 })
    else answerJson(stream, 200, { metadata: { name: 'x' } })
  })
  using client = createHttpClient({ server: server.url })
  const stop = new AbortController()
  const watches = Array.from({ length: 95 }, async () => {
    for await (const _ of client.watch(pods, { signal: stop.signal }));
  })
  t.is((await client.get(configMaps, { namespace: 'a', name: 'm' })).metadata.name, 'x')
  t.is(server.connections(), 2)
  stop.abort()
  const ends = await Promise.allSettled(watches)
  t.true(ends.every((end) => end.status === 'rejected' && end.reason === stop.signal.reason))
})

test('the HTTP client shows a renewed certificate on another connection; what is under way goes on on the old one', async (t) => {
  let watching: ServerHttp2Stream | undefined
  using server = await http2Server((stream, path) => {
    if (path.includes('watch=true')) {
      stream.respond({ ':status': 200 })
      watching = stream
    } else answerJson(stream, 200, { metadata: { name: 'x' } })
  })
  let shown = { cert: 'first', key: '' }
  using client = createHttpClient({ server: server.url, certificate: () => shown })
  const stop = new AbortController()
  const seen: string[] = []
  const watch = (async () => {
    for await (const event of client.watch(configMaps, { signal: stop.signal }))
      if (event.type === 'ADDED') seen.push(event.object.metadata.name)
  })()
  await eventually(() => watching !== undefined)
  await client.get(configMaps, { namespace: 'a', name: 'm' })
  t.is(server.connections(), 1)
  shown = { cert: 'second', key: '' }
  await client.get(configMaps, { namespace: 'a', name: 'm' })
  await client.get(configMaps, { namespace: 'a', name: 'm' })
  t.is(server.connections(), 2)
  watching?.write(`${JSON.stringify({ type: 'ADDED', object: { metadata: { name: 'late' } } })}\n`)
  await eventually(() => seen.includes('late'))
  stop.abort()
  await t.throwsAsync(watch)
  await eventually(() => server.connections() === 1)
})

test('a watch over HTTP throws when its server is killed, and the next request connects anew', async (t) => {
  using server = await http2Server((stream, path) => {
    if (!path.includes('watch=true')) return answerJson(stream, 200, { metadata: { name: 'x' } })
    stream.respond({ ':status': 200 })
    return stream.write(`${JSON.stringify({ type: 'ADDED', object: { metadata: { name: 'a' } } })}\n{"type":"MOD`)
  })
  using client = createHttpClient({ server: server.url })
  const { signal } = new AbortController()
  const seen: string[] = []
  const watching = (async () => {
    for await (const event of client.watch(pods, { signal })) {
      seen.push(event.type)
      server.kill()
    }
  })()
  await t.throwsAsync(watching, { message: /the connection broke/ })
  t.deepEqual(seen, ['ADDED'])
  t.is((await client.get(configMaps, { namespace: 'a', name: 'm' })).metadata.name, 'x')
})

test('the HTTP client says that nobody is there, and gives up after its time', async (t) => {
  using dead = createHttpClient({ server: 'http://127.0.0.1:1' })
  await t.throwsAsync(dead.get(pods, { namespace: 'a', name: 'x' }), { message: 'Cannot reach http://127.0.0.1:1' })
  using silent = await http2Server(() => {})
  const clock = new FakeClock()
  using client = createHttpClient({ server: silent.url, clock, timeoutMs: 5_000 })
  const asked = client.get(pods, { namespace: 'a', name: 'x' })
  await eventually(() => silent.connections() === 1)
  clock.advance(5_000)
  await t.throwsAsync(asked, { name: 'TimeoutError' })
})

test('the HTTP client waits as long as a server that is busy asks it to', async (t) => {
  let asked = 0
  using server = await http2Server((stream) => {
    if (asked++ === 0) answerJson(stream, 429, { kind: 'Status', code: 429 }, { 'retry-after': '1' })
    else answerJson(stream, 200, { metadata: { name: 'x' } })
  })
  const clock = new FakeClock()
  using client = createHttpClient({ server: server.url, clock })
  const got = client.get(pods, { namespace: 'a', name: 'x' })
  await eventually(() => {
    clock.advance(100)
    return asked === 2
  })
  t.is((await got).metadata.name, 'x')
})

/** The fake's answers as bytes would be a server of our own; the port is tried with a handler that the test holds. */
function portPair(handler: ApiHandler) {
  const { port1, port2 } = new MessageChannel()
  servePort(port1, handler)
  return {
    send: createPortHandler(port2),
    [Symbol.dispose]() {
      port2.close()
    },
  }
}

const request = (signal: AbortSignal): ApiRequest => ({
  method: 'GET',
  path: '/x',
  query: '',
  headers: {},
  body: undefined,
  signal,
})

test('a port carries requests and answers, failures and the end of the caller', async (t) => {
  const gone = Promise.withResolvers<void>()
  using pair = portPair(async ({ path, body, signal }) => {
    if (path === '/fails') throw new Error('disk full')
    if (path === '/slow') {
      signal.addEventListener('abort', () => gone.resolve())
      await gone.promise
    }
    return { status: 201, headers: { a: 'b' }, body: body ?? new Uint8Array([1]) }
  })
  const { signal } = new AbortController()
  const answer = await pair.send({ ...request(signal), body: new Uint8Array([7]) })
  t.deepEqual([answer.status, answer.headers], [201, { a: 'b' }])
  t.deepEqual([...(answer.body as Uint8Array)], [7])
  await t.throwsAsync(pair.send({ ...request(signal), path: '/fails' }), {
    message: 'The API server failed: disk full',
  })
  const leave = new AbortController()
  const slow = pair.send({ ...request(leave.signal), path: '/slow' })
  leave.abort(new Error('no longer wanted'))
  await t.throwsAsync(slow, { message: 'no longer wanted' })
  await gone.promise
})

test('a port keeps no more under way than its window, and ends the stream of a reader that left', async (t) => {
  let sent = 0
  let ended = false
  using pair = portPair(async ({ signal }) => ({
    status: 200,
    headers: {},
    body: (async function* () {
      try {
        while (!signal.aborted) {
          sent++
          yield new Uint8Array(256 * 1024)
        }
      } finally {
        ended = true
      }
    })(),
  }))
  const { body } = await pair.send(request(new AbortController().signal))
  await eventually(() => sent === 5)
  let read = 0
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    read += chunk.length
    if (read >= 10 * 256 * 1024) break
  }
  // What was read, the window, and the chunk that found it full.
  t.true(sent * 256 * 1024 <= read + 1024 * 1024 + 2 * 256 * 1024, `${sent}`)
  await eventually(() => ended)
})

test('a closed port fails what is under way and what comes later', async (t) => {
  const pair = portPair(() => new Promise(() => {}))
  const { signal } = new AbortController()
  const waiting = pair.send(request(signal))
  pair[Symbol.dispose]()
  await t.throwsAsync(waiting, { message: /port is closed/ })
  await t.throwsAsync(pair.send(request(signal)), { message: /port is closed/ })
})

test('formatKubeconfig() and parseKubeconfig() are inverse, and what cannot be used is refused', async (t) => {
  const config = { server: 'https://127.0.0.1:6443', cluster: 'weft', user: 'admin', ca: 'CA', cert: 'C', key: 'K' }
  t.deepEqual(await parseKubeconfig(formatKubeconfig(config)), config)
  const text = 'current-context: c\ncontexts: [{name: c, context: {cluster: x, user: u}}]\n'
  await t.throwsAsync(parseKubeconfig(text), { message: /clusters has no entry "x"/ })
  const files = `${text}clusters: [{name: x, cluster: {server: 's', certificate-authority: /ca}}]\nusers: [{name: u, user: {tokenFile: /t}}]`
  t.like(await parseKubeconfig(files, { readFile: async (path) => `<${path}>` }), { ca: '</ca>', token: '</t>' })
})

test('keepLease() makes the lease, renews it, and makes it again when it is gone', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const key = { namespace: 'kube-node-lease', name: 'n' }
  await using scope = new Scope()
  scope.start((signal) => keepLease({ client, key, holder: 'n', durationSeconds: 40, everyMs: 10_000, clock }, signal))
  await eventually(() => client.calls.length === 1)
  const first = await client.get(leases, key)
  t.like(first.spec, { renewTime: formatMicroTime(clock.now()), leaseDurationSeconds: 40 })
  await eventually(async () => {
    clock.advance(10_000)
    return (await client.get(leases, key)).spec.renewTime !== first.spec.renewTime
  })
  client.vanish(leases, key)
  await eventually(async () => {
    clock.advance(10_000)
    return (await client.get(leases, key)).spec.holderIdentity === 'n'
  })
  t.pass()
})

const serves = [configMaps, deployments, namespaces, nodes, pods, serviceAccounts]
for (const { name, run } of clientConformance)
  test(`the fake: ${name}`, async (t) => {
    await t.notThrowsAsync(run(new FakeClient({ serves })))
  })
