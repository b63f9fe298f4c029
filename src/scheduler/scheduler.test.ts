import test from 'ava'
import fc from 'fast-check'
import type { Node, Pod, PodSpec, Taint, TopologySpreadConstraint } from '#api/gen/core-v1.ts'
import { events, nodes, pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import { internalError } from '#api/meta/status.ts'
import { eventually } from '#base/async/eventually.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { mayHelp } from './hints.ts'
import { nodesEnough, type Placement, planPlacement } from './plan.ts'
import type { PlanContext } from './plugin.ts'
import { SchedulingQueue } from './queue.ts'
import { scheduler } from './scheduler.ts'
import { podInfo, Snapshot } from './snapshot.ts'

const node = (
  name: string,
  { labels = {}, taints = [], cpu = '4', pods: places = '110', ...spec }: NodeShape = {},
): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name,
    uid: name,
    resourceVersion: '1',
    creationTimestamp: '',
    labels: { 'kubernetes.io/hostname': name, ...labels },
  },
  spec: { ...(taints.length === 0 ? {} : { taints }), ...spec },
  status: { allocatable: { cpu, memory: '8Gi', pods: places } } as unknown as Node['status'],
})

interface NodeShape {
  labels?: Record<string, string>
  taints?: Taint[]
  cpu?: string
  pods?: string
  unschedulable?: boolean
}

const container = (cpu?: string, hostPort?: number) => ({
  name: 'main',
  resources: cpu === undefined ? {} : { requests: { cpu } },
  ...(hostPort === undefined ? {} : { ports: [{ containerPort: 80, hostPort }] }),
})

const pod = (name: string, spec: Partial<PodSpec> = {}, labels: Record<string, string> = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'a', uid: name, resourceVersion: '1', creationTimestamp: '', generation: 1, labels },
  spec: { containers: [container()], ...spec },
  status: { phase: 'Pending' },
})

const on = (nodeName: string, name: string, spec: Partial<PodSpec> = {}, labels: Record<string, string> = {}): Pod =>
  pod(name, { nodeName, ...spec }, labels)

function cluster(present: readonly Node[], placed: readonly Pod[] = []): PlanContext {
  const snapshot = new Snapshot()
  for (const n of present) snapshot.setNode(n)
  for (const p of placed) snapshot.setPod(p)
  return {
    snapshot,
    defaultSelector: () => undefined,
    labelsOfNamespace: () => ({}),
    namespacesBy: () => ['a', 'b'],
  }
}

const place = (p: Pod, context: PlanContext): Placement =>
  planPlacement(podInfo(p), context, { startAt: 0, random: () => 0.99 }).placement

const placeName = (p: Pod, context: PlanContext): string => {
  const placement = place(p, context)
  return placement.do === 'bind' ? placement.nodeName : placement.message
}

test('planPlacement() says why no node will do, in words that tools parse', (t) => {
  const tainted = node('c', { taints: [{ key: 'dedicated', value: 'db', effect: 'NoSchedule' }] })
  const context = cluster([
    node('a', { cpu: '1' }),
    node('b', { cpu: '1' }),
    tainted,
    node('d', { unschedulable: true }),
  ])
  const placement = place(pod('p', { containers: [container('2')] }), context)
  t.deepEqual(placement, {
    do: 'wait',
    message:
      '0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu.',
    rejectedBy: new Set(['NodeResourcesFit', 'TaintToleration', 'NodeUnschedulable']),
  })
  t.is(placeName(pod('p'), cluster([])), 'no nodes available to schedule pods')
})

test('planPlacement() keeps to node selectors, affinity and the node a DaemonSet pod names', (t) => {
  const context = cluster([node('a', { labels: { disk: 'ssd', gen: '2' } }), node('b', { labels: { gen: '7' } })])
  t.is(placeName(pod('p', { nodeSelector: { disk: 'ssd' } }), context), 'a')
  t.is(
    placeName(pod('p', { nodeSelector: { disk: 'tape' } }), context),
    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
  )
  const required = (terms: object[]): Partial<PodSpec> => ({
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } },
  })
  t.is(
    placeName(pod('p', required([{ matchExpressions: [{ key: 'gen', operator: 'Gt', values: ['5'] }] }])), context),
    'b',
  )
  const named = (name: string) =>
    required([{ matchFields: [{ key: 'metadata.name', operator: 'In', values: [name] }] }])
  t.is(placeName(pod('p', named('b')), context), 'b')
  t.is(
    placeName(pod('p', named('gone')), context),
    "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity].",
  )
  const preferred: Partial<PodSpec> = {
    affinity: {
      nodeAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          { weight: 50, preference: { matchExpressions: [{ key: 'disk', operator: 'DoesNotExist' }] } },
        ],
      },
    },
  }
  t.is(placeName(pod('p', preferred), context), 'b')
})

test('planPlacement() counts what pods on a node take, and pods themselves', (t) => {
  const context = cluster(
    [node('a', { cpu: '2' }), node('b', { cpu: '2', pods: '1' })],
    [on('a', 'x', { containers: [container('1500m')] }), on('b', 'y')],
  )
  t.is(placeName(pod('p', { containers: [container('500m')] }), context), 'a')
  t.is(
    placeName(pod('p', { containers: [container('501m')] }), context),
    '0/2 nodes are available: 1 Insufficient cpu, 1 Too many pods.',
  )
  const init = { name: 'i', resources: { requests: { cpu: '600m' } } }
  t.regex(
    placeName(pod('p', { containers: [container('100m')], initContainers: [init] }), context),
    /1 Insufficient cpu/,
  )
  context.snapshot.removePod('x')
  t.is(placeName(pod('p', { containers: [container('2')] }), context), 'a')
})

test('planPlacement() gives a host port out once per address', (t) => {
  const context = cluster([node('a'), node('b')], [on('a', 'x', { containers: [container(undefined, 80)] })])
  t.is(placeName(pod('p', { containers: [container(undefined, 80)] }), context), 'b')
  context.snapshot.setPod(on('b', 'y', { containers: [container(undefined, 80)] }))
  t.is(
    placeName(pod('p', { containers: [container(undefined, 80)] }), context),
    "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.",
  )
})

test('planPlacement() prefers the emptier node, and one without a soft taint', (t) => {
  t.is(placeName(pod('p'), cluster([node('a'), node('b')], [on('a', 'x', { containers: [container('2')] })])), 'b')
  const soft = node('b', { taints: [{ key: 'k', effect: 'PreferNoSchedule' }] })
  t.is(placeName(pod('p'), cluster([node('a'), soft])), 'a')
})

const spread = (extra: Partial<TopologySpreadConstraint> = {}): Partial<PodSpec> => ({
  topologySpreadConstraints: [
    {
      maxSkew: 1,
      topologyKey: 'zone',
      whenUnsatisfiable: 'DoNotSchedule',
      labelSelector: { matchLabels: { app: 'web' } },
      ...extra,
    },
  ],
})
const web = { app: 'web' }

test('planPlacement() keeps the difference between domains small', (t) => {
  const present = [
    node('a', { labels: { zone: '1' } }),
    node('b', { labels: { zone: '2' }, unschedulable: true }),
    node('c'),
  ]
  const context = cluster(present, [on('a', 'x', {}, web)])
  t.is(
    placeName(pod('p', spread(), web), context),
    "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable.",
  )
  t.is(placeName(pod('p', spread({ maxSkew: 2 }), web), context), 'a')
  t.is(placeName(pod('p', spread(), { app: 'other' }), context), 'a', 'a pod that is not counted adds nothing')
  const soft = spread({ whenUnsatisfiable: 'ScheduleAnyway' })
  const open = cluster([present[0] as Node, node('b', { labels: { zone: '2' } })], [on('a', 'x', {}, web)])
  t.is(placeName(pod('p', soft, web), open), 'b')
})

const podAffinity = (kind: 'podAffinity' | 'podAntiAffinity', app: string): Partial<PodSpec> => ({
  affinity: {
    [kind]: {
      requiredDuringSchedulingIgnoredDuringExecution: [
        { topologyKey: 'kubernetes.io/hostname', labelSelector: { matchLabels: { app } } },
      ],
    },
  },
})

test('planPlacement() puts pods together and apart, as either of them asks', (t) => {
  const present = [node('a'), node('b')]
  const db = { app: 'db' }
  t.is(placeName(pod('p', podAffinity('podAffinity', 'db')), cluster(present, [on('b', 'x', {}, db)])), 'b')
  t.is(placeName(pod('p', podAffinity('podAntiAffinity', 'db')), cluster(present, [on('a', 'x', {}, db)])), 'b')
  const refusing = on('b', 'x', podAffinity('podAntiAffinity', 'web'))
  t.is(placeName(pod('p', {}, web), cluster(present, [refusing])), 'a')
  t.is(
    placeName(pod('p', podAffinity('podAffinity', 'db')), cluster(present)),
    "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.",
  )
  t.not(place(pod('p', podAffinity('podAffinity', 'db'), db), cluster(present)).do, 'wait', 'the first of its kind')
})

test('planPlacement() refuses what it cannot take into account', (t) => {
  const volumes = [{ name: 'v', persistentVolumeClaim: { claimName: 'data' } }]
  t.is(
    placeName(pod('p', { volumes }), cluster([node('a')])),
    '0/1 nodes are available: persistentvolumeclaim "data" not found.',
  )
})

test('nodesEnough() looks at fewer nodes the more there are', (t) =>
  t.deepEqual([2, 100, 1000, 5000, 10000].map(nodesEnough), [2, 100, 420, 500, 500]))

test('mayHelp() wakes a pod only for what can change the answer', (t) => {
  const info = podInfo(pod('p', { containers: [container('2')] }))
  const fit = new Set(['NodeResourcesFit'])
  const changed = (now: Node, old?: Node) => ({ what: 'node-changed', node: now, old }) as const
  t.true(mayHelp(info, fit, changed(node('a'))))
  t.false(mayHelp(info, fit, changed(node('a', { cpu: '1' }))))
  t.false(mayHelp(info, fit, changed(node('a', { labels: { x: 'y' } }), node('a'))))
  const gone = (name: string, context: PlanContext) =>
    ({ what: 'pod-gone', pod: on(name, 'x'), node: context.snapshot.node(name) }) as const
  t.true(mayHelp(info, fit, gone('a', cluster([node('a')]))))
  t.false(mayHelp(info, fit, gone('a', cluster([node('a', { cpu: '1' })]))), 'still too small')
  t.false(mayHelp(info, new Set(['TaintToleration']), gone('a', cluster([node('a')]))))
})

test('SchedulingQueue gives out by priority, then age, and makes failures wait', (t) => {
  const clock = new FakeClock()
  let wakes = 0
  const queue = new SchedulingQueue(clock, () => wakes++)
  queue.put(pod('low'))
  clock.advance(1)
  queue.put(pod('later'))
  queue.put(pod('high', { priority: 10 }))
  const names = [queue.pop(), queue.pop(), queue.pop()].map((w) => w?.info.pod.metadata.name)
  t.deepEqual(names, ['high', 'low', 'later'])
  queue.put(pod('again'))
  for (const [attempt, ms] of [1_000, 2_000, 4_000, 8_000, 10_000, 10_000].entries()) {
    const waiter = queue.pop()
    t.is(waiter?.attempts, attempt + 1)
    if (waiter) queue.fail(waiter)
    t.is(queue.pop(), undefined)
    clock.advance(ms - 1)
    t.is(queue.pop(), undefined)
    wakes = 0
    clock.advance(1)
    t.is(wakes, 1)
  }
  queue.close()
})

test('SchedulingQueue tries a pod that was told no as soon as it is woken and nothing else is to do', (t) => {
  const clock = new FakeClock()
  const queue = new SchedulingQueue(clock, () => {})
  queue.put(pod('p', { containers: [container('2')] }))
  const waiter = queue.pop()
  if (waiter) queue.reject(waiter, new Set(['NodeResourcesFit']))
  t.is(queue.pop(), undefined)
  queue.tell({ what: 'node-changed', node: node('a'), old: undefined })
  t.is(queue.pop(), waiter)
  if (waiter) queue.reject(waiter, new Set(['NodeResourcesFit']))
  clock.advance(360_000)
  t.is(queue.pop(), waiter, 'and after five minutes in any case')
  queue.close()
})

test('Snapshot is the same after any pod came and went', (t) => {
  const context = cluster([node('a')], [on('a', 'x', { containers: [container('1', 80)] }, web)])
  const { snapshot } = context
  const count = snapshot.count('a', 'web', selectorFrom({ matchLabels: web }))
  snapshot.assume(podInfo(pod('p', { containers: [container('1', 81)] }, web)), 'a')
  t.is(count.byNode.get('a'), 2)
  t.is(snapshot.node('a')?.requested.get('cpu'), 2000)
  snapshot.setPod(on('a', 'p', { containers: [container('1', 81)] }, web))
  t.is(count.byNode.get('a'), 2)
  snapshot.removePod('p')
  snapshot.removePod('x')
  t.is(count.byNode.size, 0)
  t.is(snapshot.node('a')?.requested.get('cpu'), 0)
  t.is(snapshot.node('a')?.ports.size, 0)
  t.is(snapshot.node('a')?.weightCpu, 0)
})

test('Snapshot after any history is the one made at once', (t) => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('node' as const), n: fc.nat(3), cpu: fc.constantFrom('1', '4') }),
    fc.record({ do: fc.constant('no-node' as const), n: fc.nat(3) }),
    fc.record({
      do: fc.constantFrom('set' as const, 'assume' as const),
      n: fc.nat(3),
      p: fc.nat(5),
      cpu: fc.constantFrom('100m', '1'),
    }),
    fc.record({ do: fc.constantFrom('remove' as const, 'forget' as const), p: fc.nat(5) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const grown = new Snapshot()
      const counted = grown.count('a', 'web', selectorFrom({ matchLabels: web }))
      const present = new Map<number, Node>()
      const placed = new Map<number, { pod: Pod; isAssumed: boolean }>()
      for (const s of steps) {
        switch (s.do) {
          case 'node': {
            const made = node(`n${s.n}`, { cpu: s.cpu })
            present.set(s.n, made)
            grown.setNode(made)
            break
          }
          case 'no-node':
            present.delete(s.n)
            grown.removeNode(`n${s.n}`)
            break
          case 'set': {
            const made = on(`n${s.n}`, `p${s.p}`, { containers: [container(s.cpu, 80 + s.p)] }, web)
            placed.set(s.p, { pod: made, isAssumed: false })
            grown.setPod(made)
            break
          }
          case 'assume': {
            // Only what has no node is ever placed.
            if (placed.has(s.p)) break
            const made = pod(`p${s.p}`, { containers: [container(s.cpu, 80 + s.p)] }, web)
            placed.set(s.p, { pod: { ...made, spec: { ...made.spec, nodeName: `n${s.n}` } }, isAssumed: true })
            grown.assume(podInfo(made), `n${s.n}`)
            break
          }
          case 'remove':
            placed.delete(s.p)
            grown.removePod(`p${s.p}`)
            break
          case 'forget':
            if (placed.get(s.p)?.isAssumed === true) placed.delete(s.p)
            grown.forget(`p${s.p}`)
            break
          default:
            s satisfies never
        }
      }
      const { snapshot: made } = cluster(
        [...present.values()],
        [...placed.values()].map((entry) => entry.pod),
      )
      const say = (snapshot: Snapshot) =>
        snapshot.nodes
          .map((n) => [
            n.name,
            n.allocatable.get('cpu'),
            n.requested.get('cpu') ?? 0,
            n.weightCpu,
            n.weightMemory,
            [...n.pods.keys()].toSorted(),
            [...n.ports.keys()].toSorted(),
          ])
          .toSorted()
      t.deepEqual(say(grown), say(made))
      const again = made.count('a', 'web', selectorFrom({ matchLabels: web }))
      t.deepEqual([...counted.byNode].toSorted(), [...again.byNode].toSorted())
    }),
    { numRuns: 300 },
  )
})

async function running(client: FakeClient, body: () => Promise<void>): Promise<void> {
  const stop = new AbortController()
  await using informers = new Informers({ client })
  const part = scheduler({ name: 'scheduler', client, informers, clock: client.clock, log: silentLog })
  const ended = part.run(stop.signal, () => {})
  try {
    await body()
  } finally {
    stop.abort()
    await ended
  }
}

const key = { namespace: 'a', name: 'p' }

test('a pod gets its node, and an event says so', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1'))
  await running(client, async () => {
    await client.create(pods, pod('p'))
    await eventually(async () => (await client.get(pods, key)).spec.nodeName === 'n1')
    const [event] = await eventually(async () => {
      const { items } = await client.list(events)
      return items.length > 0 && items
    })
    t.is(event?.reason, 'Scheduled')
    t.is(event?.message, 'Successfully assigned a/p to n1')
    t.is(event?.source.component, 'default-scheduler')
  })
})

test('a pod that fits nowhere says why, and is placed when a node comes', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1', { cpu: '1' }))
  await running(client, async () => {
    await client.create(pods, pod('p', { containers: [container('2')] }))
    const message = '0/1 nodes are available: 1 Insufficient cpu.'
    await eventually(async () => {
      const scheduled = findCondition((await client.get(pods, key)).status.conditions, 'PodScheduled')
      return scheduled?.status === 'False' && scheduled.reason === 'Unschedulable' && scheduled.message === message
    })
    const event = await eventually(async () => (await client.list(events)).items[0] ?? false)
    t.is(event.reason, 'FailedScheduling')
    t.is(event.message, message)
    await client.create(nodes, node('n2'))
    const fresh = await client.get(nodes, { name: 'n2' })
    await client.update(nodes, { ...fresh, status: node('n2').status }, { subresource: 'status' })
    await eventually(async () => (await client.get(pods, key)).spec.nodeName === 'n2')
  })
})

test('gated pods wait, and pods of other schedulers are left alone', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1'))
  await running(client, async () => {
    await client.create(pods, pod('foreign', { schedulerName: 'mine' }))
    await client.create(pods, pod('p', { schedulingGates: [{ name: 'example.com/gate' }] }))
    await eventually(async () => {
      const scheduled = findCondition((await client.get(pods, key)).status.conditions, 'PodScheduled')
      return scheduled?.reason === 'SchedulingGated'
    })
    await client.patch(pods, key, 'merge', { spec: { schedulingGates: null } })
    await eventually(async () => (await client.get(pods, key)).spec.nodeName === 'n1')
    t.is((await client.get(pods, { namespace: 'a', name: 'foreign' })).spec.nodeName, undefined)
  })
})

test('a binding that is refused frees what it held, and is tried again', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1', { pods: '1' }))
  let refusals = 0
  const allow = client.rule((call) => {
    if (call.subresource !== 'binding') return undefined
    refusals++
    return internalError('no address left')
  })
  await running(client, async () => {
    await client.create(pods, pod('p'))
    await eventually(() => refusals === 1)
    allow()
    await eventually(async () => {
      ;(client.clock as FakeClock).advance(250)
      return (await client.get(pods, key)).spec.nodeName === 'n1'
    })
    t.is(refusals, 1)
  })
})

test('without the right to bind it stops, and says which right it lacks', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1'))
  client.seed(pods, pod('p'))
  client.deny('system:kube-scheduler', 'create', pods)
  await using informers = new Informers({ client })
  const own = client.as('system:kube-scheduler')
  const part = scheduler({ name: 'scheduler', client: own, informers, clock: client.clock, log: silentLog })
  const error = await t.throwsAsync(part.run(new AbortController().signal, () => {}))
  t.regex(error?.message ?? '', /User "system:kube-scheduler" cannot create resource "pods"/)
})

test('more pods than there are places: as many as fit, by priority', async (t) => {
  const client = new FakeClient()
  client.seed(nodes, node('n1', { pods: '3' }))
  client.seed(nodes, node('n2', { pods: '3' }))
  for (let i = 0; i < 10; i++) client.seed(pods, pod(`p${i}`, { priority: i }))
  await running(client, async () => {
    const placed = await eventually(async () => {
      const names = (await client.list(pods)).items.filter((p) => p.spec.nodeName).map((p) => p.metadata.name)
      return names.length === 6 && names
    })
    t.deepEqual(placed.toSorted(), ['p4', 'p5', 'p6', 'p7', 'p8', 'p9'])
  })
})
