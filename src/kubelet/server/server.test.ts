import { duplexPair } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { createInflate } from 'node:zlib'
import test from 'ava'
import type { TokenReview } from '#api/gen/authentication-v1.ts'
import type { SubjectAccessReview } from '#api/gen/authorization-v1.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { FakeClient } from '#client/fake.ts'
import { FakeRuntime } from '../runtime/fake.ts'
import { observeRuntime } from '../runtime/observed.ts'
import { Gate } from './authorize.ts'
import { KubeletMetrics, renderContainerMetrics, renderResourceMetrics } from './metrics.ts'
import { SpdyClient } from './spdy.ts'

test('SpdyClient opens streams whose headers any zlib reads, and half-closes them', async (t) => {
  const [ours, theirs] = duplexPair()
  const heard: string[] = []
  const spdy = new SpdyClient(ours, Buffer.alloc(0), {
    data: (id, chunk) => heard.push(`${id}:${chunk}`),
    ended: (id) => heard.push(`${id} ended`),
    closed: (error) => heard.push(`closed ${error?.message ?? 'well'}`),
  })
  let received = Buffer.alloc(0)
  theirs.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
  })
  const first = spdy.open({ streamtype: 'error' })
  const second = spdy.open({ streamtype: 'stdin' })
  t.deepEqual([first.id, second.id], [1, 3])
  await eventually(() => frames(received).length === 2)

  const inflate = createInflate()
  let headers = Buffer.alloc(0)
  inflate.on('data', (chunk: Buffer) => {
    headers = Buffer.concat([headers, chunk])
  })
  for (const frame of frames(received)) {
    t.is(frame.readUInt32BE(0), 0x80030001)
    inflate.write(frame.subarray(18))
  }
  await eventually(() => headers.includes('error') && headers.includes('stdin'))
  inflate.destroy()

  const reply = (id: number) => Buffer.from([0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, id])
  // Cut anywhere: a frame comes in pieces.
  const answer = Buffer.concat([reply(1), reply(3), Buffer.from([0, 0, 0, 1, 1, 0, 0, 2]), Buffer.from('hi')])
  for (const byte of answer) theirs.write(Buffer.from([byte]))
  await Promise.all([first.ready, second.ready])
  await eventually(() => heard.length === 2)
  t.deepEqual(heard, ['1:hi', '1 ended'])

  received = Buffer.alloc(0)
  spdy.write(3, Buffer.from('x'))
  spdy.end(3)
  await eventually(() => received.length >= 17)
  t.deepEqual([...received], [0, 0, 0, 3, 0, 0, 0, 1, 0x78, 0, 0, 0, 3, 1, 0, 0, 0])
  theirs.write(Buffer.from([0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]))
  await eventually(() => heard.includes('closed well'))
  spdy.close()
})

function frames(bytes: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = 0; at + 8 <= bytes.length; ) {
    const end = at + 8 + (bytes.readUInt32BE(at + 4) & 0xffffff)
    if (end > bytes.length) break
    found.push(bytes.subarray(at, end))
    at = end
  }
  return found
}

function gate() {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const reviews: string[] = []
  client.answer(({ resource, body }) => {
    if (resource !== 'tokenreviews.authentication.k8s.io') return undefined
    const { spec } = body as TokenReview
    reviews.push(`token ${spec.token}`)
    return {
      ...body,
      status:
        spec.token === 'good'
          ? { authenticated: true, user: { username: 'eve', groups: ['g'] } }
          : { authenticated: false },
    }
  })
  client.answer(({ resource, body }) => {
    if (resource !== 'subjectaccessreviews.authorization.k8s.io') return undefined
    const { spec } = body as SubjectAccessReview
    const { verb, subresource, name } = spec.resourceAttributes ?? {}
    reviews.push(`${spec.user} ${verb} ${subresource} ${name}`)
    return { ...body, status: { allowed: subresource === 'proxy' } }
  })
  return { gate: new Gate(client, clock, 'node-1'), clock, reviews }
}
const socketOf = (subject: object | undefined) =>
  ({ authorized: subject !== undefined, getPeerCertificate: () => ({ subject }) }) as unknown as TLSSocket

test('Gate knows callers by certificate and by token, and remembers both', async (t) => {
  const { gate: g, clock, reviews } = gate()
  t.like(await g.authenticate(socketOf({ CN: 'kube-apiserver', O: 'masters' }), undefined), {
    name: 'kube-apiserver',
    groups: ['masters', 'system:authenticated'],
  })
  t.is(await g.authenticate(socketOf(undefined), undefined), undefined)
  t.is(await g.authenticate(socketOf(undefined), 'Bearer bad'), undefined)
  t.like(await g.authenticate(socketOf(undefined), 'Bearer good'), { name: 'eve', groups: ['g'] })
  await g.authenticate(socketOf(undefined), 'Bearer good')
  t.deepEqual(reviews, ['token bad', 'token good'])
  clock.advance(121_000)
  await g.authenticate(socketOf(undefined), 'Bearer good')
  t.is(reviews.length, 3)
})
test('Gate asks for the finer right first, then for proxy, and believes a yes longer than a no', async (t) => {
  const { gate: g, clock, reviews } = gate()
  const caller = { name: 'eve', groups: [] }
  t.is(await g.refuses(caller, 'get', ['pods', 'proxy']), undefined)
  t.deepEqual(reviews, ['eve get pods node-1', 'eve get proxy node-1'])
  t.is(
    await g.refuses(caller, 'get', ['metrics']),
    'Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[metrics])',
  )
  clock.advance(31_000)
  await g.refuses(caller, 'get', ['pods', 'proxy'])
  t.deepEqual(reviews.slice(3), ['eve get pods node-1'])
})

test('renderResourceMetrics() keeps nanoseconds exact', (t) => {
  const stats = {
    id: 'i',
    name: 'c',
    podName: 'p',
    podNamespace: 'n',
    podUid: 'u',
    at: 5,
    cpuNanoseconds: 9_007_199_254_740_993n,
    workingSetBytes: 42,
    writableBytes: 0,
  }
  const text = renderResourceMetrics([stats], 7)
  t.true(text.includes('container_cpu_usage_seconds_total{container="c",namespace="n",pod="p"} 9007199.254740993 5\n'))
  t.true(text.includes('container_memory_working_set_bytes{container="c",namespace="n",pod="p"} 42 5\n'))
})

test('calls to the runtime and to the API are counted under upstream’s names, failures too', async (t) => {
  const metrics = new KubeletMetrics('n1')
  const clock = new FakeClock()
  const runtime = observeRuntime(new FakeRuntime(clock, ['busybox:1']), metrics.observeRuntime, () => clock.monotonic())
  t.true((await runtime.version()).name.length > 0)
  await runtime.listContainers()
  await t.throwsAsync(runtime.startContainer('nobody'))
  metrics.observeRequest('GET', 200, 0.01)
  metrics.observeRequest('GET', undefined, 1)
  const running = { state: { running: {} } }
  const pods = [
    { status: { phase: 'Running', containerStatuses: [running, { state: { waiting: {} } }] } },
    { status: { phase: 'Pending' } },
  ]
  const text = await metrics.render(pods as never)
  for (const line of [
    'kubelet_node_name{node="n1"} 1',
    'kubelet_runtime_operations_total{operation_type="version"} 1',
    'kubelet_runtime_operations_total{operation_type="list_containers"} 1',
    'kubelet_runtime_operations_errors_total{operation_type="start_container"} 1',
    'kubelet_runtime_operations_duration_seconds_count{operation_type="start_container"} 1',
    'rest_client_requests_total{method="GET",code="200"} 1',
    'rest_client_requests_total{method="GET",code="<error>"} 1',
    'kubelet_running_pods 1',
    'kubelet_pods{phase="Pending"} 1',
    'kubelet_running_containers{container_state="running"} 1',
    'kubelet_running_containers{container_state="created"} 1',
  ])
    t.true(text.includes(`${line}\n`), line)
})

test('renderContainerMetrics() has what dashboards read, and the machine', (t) => {
  const stats = {
    ...{ id: 'i', name: 'c', podName: 'p', podNamespace: 'n', podUid: 'u', at: 5 },
    ...{ cpuNanoseconds: 1_500_000_000n, workingSetBytes: 42, writableBytes: 7 },
  }
  const text = renderContainerMetrics([stats], { cpus: 2, memoryBytes: 1024 })
  const labels = '{container="c",id="i",namespace="n",pod="p"}'
  t.true(text.includes(`container_cpu_usage_seconds_total${labels} 1.500000000\n`))
  t.true(text.includes(`container_fs_usage_bytes${labels} 7\n`))
  t.true(text.endsWith('machine_memory_bytes 1024\n'))
})
