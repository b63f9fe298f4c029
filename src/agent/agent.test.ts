import test from 'ava'
import { Registry } from 'prom-client'
import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, events, nodes, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { EventRecorder } from '#client/events.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import type { Service } from '#datapath/datapath.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import { frontendName } from '#datapath/frontend.ts'
import type { Signals } from '#gateway/engine.ts'
import { registerGatewayMetrics } from './gateway/metrics.ts'
import { Hooks } from './hooks.ts'
import { AgentMetrics, registerMetrics, registerSweepMetrics } from './metrics.ts'
import { planServices } from './services/plan.ts'
import { reflectService } from './services/reflect.ts'
import { Services } from './services/services.ts'
import { Signal } from './signal.ts'

const stamp = { uid: 'u', resourceVersion: '1', creationTimestamp: '2026-01-01T00:00:00Z' }

const kubeService = (spec: Partial<KubeService['spec']>): KubeService => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'default', ...stamp },
  spec: { clusterIPs: ['10.96.0.10'], ports: [{ port: 80, protocol: 'TCP' }], ...spec },
  status: { loadBalancer: {} },
})

const slice = (endpoints: readonly Endpoint[], more: Partial<EndpointSlice> = {}): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 'web-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' }, ...stamp },
  addressType: 'IPv4',
  endpoints: [...endpoints],
  ports: [{ port: 8080, protocol: 'TCP' }],
  ...more,
})

const ready = (address: string): Endpoint => ({ addresses: [address], conditions: { ready: true } })
const rows = (found: readonly Service[]): string[] =>
  found.map(({ frontend, backends }) =>
    `${frontendName(frontend)} -> ${backends.map(frontendName).join(' ')}`.trimEnd(),
  )

test('reflectService() gives each address and port of a Service the endpoints of its slices', (t) => {
  t.deepEqual(rows(reflectService(kubeService({}), [slice([ready('10.0.0.2'), ready('10.0.0.1')])])), [
    '10.96.0.10:80/TCP -> 10.0.0.1:8080/TCP 10.0.0.2:8080/TCP',
  ])
  t.deepEqual(rows(reflectService(kubeService({}), [])), ['10.96.0.10:80/TCP ->'])
})

test('reflectService() matches ports by name and protocol, across slices, and takes the slice’s number', (t) => {
  const service = kubeService({
    ports: [
      { name: 'http', port: 80, protocol: 'TCP', targetPort: 'web' },
      { name: 'dns', port: 53, protocol: 'UDP' },
      { name: 'sctp', port: 9, protocol: 'SCTP' },
    ],
  })
  const named = (port: number) => [
    { name: 'http', port, protocol: 'TCP' as const },
    { name: 'dns', port: 5353, protocol: 'UDP' as const },
    { name: 'dns', port: 53, protocol: 'TCP' as const },
  ]
  const slices = [
    slice([ready('10.0.0.1')], { ports: named(8080) }),
    slice([ready('10.0.0.2')], { ports: named(9090) }),
  ]
  t.deepEqual(rows(reflectService(service, slices)), [
    '10.96.0.10:80/TCP -> 10.0.0.1:8080/TCP 10.0.0.2:9090/TCP',
    '10.96.0.10:53/UDP -> 10.0.0.1:5353/UDP 10.0.0.2:5353/UDP',
    '10.96.0.10:9/SCTP ->',
  ])
})

test('reflectService() keeps the families apart', (t) => {
  const service = kubeService({ clusterIPs: ['10.96.0.10', 'fd00:10:96::10'] })
  const slices = [slice([ready('10.0.0.1')]), slice([ready('fd00::1')], { addressType: 'IPv6' })]
  t.deepEqual(rows(reflectService(service, slices)), [
    '10.96.0.10:80/TCP -> 10.0.0.1:8080/TCP',
    '[fd00:10:96::10]:80/TCP -> [fd00::1]:8080/TCP',
  ])
})

test('reflectService() uses endpoints that are going only where none is ready, and then only those that serve', (t) => {
  const going: Endpoint = { addresses: ['10.0.0.3'], conditions: { ready: false, serving: true, terminating: true } }
  const broken: Endpoint = { addresses: ['10.0.0.4'], conditions: { ready: false, serving: false, terminating: true } }
  const starting: Endpoint = { addresses: ['10.0.0.5'], conditions: { ready: false, serving: false } }
  const unknown: Endpoint = { addresses: ['10.0.0.6'], conditions: {} }
  const backends = (...endpoints: Endpoint[]): string =>
    rows(reflectService(kubeService({}), [slice(endpoints)]))[0]?.split(' -> ')[1] ?? ''
  t.is(backends(going, broken, starting, ready('10.0.0.1')), '10.0.0.1:8080/TCP')
  t.is(backends(going, broken, starting), '10.0.0.3:8080/TCP')
  t.is(backends(broken, starting), '')
  t.is(backends(unknown, going), '10.0.0.6:8080/TCP')
})

test('reflectService() counts an endpoint that is in two slices once', (t) => {
  const slices = [slice([ready('10.0.0.1')]), slice([ready('10.0.0.1')])]
  t.deepEqual(rows(reflectService(kubeService({}), slices)), ['10.96.0.10:80/TCP -> 10.0.0.1:8080/TCP'])
})

test('reflectService() has nothing for headless Services and ExternalName', (t) => {
  t.deepEqual(reflectService(kubeService({ clusterIP: 'None', clusterIPs: ['None'] }), []), [])
  t.deepEqual(reflectService(kubeService({ type: 'ExternalName', clusterIPs: [] }), []), [])
})

test('planServices() writes what is new or changed and removes what is gone', (t) => {
  const row = (address: string, ...backends: string[]): Service => ({
    frontend: { address, port: 80, protocol: 'TCP' },
    backends: backends.map((b) => ({ address: b, port: 1, protocol: 'TCP' })),
  })
  const present = [row('10.96.0.1', '1.1.1.1'), row('10.96.0.2', '1.1.1.1'), row('10.96.0.3')]
  const wanted = [row('10.96.0.1', '1.1.1.1'), row('10.96.0.2', '1.1.1.2'), row('10.96.0.4')]
  const plan = planServices(present, wanted)
  t.deepEqual(
    plan.upserts.map((s) => s.frontend.address),
    ['10.96.0.2', '10.96.0.4'],
  )
  t.deepEqual(
    plan.removals.map((f) => f.address),
    ['10.96.0.3'],
  )
})

test('Signal remembers being raised while nobody waited, once', async (t) => {
  const signal = new Signal()
  const stop = new AbortController()
  signal.raise()
  signal.raise()
  await signal.wait(stop.signal)
  const waiting = signal.wait(stop.signal)
  stop.abort(new Error('enough'))
  await t.throwsAsync(waiting, { message: 'enough' })
})

/** A loop on an API in memory. */
function cluster(): { client: FakeClient; clock: FakeClock; informers: Informers; stop: AbortController } {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  return { client, clock, informers: new Informers({ client, clock }), stop: new AbortController() }
}

const seedService = (client: FakeClient, name: string, address: string): void => {
  client.seed(services, { metadata: { name, namespace: 'default' }, spec: kubeService({ clusterIPs: [address] }).spec })
}

test('Services: a restart keeps what is right, removes what is stale and writes what is missing, in one change', async (t) => {
  const { client, clock, informers, stop } = cluster()
  const kernel = new FakeKernel()
  const stale: Service = { frontend: { address: '10.96.9.9', port: 80, protocol: 'TCP' }, backends: [] }
  new FakeDatapath(kernel).changeServices([stale], [])
  seedService(client, 'web', '10.96.0.10')
  client.seed(endpointSlices, slice([ready('10.0.0.1')]))
  const loop = new Services({
    services: informers.of(services),
    slices: informers.of(endpointSlices),
    datapath: new FakeDatapath(kernel),
    clock,
    log: silentLog,
  })
  const running = loop.run(stop.signal).catch(() => {})
  const now = (): string[] => rows([...kernel.services.values()])
  await eventually(() => now().join() === '10.96.0.10:80/TCP -> 10.0.0.1:8080/TCP')

  // Another Service takes the address over: the end of the first does not take it away.
  seedService(client, 'next', '10.96.0.10')
  await eventually(() => now().join() === '10.96.0.10:80/TCP ->')
  client.vanish(services, { namespace: 'default', name: 'web' })
  await eventually(() => loop.status().services === 1)
  stop.abort()
  await running
  await informers[Symbol.asyncDispose]()
  t.deepEqual(now(), ['10.96.0.10:80/TCP ->'], 'what is in force stays when the agent ends')
})

test('Services: what cannot be written is tried again, and status says why meanwhile', async (t) => {
  const { client, clock, informers, stop } = cluster()
  const kernel = new FakeKernel()
  let full = false
  class FullDatapath extends FakeDatapath {
    override changeServices(...change: Parameters<FakeDatapath['changeServices']>): void {
      if (full) throw new Error('the map is full')
      super.changeServices(...change)
    }
  }
  const datapath = new FullDatapath(kernel)
  const loop = new Services({
    services: informers.of(services),
    slices: informers.of(endpointSlices),
    datapath,
    clock,
    log: silentLog,
  })
  let started = false
  const running = loop
    .run(stop.signal, () => {
      started = true
    })
    .catch(() => {})
  await eventually(() => started)
  full = true
  seedService(client, 'web', '10.96.0.10')
  await eventually(() => loop.status().trouble === 'Error: the map is full')
  full = false
  await eventually(() => {
    clock.advance(1_000)
    return kernel.services.size === 1
  })
  t.is(loop.status().trouble, '')
  stop.abort()
  await running
  await informers[Symbol.asyncDispose]()
})

test('Services: an address that another claims is his also where the first write fails', async (t) => {
  const { client, clock, informers, stop } = cluster()
  const kernel = new FakeKernel()
  let full = false
  class FullDatapath extends FakeDatapath {
    override changeServices(...change: Parameters<FakeDatapath['changeServices']>): void {
      if (full) throw new Error('the map is full')
      super.changeServices(...change)
    }
  }
  const seed = (name: string, creationTimestamp: string, clusterIP: string): void => {
    const spec = { clusterIP, clusterIPs: [clusterIP], externalIPs: ['203.0.113.5'], ports: [{ port: 80 }] }
    client.seed(services, { metadata: { name, namespace: 'default', creationTimestamp }, spec } as never)
  }
  seed('old', '2026-01-01T00:00:00Z', '10.96.0.10')
  seed('young', '2026-01-02T00:00:00Z', '10.96.0.11')
  const loop = new Services({
    services: informers.of(services),
    slices: informers.of(endpointSlices),
    datapath: new FullDatapath(kernel),
    clock,
    log: silentLog,
  })
  const running = loop.run(stop.signal).catch(() => {})
  const numberAt = (address: string): string | undefined =>
    [...kernel.services.values()].find(({ frontend }) => frontend.address === address)?.number
  await eventually(() => kernel.services.size === 3)
  t.is(numberAt('203.0.113.5'), numberAt('10.96.0.10'))
  full = true
  client.vanish(services, { namespace: 'default', name: 'old' })
  await eventually(() => loop.status().trouble !== '')
  full = false
  await eventually(() => {
    clock.advance(1_000)
    return kernel.services.size === 2
  })
  t.is(numberAt('203.0.113.5'), numberAt('10.96.0.11'))
  stop.abort()
  await running
  await informers[Symbol.asyncDispose]()
})

test('what the agent counts has no label that grows with what runs, and is read when asked for', async (t) => {
  const registry = new Registry()
  const metrics = new AgentMetrics(registry)
  const datapath = new FakeDatapath(new FakeKernel())
  registerMetrics(metrics, {
    datapath: () => datapath,
    endpoints: () => 3,
    services: () => ({ services: 1, frontends: 2, backends: 5 }),
    nodes: () => 2,
    policies: () => ({ policies: 4, sets: 2, entries: 9, identities: 7, closed: 0, refused: 1 }),
    gateways: () => undefined,
    troubles: () => ({ services: 'E2BIG', nodes: '' }),
    features: () => [{ name: 'tcx', since: '6.6', required: true, cost: '', available: true, reason: '' }],
    ready: () => true,
  })
  const signals = (rule: string, backend: string, count: number): Signals => ({
    rule,
    backend,
    codes: new Map([
      ['200', count],
      ['503', 1],
    ]),
    histogram: { buckets: [{ le: 0.001, count }], count: count + 1, sumSeconds: 0.5 },
  })
  const many = Array.from({ length: 600 }, (_, i) => signals(`HTTPRoute/shop/r${i}/0`, 'shop/s:80', 1))
  registerGatewayMetrics(
    metrics,
    async () => [...many, signals('HTTPRoute/shop/web/2', 'shop/web:80', 7)],
    async () => new Map([['malformed', 3]]),
  )
  const sweep = registerSweepMetrics(metrics)
  sweep({ kept: 5, removed: 2 }, 0.001)
  sweep(undefined, 0.002)
  const text = await registry.metrics()
  for (const line of [
    'weft_gateway_requests_total{route="HTTPRoute/shop/web",rule="2",backend="shop/web:80",code="200"} 7',
    'weft_gateway_request_duration_seconds_bucket{route="HTTPRoute/shop/web",rule="2",backend="shop/web:80",le="0.001"} 7',
    'weft_gateway_request_duration_seconds_count{route="HTTPRoute/shop/web",rule="2",backend="shop/web:80"} 8',
    // The 101 that had the fewest requests, together.
    'weft_gateway_requests_total{route="(other)",rule="",backend="(other)",code="200"} 101',
    'weft_gateway_request_duration_seconds_bucket{route="(other)",rule="",backend="(other)",le="+Inf"} 202',
    'cilium_endpoint 3',
    'weft_service_backends 5',
    'cilium_policy 4',
    'cilium_identity 7',
    'weft_loop_failing{loop="services"} 1',
    'weft_loop_failing{loop="nodes"} 0',
    'cilium_controllers_failing 1',
    'weft_feature_available{feature="tcx"} 1',
    'cilium_datapath_conntrack_gc_runs_total{status="failed"} 1',
    'cilium_datapath_conntrack_gc_entries{status="deleted"} 2',
  ])
    t.true(text.includes(`${line}\n`), line)
  const labels = new Set([...text.matchAll(/[{,](\w+)="/g)].map((m) => m[1] ?? ''))
  const closed = [
    'route',
    'rule',
    'backend',
    'code',
    'direction',
    'reason',
    'endpoint_state',
    'loop',
    'feature',
    'map_name',
    'operation',
    'outcome',
    'status',
    'le',
  ]
  t.deepEqual(
    [...labels].filter((label) => !closed.includes(label)),
    [],
  )
})

test('M15: Hooks: whose program ran before ours is said in an event and, for ten minutes, in the status', async (t) => {
  const { client, clock, informers, stop } = cluster()
  await using _ = informers
  const kernel = new FakeKernel()
  client.seed(nodes, { metadata: { name: 'self' }, spec: {} })
  const known = informers.of(nodes)
  await known.whenSynced(stop.signal)
  const recorder = new EventRecorder({ client, component: 'weft-agent', clock })
  const hooks = new Hooks({
    nodeName: 'self',
    nodes: known,
    datapath: new FakeDatapath(kernel),
    events: recorder,
    clock,
    log: silentLog,
  })
  t.deepEqual(hooks.status(), { displaced: 0, trouble: '' })
  kernel.displaced.push({ program: 'cil_from_contai', id: 7, before: 'from_container', ifindex: 3 })
  const running = Promise.allSettled([recorder.run(stop.signal), hooks.run(stop.signal)])
  const said = informers.of(events)
  await eventually(() => said.list().some(({ reason }) => reason === 'ProgramDisplaced'))
  t.is(hooks.status().displaced, 1)
  t.regex(hooks.status().trouble, /^cil_from_contai \(7\) had been attached before our from_container: /)
  clock.advance(600_000)
  t.deepEqual(hooks.status(), { displaced: 1, trouble: '' })
  stop.abort()
  await running
})
