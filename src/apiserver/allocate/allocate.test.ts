import test from 'ava'
import fc from 'fast-check'
import type { Pod, Service, ServiceSpec } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { networkPolicies, pods, services } from '#api/gen/resources.ts'
import { StatusError } from '#api/meta/status.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeRegistry } from '../fake-registry.ts'
import type { Registry } from '../step.ts'
import { IdentityAllocator } from './identities.ts'
import { staticBand } from './ownership.ts'
import { PodAddressesFull, PodAllocator } from './pods.ts'
import { ServiceAllocator } from './services.ts'

const user = { name: 'tester', groups: [] }

function service(name: string, spec: ServiceSpec = {}): Service {
  const metadata = { name, namespace: 'default', uid: '', resourceVersion: '', creationTimestamp: '' }
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: { type: 'ClusterIP', ports: [{ port: 80 }], selector: { app: name }, ...spec },
    status: { loadBalancer: {} },
  }
}

function allocator(registry = new FakeRegistry(), cidrs = ['10.96.0.0/16', 'fd00:10:96::/112']): ServiceAllocator {
  return new ServiceAllocator(registry, { cidrs, nodePorts: { first: 30000, last: 32767 } })
}

const messageOf = (error: unknown): string =>
  error instanceof StatusError ? error.message : `not a StatusError: ${error}`
function refusal(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return messageOf(error)
  }
  return 'not refused'
}

test('staticBand() is upstream’s: min(max(16, size/16), 256), and nothing of a tiny range', (t) => {
  t.deepEqual(
    [8, 64, 256, 4096, 65536].map((size) => staticBand(size, 16, 256)),
    [0, 16, 16, 256, 256],
  )
  t.is(staticBand(2768, 32, 128), 86)
})

test('a Service without wishes gets one IPv4 address above the static band, and single stack', (t) => {
  const next = service('a')
  allocator().reserve(next, undefined)
  t.deepEqual(
    {
      ip: next.spec.clusterIP,
      ips: next.spec.clusterIPs,
      families: next.spec.ipFamilies,
      policy: next.spec.ipFamilyPolicy,
    },
    { ip: '10.96.1.1', ips: ['10.96.1.1'], families: ['IPv4'], policy: 'SingleStack' },
  )
})

test('dual stack takes one of each; IPv6 first when asked', (t) => {
  const all = allocator()
  const both = service('a', { ipFamilyPolicy: 'PreferDualStack' })
  all.reserve(both, undefined)
  t.deepEqual(both.spec.clusterIPs, ['10.96.1.1', 'fd00:10:96::101'])
  const six = service('b', { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6'] })
  all.reserve(six, undefined)
  t.deepEqual(six.spec.clusterIPs, ['fd00:10:96::102', '10.96.1.2'])
  t.deepEqual(six.spec.ipFamilies, ['IPv6', 'IPv4'])
})

test('a named address that somebody has is refused in upstream’s words, as is one outside', (t) => {
  const all = allocator()
  t.is(
    refusal(() => all.reserve(service('a', { clusterIP: '10.96.0.1' }), undefined)),
    'Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.1"]: failed to allocate IP 10.96.0.1: provided IP is already allocated',
  )
  for (const ip of ['10.97.0.1', '10.96.0.0', '10.96.255.255']) {
    t.is(
      refusal(() => all.reserve(service('a', { clusterIP: ip }), undefined)),
      `Service "a" is invalid: spec.clusterIPs: Invalid value: ["${ip}"]: failed to allocate IP ${ip}: the provided IP (${ip}) is not in the valid range. The range of valid IPs is 10.96.0.0/16`,
    )
  }
})

test('headless and ExternalName take nothing; headless without selector is dual stack', (t) => {
  const all = allocator()
  const headless = service('a', { clusterIP: 'None' })
  all.reserve(headless, undefined)
  t.deepEqual(headless.spec.clusterIPs, ['None'])
  t.deepEqual(headless.spec.ipFamilies, ['IPv4'])
  const free = service('b', { clusterIP: 'None', selector: {} })
  all.reserve(free, undefined)
  t.is(free.spec.ipFamilyPolicy, 'RequireDualStack')
  t.deepEqual(free.spec.ipFamilies, ['IPv4', 'IPv6'])
  const external = service('c', { type: 'ExternalName', externalName: 'example.org' })
  all.reserve(external, undefined)
  t.is(external.spec.clusterIP, undefined)
})

test('what does not agree is refused: family against address, two without a policy, a family not there', (t) => {
  const all = allocator(undefined, ['10.96.0.0/16'])
  t.regex(
    refusal(() => all.reserve(service('a', { ipFamilies: ['IPv6'] }), undefined)),
    /not configured on this cluster/,
  )
  t.regex(
    refusal(() => all.reserve(service('a', { ipFamilyPolicy: 'RequireDualStack' }), undefined)),
    /not configured for dual-stack/,
  )
  const dual = allocator()
  t.regex(
    refusal(() => dual.reserve(service('a', { clusterIP: '10.96.0.9', ipFamilies: ['IPv6'] }), undefined)),
    /expected an IPv6 value as indicated by `ipFamilies\[0\]`/,
  )
  t.regex(
    refusal(() => dual.reserve(service('a', { ipFamilies: ['IPv4', 'IPv6'] }), undefined)),
    /must be "RequireDualStack" or "PreferDualStack" when multiple `ipFamilies` are specified/,
  )
})

test('a failed write gives back what it took, and never what the object has already', async (t) => {
  const registry = new FakeRegistry()
  const all = allocator(registry)
  const wanted = { clusterIP: '10.96.0.50' }
  all.reserve(service('a', wanted), undefined).release()
  const first = service('a', wanted)
  all.reserve(first, undefined)
  await registry.create(services, first)
  // A second create of the same name fails later with AlreadyExists, and settles as failed.
  all.reserve(service('a', wanted), undefined).release()
  t.regex(
    refusal(() => all.reserve(service('b', wanted), undefined)),
    /already allocated/,
  )
  await registry.delete(services, 'default', 'a')
  t.notThrows(() => all.reserve(service('b', wanted), undefined))
})

test('an update keeps what the client left out; a change of type gives the rest back', async (t) => {
  const registry = new FakeRegistry()
  const all = allocator(registry)
  const first = service('a', {
    type: 'NodePort',
    ports: [
      { port: 53, protocol: 'TCP' },
      { port: 53, protocol: 'UDP' },
    ],
  })
  all.reserve(first, undefined)
  const [tcp, udp] = first.spec.ports ?? []
  t.is(tcp?.nodePort, 30086)
  t.is(udp?.nodePort, 30086)
  const stored = await registry.create(services, first)
  const update = service('a', { type: 'NodePort', ports: [{ port: 53, protocol: 'TCP' }, { port: 80 }] })
  all.reserve(update, stored)
  t.deepEqual(
    update.spec.ports?.map((p) => p.nodePort),
    [30086, 30087],
  )
  t.is(update.spec.clusterIP, first.spec.clusterIP)
  const plain = service('a', { ports: structuredClone(first.spec.ports ?? []) })
  all.reserve(plain, stored)
  t.deepEqual(
    plain.spec.ports?.map((p) => p.nodePort),
    [undefined, undefined],
  )
  await registry.change(services, 'default', 'a', user, () => plain)
  t.notThrows(() => all.reserve(service('b', { type: 'NodePort', ports: [{ port: 1, nodePort: 30086 }] }), undefined))
})

test('a change of type leaves behind what only the old one had, unless the client says otherwise', (t) => {
  const all = allocator()
  const old = service('a', {
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    allocateLoadBalancerNodePorts: true,
    loadBalancerClass: 'x/y',
  })
  all.reserve(old, undefined)
  t.truthy(old.spec.healthCheckNodePort)
  const next = { ...service('a'), spec: { ...structuredClone(old.spec), type: 'ClusterIP' as const } }
  all.reserve(next, old)
  const { externalTrafficPolicy, allocateLoadBalancerNodePorts, loadBalancerClass, healthCheckNodePort } = next.spec
  t.deepEqual(
    [externalTrafficPolicy, allocateLoadBalancerNodePorts, loadBalancerClass, healthCheckNodePort],
    [undefined, undefined, undefined, undefined],
  )
  const said = {
    ...next,
    spec: { ...structuredClone(old.spec), type: 'ClusterIP' as const, loadBalancerClass: 'mine' },
  }
  all.reserve(said, old)
  t.is(said.spec.loadBalancerClass, 'mine', 'validation will refuse it')
  const named = { ...service('a'), spec: { ...structuredClone(old.spec), type: 'ExternalName' as const } }
  all.reserve(named, old)
  t.deepEqual([named.spec.clusterIP, named.spec.clusterIPs, named.spec.ipFamilies], [undefined, undefined, undefined])
})

test('node ports out of range or taken are refused in upstream’s words', (t) => {
  const all = allocator()
  const at = (name: string, nodePort: number) => service(name, { type: 'NodePort', ports: [{ port: 80, nodePort }] })
  t.is(
    refusal(() => all.reserve(at('a', 80), undefined)),
    'Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767',
  )
  all.reserve(at('a', 30001), undefined)
  t.is(
    refusal(() => all.reserve(at('b', 30001), undefined)),
    'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated',
  )
})

test('a full range says so, after the static band is used up too', (t) => {
  const all = allocator(undefined, ['10.96.0.0/29'])
  for (const name of ['a', 'b', 'c', 'd', 'e']) all.reserve(service(name), undefined)
  t.is(
    refusal(() => all.reserve(service('f'), undefined)),
    'Internal error occurred: failed to allocate a serviceIP: range is full',
  )
})

test('what the registry holds at start is taken', (t) => {
  const registry = new FakeRegistry().put(services, service('a', { clusterIP: '10.96.7.7', clusterIPs: ['10.96.7.7'] }))
  t.regex(
    refusal(() => allocator(registry).reserve(service('b', { clusterIP: '10.96.7.7' }), undefined)),
    /already allocated/,
  )
})

function pod(name: string, ips?: string): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'default',
      uid: `uid-${name}`,
      resourceVersion: '',
      creationTimestamp: '',
      ...(ips === undefined ? {} : { annotations: { 'weft.dev/pod-ips': ips } }),
    },
    spec: { containers: [] },
    status: {},
  }
}
const cidrs = ['10.244.1.0/24', 'fd00:10:244:1::/64']

test('PodAllocator gives one address of each network, next-fit, without network, gateway and broadcast', async (t) => {
  const registry = new FakeRegistry()
  const all = new PodAllocator(registry)
  t.deepEqual(all.reserve(pod('a'), cidrs).addresses, ['10.244.1.2', 'fd00:10:244:1::2'])
  all.reserve(pod('b'), cidrs).release()
  t.deepEqual(
    all.reserve(pod('c'), cidrs).addresses,
    ['10.244.1.4', 'fd00:10:244:1::4'],
    'what came back comes round last',
  )
  const small = ['10.244.9.0/29']
  const got = Array.from({ length: 5 }, (_, i) => all.reserve(pod(`s${i}`), small).addresses[0])
  t.deepEqual(got, ['10.244.9.2', '10.244.9.3', '10.244.9.4', '10.244.9.5', '10.244.9.6'])
  t.throws(() => all.reserve(pod('s5'), small), { instanceOf: PodAddressesFull })
  t.throws(() => all.reserve(pod('s5'), ['10.244.8.0/24', ...small]), { instanceOf: PodAddressesFull })
  t.deepEqual(all.reserve(pod('d'), ['10.244.8.0/24']).addresses, ['10.244.8.3'])
})

test('PodAllocator frees the addresses of pods that are gone or have ended, and knows those at start', async (t) => {
  const registry = new FakeRegistry().put(pods, pod('old', '10.244.2.2'))
  const all = new PodAllocator(registry)
  const tiny = ['10.244.2.0/30']
  t.throws(() => all.reserve(pod('x'), tiny), { instanceOf: PodAddressesFull })
  await registry.change(pods, 'default', 'old', user, (p) => ({ ...p, status: { phase: 'Succeeded' as const } }))
  t.deepEqual(all.reserve(pod('x'), tiny).addresses, ['10.244.2.2'])
  registry.put(pods, pod('x', '10.244.2.2'))
  await registry.delete(pods, 'default', 'old')
  t.throws(
    () => all.reserve(pod('y'), tiny),
    { instanceOf: PodAddressesFull },
    'a late release takes nothing from the next owner',
  )
  await registry.delete(pods, 'default', 'x')
  t.notThrows(() => all.reserve(pod('y'), tiny))
})

test('whatever comes and goes, and in whatever order, no two live pods have one address', async (t) => {
  const step = fc.record({ do: fc.constantFrom('bind', 'fail', 'end', 'delete'), pod: fc.integer({ min: 0, max: 7 }) })
  await t.notThrowsAsync(() =>
    fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const registry = new FakeRegistry()
        const all = new PodAllocator(registry)
        for (const { do: what, pod: n } of steps) {
          const name = `p${n}`
          const present = registry.get(pods, 'default', name)
          if (what === 'delete' && present) await registry.delete(pods, 'default', name)
          if (what === 'end' && present) {
            await registry.change(pods, 'default', name, user, (p) => ({ ...p, status: { phase: 'Failed' as const } }))
          }
          if (present || (what !== 'bind' && what !== 'fail')) continue
          try {
            const reserved = all.reserve(pod(name), ['10.244.5.0/29'])
            if (what === 'bind') registry.put(pods, pod(name, reserved.addresses.join(',')))
            else reserved.release()
          } catch (error) {
            if (!(error instanceof PodAddressesFull)) throw error
          }
          const live = [...registry.list(pods)].filter((p) => p.status.phase !== 'Failed')
          const taken = live.map((p) => p.metadata.annotations?.['weft.dev/pod-ips'])
          if (new Set(taken).size !== taken.length) return false
        }
        return true
      }),
      { numRuns: 300 },
    ),
  )
})

const meta = (name: string) => ({
  name,
  namespace: 'default',
  uid: `uid-${name}`,
  resourceVersion: '',
  creationTimestamp: '',
})

const selecting = (name: string, ...keys: readonly string[]): NetworkPolicy =>
  ({
    metadata: meta(name),
    spec: {
      podSelector: {},
      ingress: [{ from: keys.map((key) => ({ podSelector: { matchLabels: { [key]: 'x' } } })) }],
    },
  }) as unknown as NetworkPolicy

const identityPod = (name: string, labels: Record<string, string>, number?: number): Pod =>
  ({
    metadata: {
      ...meta(name),
      labels,
      annotations: {
        'weft.dev/pod-ips': '10.244.1.2',
        ...(number === undefined ? {} : { 'weft.dev/identity': String(number) }),
      },
    },
    spec: { nodeName: 'n', containers: [] },
    status: {},
  }) as unknown as Pod

const numbers = (registry: Registry): Record<string, string | undefined> =>
  Object.fromEntries(
    [...registry.list(pods)].map((p) => [p.metadata.name, p.metadata.annotations?.['weft.dev/identity']]),
  )

test('IdentityAllocator numbers pods by the labels that policies look at, and splits a number when a policy looks at more', async (t) => {
  const registry = new FakeRegistry()
  const options = { revision: 44, clock: new FakeClock(), log: silentLog }
  const all = new IdentityAllocator(registry, options)
  const add = (name: string, labels: Record<string, string>): void => {
    const made = identityPod(name, labels)
    all.annotate(made)
    registry.put(pods, made)
  }
  add('a', { app: 'x', tier: '1' })
  add('b', { app: 'y', tier: '1' })
  t.deepEqual(numbers(registry), { a: '300', b: '300' }, 'nobody looks at labels')
  registry.put(networkPolicies, selecting('p', 'app'))
  await all.settled()
  t.deepEqual(numbers(registry), { a: '300', b: '301' })
  add('c', { app: 'x', tier: '2' })
  t.is(numbers(registry).c, '300')
  registry.put(networkPolicies, selecting('q', 'tier'))
  await all.settled()
  t.deepEqual(numbers(registry), { a: '300', b: '301', c: '302' })

  // A restart finds them again, and gives new ones from beyond where it could have been.
  const again = new IdentityAllocator(registry, { ...options, revision: 100 })
  await again.settled()
  t.deepEqual(numbers(registry), { a: '300', b: '301', c: '302' })
  const fresh = identityPod('d', { app: 'z' })
  again.annotate(fresh)
  t.is(fresh.metadata.annotations?.['weft.dev/identity'], '356')
  const same = identityPod('e', { app: 'x', tier: '2', other: 'x' })
  again.annotate(same)
  t.is(same.metadata.annotations?.['weft.dev/identity'], '302')
})

test('IdentityAllocator: a label that changed unnoticed is noticed', async (t) => {
  const registry = new FakeRegistry()
  registry.put(networkPolicies, selecting('p', 'app'))
  registry.put(pods, identityPod('a', { app: 'x' }, 300), identityPod('b', { app: 'x' }, 300))
  const all = new IdentityAllocator(registry, { revision: 44, clock: new FakeClock(), log: silentLog })
  registry.put(pods, identityPod('b', { app: 'y' }, 300))
  await all.settled()
  t.deepEqual(numbers(registry), { a: '300', b: '301' })
})

test('IdentityAllocator: what a crash left half renumbered is finished by the next start', async (t) => {
  const registry = new FakeRegistry()
  registry.put(networkPolicies, selecting('p', 'app'))
  registry.put(pods, identityPod('a', { app: 'x' }, 300), identityPod('b', { app: 'y' }, 300))
  const all = new IdentityAllocator(registry, { revision: 44, clock: new FakeClock(), log: silentLog })
  await all.settled()
  const { a, b } = numbers(registry)
  t.is(a, '300')
  t.not(b, '300')
  await all.close()
})

test('IdentityAllocator writes down the ports that have names, and no number for a pod of the host’s network', (t) => {
  const all = new IdentityAllocator(new FakeRegistry(), { revision: 0, clock: new FakeClock(), log: silentLog })
  const made = identityPod('a', {})
  made.spec.containers = [
    { name: 'c', resources: {}, ports: [{ name: 'http', containerPort: 80 }, { containerPort: 81 }] },
    { name: 'd', resources: {}, ports: [{ name: 'dns', containerPort: 53, protocol: 'UDP' }] },
  ]
  all.annotate(made)
  t.is(made.metadata.annotations?.['weft.dev/named-ports'], 'http:80/TCP,dns:53/UDP')
  const host = identityPod('h', {})
  host.metadata.annotations = {}
  all.annotate(host)
  t.deepEqual(host.metadata.annotations, {})
})
