import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { Registry } from 'prom-client'
import type { Service as KubeService, Node, Pod } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, nodes, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import type { Service } from '#datapath/datapath.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import { frontendName } from '#datapath/frontend.ts'
import type { Signals } from '#gateway/engine.ts'
import { assignedAddresses, freeAddresses } from './endpoints/address.ts'
import { planDevice } from './endpoints/device.ts'
import { type EndpointRecord, Records } from './endpoints/record.ts'
import { registerGatewayMetrics } from './gateway/metrics.ts'
import { NodeHealth } from './health/health.ts'
import { AgentMetrics, registerMetrics, registerSweepMetrics } from './metrics.ts'
import { Nodes } from './nodes/nodes.ts'
import { planNodes, unreachableNetworks } from './nodes/plan.ts'
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

const node = (name: string, podCIDRs: string[] | undefined, ...addresses: string[]): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, ...stamp },
  spec: podCIDRs === undefined ? {} : { podCIDRs },
  status: {
    addresses: addresses.map((address) => ({ type: 'InternalIP', address })),
  } as Node['status'],
})

test('planNodes() leads to other nodes by their address, and nowhere for those that are not ready for it', (t) => {
  const nodes = [
    node('self', ['10.244.1.0/24'], '172.30.0.11'),
    node('other', ['10.244.2.0/24'], '172.30.0.12', 'fd00::12'),
    node('young', undefined, '172.30.0.13'),
    node('lost', ['10.244.4.0/24']),
  ]
  t.deepEqual(planNodes(nodes, 'self'), [
    { name: 'self', podCidrs: ['10.244.1.0/24'], via: undefined },
    { name: 'other', podCidrs: ['10.244.2.0/24'], via: ['172.30.0.12', 'fd00::12'] },
  ])
})

test('unreachableNetworks() names the pods of a node that lacks an address of their family', (t) => {
  const podCidrs = ['10.244.2.0/24', 'fd00:10:244:2::/64']
  t.deepEqual(unreachableNetworks({ name: 'other', podCidrs, via: ['fd00::12'] }), ['other 10.244.2.0/24'])
  t.deepEqual(unreachableNetworks({ name: 'other', podCidrs, via: ['172.30.0.12', 'fd00::12'] }), [])
  t.deepEqual(unreachableNetworks({ name: 'self', podCidrs, via: undefined }), [])
})

test('assignedAddresses() reads what the control plane wrote, and refuses anything else', (t) => {
  const pod = (text: string): Pod => ({ metadata: { annotations: { 'weft.dev/pod-ips': text } } }) as unknown as Pod
  t.deepEqual(assignedAddresses(pod('10.244.1.7,fd00:10:244:1:0:0:0:7')), ['10.244.1.7', 'fd00:10:244:1::7'])
  t.is(assignedAddresses({ metadata: {} } as Pod), undefined)
  for (const wrong of ['10.244.1', '10.0.0.1,10.0.0.2', '10.0.0.1,'])
    t.throws(() => assignedAddresses(pod(wrong)), { instanceOf: RangeError, message: /one address of a family/ })
})

test('freeAddresses() takes the first free one of each network, and says when there is none', (t) => {
  t.deepEqual(freeAddresses(['10.244.1.0/24', 'fd00::/64'], new Set(['10.244.1.2', 'fd00::2', 'fd00::3'])), [
    '10.244.1.3',
    'fd00::4',
  ])
  t.throws(() => freeAddresses(['10.244.1.0/30'], new Set(['10.244.1.2'])), {
    message: /no address is free in 10\.244\.1\.0\/30/,
  })
})

test('planDevice() gives a sandbox the same names each time, and each its own', (t) => {
  const one = planDevice('a', 'eth0', 1500, [])
  t.deepEqual(one, planDevice('a', 'eth0', 1500, []))
  t.not(one.hostDevice, planDevice('b', 'eth0', 1500, []).hostDevice)
  t.true(one.hostDevice.length <= 15)
  t.regex(one.mac, /^02(:[0-9a-f]{2}){5}$/)
})

test('Records survive a restart, in order, without what a crash left half-written', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-records-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const record = (containerId: string, createdAt: number): EndpointRecord => ({
    containerId,
    ifname: 'eth0',
    netns: '/run/netns/x',
    pod: { namespace: 'default', name: 'p', uid: 'u' },
    addresses: ['10.0.0.1'],
    hostDevice: 'lxc1',
    mac: '02:00:00:00:00:01',
    ifindex: 7,
    createdAt,
  })
  const first = new Records(dir)
  first.put(record('later', 2))
  first.put(record('sooner', 1))
  first.put(record('gone', 3))
  first.remove(record('gone', 3))
  writeFileSync(join(dir, 'half-eth0.json'), '{"containerId": "ha')
  writeFileSync(join(dir, 'half-eth0.json.new'), '')
  const again = new Records(dir)
  t.deepEqual(
    again.list().map((r) => r.containerId),
    ['sooner', 'later'],
  )
  t.deepEqual(again.get('sooner', 'eth0'), record('sooner', 1))
  t.deepEqual(readdirSync(dir).toSorted(), ['later-eth0.json', 'sooner-eth0.json'])
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

test('Nodes: routes follow the nodes', async (t) => {
  const { client, clock, informers, stop } = cluster()
  const kernel = new FakeKernel()
  client.seed(nodes, node('self', ['10.244.1.0/24'], '172.30.0.11'))
  const loop = new Nodes({
    nodeName: 'self',
    nodes: informers.of(nodes),
    datapath: new FakeDatapath(kernel),
    clock,
    log: silentLog,
  })
  const running = loop.run(stop.signal).catch(() => {})
  await eventually(() => kernel.routes.size === 1)
  client.seed(nodes, node('other', ['10.244.2.0/24'], '172.30.0.12'))
  await eventually(() => kernel.routes.get('10.244.2.0/24') === '172.30.0.12')
  client.vanish(nodes, { name: 'other' })
  await eventually(() => kernel.routes.size === 1)
  stop.abort()
  await running
  await informers[Symbol.asyncDispose]()
  t.is(kernel.routes.get('10.244.1.0/24'), '')
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

test('NodeHealth names the nodes that are silent, asks a few at a time, and forgets those that are gone', async (t) => {
  const client = new FakeClient({ clock: new FakeClock() })
  const node = (name: string, address: string): Node => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, ...stamp },
    spec: {},
    status: { addresses: [{ type: 'InternalIP', address }] } as Node['status'],
  })
  for (let i = 0; i < 40; i++) client.seed(nodes, node(`n${i}`, `10.0.0.${i}`))
  await using informers = new Informers({ client })
  const copy = informers.of(nodes)
  const stop = new AbortController()
  await copy.whenSynced(stop.signal)
  const asked: string[] = []
  let silent = '10.0.0.28'
  const health = new NodeHealth({
    nodes: copy,
    nodeName: 'n0',
    clock: new FakeClock(),
    log: silentLog,
    dial: async (address) => {
      asked.push(address)
      return address === silent ? 'silent' : 'answered'
    },
  })
  await health.round(stop.signal)
  t.is(asked.length, 32)
  t.false(asked.includes('10.0.0.0'), 'not itself')
  await health.round(stop.signal)
  t.is(new Set(asked).size, 39)
  t.is(health.status().trouble, '', 'once is not enough')
  await health.round(stop.signal)
  t.like(health.status(), { asked: 39, unreachable: ['n28 (10.0.0.28)'], trouble: 'no answer from n28 (10.0.0.28)' })
  silent = ''
  for (let i = 0; i < 2; i++) await health.round(stop.signal)
  t.is(health.status().trouble, '')
  silent = '10.0.0.8'
  for (let i = 0; i < 4; i++) await health.round(stop.signal)
  await client.delete(nodes, { name: 'n8' })
  await eventually(() => copy.get('n8') === undefined)
  await health.round(stop.signal)
  t.deepEqual(health.status().unreachable, [])
  stop.abort()
})
