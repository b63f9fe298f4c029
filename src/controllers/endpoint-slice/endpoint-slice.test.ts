import test from 'ava'
import fc from 'fast-check'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { planEndpoints } from '../endpoints/plan.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planSlices, type View } from './plan.ts'
import { endpointScenarios } from './scenarios.ts'
import { TriggerTimes } from './service-pods.ts'

const service = (extra: Partial<Service['spec']> = {}): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: {
    name: 'web',
    namespace: 'a',
    uid: 'svc',
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
  },
  spec: {
    selector: { app: 'web' },
    ports: [{ name: 'http', port: 80, targetPort: 'web', protocol: 'TCP' }],
    clusterIP: '10.96.0.9',
    ipFamilies: ['IPv4'],
    ...extra,
  },
  status: { loadBalancer: {} },
})

const pod = (n: number, { ready = true, port = 8080, ips = [`10.0.${n >> 8}.${n & 255}`] } = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: `p${n}`,
    namespace: 'a',
    uid: `u${n}`,
    resourceVersion: '1',
    creationTimestamp: '',
    labels: { app: 'web' },
  },
  spec: { nodeName: 'n1', containers: [{ name: 'c', resources: {}, ports: [{ name: 'web', containerPort: port }] }] },
  status: {
    phase: 'Running',
    podIP: ips[0] ?? '',
    podIPs: ips.map((ip) => ({ ip })),
    conditions: [{ type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: '2026-01-01T00:00:10Z' }],
  },
})

const pods = (from: number, to: number): Pod[] => Array.from({ length: to - from }, (_, i) => pod(from + i))

let serial = 0
const run = (view: Partial<View>): { slices: EndpointSlice[]; did: string[] } => {
  const full: View = {
    service: service(),
    pods: [],
    slices: [],
    nodeZone: () => ({ zone: undefined }),
    triggerTime: undefined,
    ...view,
  }
  const slices = new Map(full.slices.map((s) => [s.metadata.name, s]))
  const did: string[] = []
  for (const action of planSlices(full)) {
    if (action.do === 'create') {
      const name = `${action.slice.metadata.generateName}${serial++}`
      slices.set(name, { ...action.slice, metadata: { ...action.slice.metadata, name } } as unknown as EndpointSlice)
    } else if (action.do === 'delete') slices.delete(action.slice.metadata.name)
    else slices.set(action.slice.metadata.name, action.slice)
    did.push(action.do)
  }
  return { slices: [...slices.values()], did }
}

const sizes = (slices: readonly EndpointSlice[]): number[] =>
  slices.map((s) => s.endpoints?.length ?? 0).toSorted((a, b) => b - a)

test('planSlices() packs 100 endpoints into a slice and writes as little as can be', (t) => {
  const first = run({ pods: pods(0, 250) })
  t.deepEqual(sizes(first.slices), [100, 100, 50])
  t.deepEqual(run({ pods: pods(0, 250), slices: first.slices }).did, [])
  const grown = run({ pods: pods(0, 251), slices: first.slices })
  t.deepEqual([grown.did, sizes(grown.slices)], [['update'], [100, 100, 51]])
  const [, ...rest] = pods(0, 251)
  const shrunk = run({ pods: rest, slices: grown.slices })
  t.deepEqual([shrunk.did, sizes(shrunk.slices)], [['update'], [100, 99, 51]])
  const one = run({ pods: [...rest.slice(1), pod(900)], slices: shrunk.slices })
  t.deepEqual([one.did, sizes(one.slices)], [['update'], [100, 99, 51]], 'the new one takes the place of the old')
})

test('planSlices() ends with exactly the endpoints there are, however they came about', (t) => {
  const someone = fc.record({ n: fc.nat(300), ready: fc.boolean(), port: fc.constantFrom(8080, 9090) })
  const rounds = fc.array(fc.uniqueArray(someone, { selector: ({ n }) => n, maxLength: 260 }), {
    minLength: 1,
    maxLength: 5,
  })
  fc.assert(
    fc.property(rounds, (given) => {
      let slices: EndpointSlice[] = []
      for (const round of given) {
        const wanted = round.map(({ n, ready, port }) => pod(n, { ready, port }))
        slices = run({ pods: wanted, slices }).slices
        const found = slices.flatMap((s) =>
          (s.endpoints ?? []).map((e) => `${e.targetRef?.name}:${s.ports?.[0]?.port}:${e.conditions.ready}`),
        )
        t.deepEqual(found.toSorted(), round.map(({ n, ready, port }) => `p${n}:${port}:${ready}`).toSorted())
        t.true(slices.length >= 1 && slices.every((s) => (s.endpoints?.length ?? 0) <= 100))
        t.deepEqual(run({ pods: wanted, slices }).did, [], 'a second look has nothing to do')
      }
    }),
    { numRuns: 60 },
  )
})

test('planSlices() keeps a placeholder and makes it the first real slice', (t) => {
  const empty = run({})
  t.deepEqual([empty.did, sizes(empty.slices)], [['create'], [0]])
  t.deepEqual(run({ slices: empty.slices }).did, [])
  const real = run({ pods: [pod(1)], slices: empty.slices })
  t.deepEqual([real.did, sizes(real.slices)], [['update'], [1]])
  const again = run({ slices: real.slices })
  t.deepEqual([again.did, sizes(again.slices)], [['update'], [0]])
})

test('planSlices() makes a slice for each number that a named port has, and each address family', (t) => {
  const two = run({ pods: [pod(1), pod(2, { port: 9090 })] })
  t.deepEqual(two.slices.map((s) => s.ports?.[0]?.port).toSorted(), [8080, 9090])
  const dual = run({
    service: service({ ipFamilies: ['IPv4', 'IPv6'] }),
    pods: [pod(1, { ips: ['10.0.0.1', 'fd00::1'] })],
  })
  t.deepEqual(
    dual.slices.map((s) => [s.addressType, s.endpoints?.[0]?.addresses[0]]),
    [
      ['IPv4', '10.0.0.1'],
      ['IPv6', 'fd00::1'],
    ],
  )
  t.deepEqual(run({ pods: [pod(1)], slices: dual.slices }).did, ['delete'])
})

test('S30: planSlices() says whom ready endpoints are for where the Service prefers what is near', (t) => {
  const hints = (trafficDistribution: string | undefined, zone: string | undefined, ready = true) => {
    const extra = trafficDistribution === undefined ? {} : { trafficDistribution }
    const view = { service: service(extra), pods: [pod(1, { ready })], nodeZone: () => ({ zone }) }
    const first = run(view)
    // Once written there is nothing to do.
    t.deepEqual(run({ ...view, slices: first.slices }).did, [])
    return first.slices[0]?.endpoints?.[0]?.hints
  }
  t.is(hints(undefined, 'a'), undefined)
  t.deepEqual(hints('PreferClose', 'a'), { forZones: [{ name: 'a' }] })
  t.deepEqual(hints('PreferSameZone', 'a'), { forZones: [{ name: 'a' }] })
  t.is(hints('PreferClose', undefined), undefined)
  t.is(hints('PreferClose', 'a', false), undefined)
  t.deepEqual(hints('PreferSameNode', 'a'), { forZones: [{ name: 'a' }], forNodes: [{ name: 'n1' }] })
})

test('planSlices() leaves out pods whose node is gone, unless all are wanted', (t) => {
  t.deepEqual(sizes(run({ pods: [pod(1)], nodeZone: () => undefined }).slices), [0])
  const all = run({
    service: service({ publishNotReadyAddresses: true }),
    pods: [pod(1, { ready: false })],
    nodeZone: () => undefined,
  })
  t.deepEqual(all.slices[0]?.endpoints?.[0]?.conditions, { ready: true, serving: false, terminating: false })
})

test('planSlices() marks headless Services and notes when the change happened', (t) => {
  const { slices } = run({
    service: service({ clusterIP: 'None' }),
    pods: [pod(1)],
    triggerTime: '2026-01-01T00:00:10Z',
  })
  t.like(slices[0]?.metadata, {
    labels: {
      'service.kubernetes.io/headless': '',
      'kubernetes.io/service-name': 'web',
      'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
    },
    annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-01T00:00:10Z' },
  })
})

test('TriggerTimes gives the earliest news, and none twice', (t) => {
  const times = new TriggerTimes()
  t.is(times.changed(service(), [pod(1)]), '2026-01-01T00:00:00Z')
  t.is(times.changed(service(), [pod(1)]), undefined)
  t.is(times.changed(service(), [pod(1), pod(2)]), '2026-01-01T00:00:10Z')
})

test('planEndpoints() groups addresses by ports, and writes nothing twice', (t) => {
  const view = { service: service(), pods: [pod(2), pod(1), pod(3, { ready: false })], triggerTime: undefined }
  const made = planEndpoints({ ...view, present: undefined })
  t.is(made?.do, 'create')
  t.like(made?.endpoints.subsets?.[0], {
    addresses: [{ ip: '10.0.0.1' }, { ip: '10.0.0.2' }],
    notReadyAddresses: [{ ip: '10.0.0.3' }],
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  })
  const present = made?.endpoints as unknown as NonNullable<Parameters<typeof planEndpoints>[0]['present']>
  t.is(planEndpoints({ ...view, present }), undefined)
})

test('planEndpoints() ends at 1000 addresses and says so', (t) => {
  const made = planEndpoints({ service: service(), pods: pods(0, 1200), present: undefined, triggerTime: undefined })
  t.is(made?.endpoints.metadata.annotations?.['endpoints.kubernetes.io/over-capacity'], 'truncated')
  t.is(made?.endpoints.subsets?.[0]?.addresses?.length, 1000)
  const present = made?.endpoints as unknown as NonNullable<Parameters<typeof planEndpoints>[0]['present']>
  t.is(planEndpoints({ service: service(), pods: pods(0, 1200), present, triggerTime: undefined }), undefined)
})

for (const { name, run: play } of endpointScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(play(fakeFactory()))
  })
}
