import { strict as assert } from 'node:assert'
import test from 'ava'
import fc from 'fast-check'
import type { DaemonSet } from '#api/gen/apps-v1.ts'
import type { Node, Pod, Taint } from '#api/gen/core-v1.ts'
import { fakeFactory, template } from '../workload/scenario.ts'
import { Failures } from './failures.ts'
import { planHistory, surplusRevisions } from './history.ts'
import { eligibilityFor, targetOf, templateFor } from './nodes.ts'
import { limitsOf, planPods, planStatus, type View } from './plan.ts'
import { daemonSetScenarios } from './scenarios.ts'

const now = Date.parse('2026-01-01T01:00:00Z')

const daemon = (extra: Partial<DaemonSet['spec']> = {}): DaemonSet => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'agent', namespace: 'a', uid: 'd', resourceVersion: '1', generation: 1, creationTimestamp: '' },
  spec: {
    selector: { matchLabels: { app: 'agent' } },
    template: template('agent'),
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
    ...extra,
  },
  status: { currentNumberScheduled: 0, numberMisscheduled: 0, desiredNumberScheduled: 0, numberReady: 0 },
})

const node = (name: string, taints: Taint[] = []): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, uid: name, resourceVersion: '1', creationTimestamp: '' },
  spec: taints.length === 0 ? {} : { taints },
  status: {} as Node['status'],
})

const pod = (
  name: string,
  nodeName: string,
  hash: string,
  status: 'ready' | 'unready' | Pod['status']['phase'],
): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name,
    namespace: 'a',
    uid: name,
    resourceVersion: '1',
    creationTimestamp: '2026-01-01T00:00:00Z',
    labels: { app: 'agent', 'controller-revision-hash': hash },
  },
  spec: { nodeName, containers: [] },
  status: {
    phase: status === 'ready' || status === 'unready' ? 'Running' : (status ?? 'Pending'),
    ...(status === 'ready'
      ? { conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' }] }
      : {}),
  },
})

const view = (extra: Partial<View>): View => ({
  set: daemon(),
  nodes: ['n1', 'n2', 'n3'].map((name) => node(name)),
  pods: [],
  hash: 'new',
  hashes: new Set(['new']),
  now,
  holdFailed: () => 0,
  ...extra,
})

const steps = (v: View): string[] => {
  const { create, remove } = planPods(v)
  return [...create.map((n) => `create on ${n}`), ...remove.map((d) => `delete ${d.pod.metadata.name}`)]
}

test('eligibilityFor() tolerates what daemons must, and keeps off what they do not', (t) => {
  const judge = eligibilityFor(daemon())
  const both = { shouldRun: true, mayStay: true }
  t.deepEqual(judge(node('a', [{ key: 'node.kubernetes.io/not-ready', effect: 'NoExecute' }])), both)
  t.deepEqual(judge(node('a', [{ key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' }])), both)
  t.deepEqual(judge(node('a', [{ key: 'k', effect: 'NoSchedule' }])), { shouldRun: false, mayStay: true })
  t.deepEqual(judge(node('a', [{ key: 'k', effect: 'NoExecute' }])), { shouldRun: false, mayStay: false })
})

test('templateFor() ties the pod to its node, whatever the affinity asked for', (t) => {
  const base = template('agent')
  const terms = [{ matchExpressions: [{ key: 'disk', operator: 'Exists' as const }] }, {}]
  const affinity = { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } }
  const made = templateFor(daemon({ template: { ...base, spec: { ...base.spec, affinity } } }), 'h', 'n7')
  const isNode = { key: 'metadata.name', operator: 'In', values: ['n7'] }
  t.deepEqual(
    made.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms as unknown,
    [{ matchExpressions: [{ key: 'disk', operator: 'Exists' }], matchFields: [isNode] }, { matchFields: [isNode] }],
  )
  t.is(targetOf({ ...pod('p', '', 'h', 'Pending'), spec: made.spec }), 'n7')
})

test('planPods() makes what is missing and removes what is too much', (t) => {
  const pods = [pod('a', 'n1', 'new', 'ready'), pod('b', 'n1', 'new', 'ready'), pod('c', 'n2', 'new', 'Failed')]
  t.deepEqual(steps(view({ pods })), ['create on n3', 'delete b', 'delete c'])
  t.deepEqual(planPods(view({ pods: [pod('c', 'n1', 'new', 'Failed')], nodes: [node('n1')], holdFailed: () => 700 })), {
    create: [],
    remove: [],
    againIn: 700,
  })
})

test('planPods() rolls out within maxUnavailable, what does not serve first', (t) => {
  const old = ['n1', 'n2', 'n3'].map((n) => pod(n, n, 'old', 'ready'))
  t.deepEqual(steps(view({ pods: old })), ['delete n1'])
  const [, second, third] = old as [Pod, Pod, Pod]
  t.deepEqual(steps(view({ pods: [pod('x', 'n1', 'new', 'unready'), second, third] })), [])
  t.deepEqual(steps(view({ pods: [pod('x', 'n1', 'new', 'ready'), second, third] })), ['delete n2'])
  t.deepEqual(steps(view({ pods: [pod('x', 'n1', 'new', 'ready'), second, pod('y', 'n3', 'old', 'unready')] })), [
    'delete y',
  ])
})

test('planPods() surges: the new pod comes first, then the old one goes', (t) => {
  const set = daemon({ updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } } })
  const old = ['n1', 'n2', 'n3'].map((n) => pod(n, n, 'old', 'ready'))
  t.deepEqual(steps(view({ set, pods: old })), ['create on n1'])
  t.deepEqual(steps(view({ set, pods: [...old, pod('x', 'n1', 'new', 'unready')] })), [])
  t.deepEqual(steps(view({ set, pods: [...old, pod('x', 'n1', 'new', 'ready')] })), ['delete n1'])
})

test('limitsOf() rounds up', (t) => {
  const set = daemon({ updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '10%' } } })
  t.deepEqual(limitsOf(set, 11), { surge: 0, unavailable: 2 })
})

test('planStatus() counts nodes, not pods', (t) => {
  const nodes = [node('n1'), node('n2'), node('n3', [{ key: 'k', effect: 'NoSchedule' }])]
  const pods = [pod('a', 'n1', 'new', 'ready'), pod('b', 'n2', 'old', 'unready'), pod('c', 'n3', 'old', 'ready')]
  t.like(planStatus(view({ nodes, pods })), {
    desiredNumberScheduled: 2,
    currentNumberScheduled: 2,
    numberMisscheduled: 1,
    numberReady: 1,
    numberAvailable: 1,
    numberUnavailable: 1,
    updatedNumberScheduled: 1,
  })
})

test('planHistory() numbers templates, and gives the newest number to one that comes back', (t) => {
  const write = planHistory(daemon(), []).write
  t.is(write?.do, 'create')
  const first = { ...write?.revision, revision: 1 } as unknown as Parameters<typeof planHistory>[1][number]
  t.is(planHistory(daemon(), [first]).write, undefined)
  const next = daemon({ template: template('agent', '2') })
  const second = { ...planHistory(next, [first]).write?.revision } as unknown as typeof first
  t.is(second.revision, 2)
  const back = planHistory(daemon(), [first, second])
  t.is(back.write?.do, 'update')
  t.is(back.write?.revision.revision, 3)
  const limited = daemon({ revisionHistoryLimit: 0 })
  t.deepEqual(surplusRevisions(limited, [second], []), [second])
  const hash = second.metadata.labels?.['controller-revision-hash'] ?? ''
  t.deepEqual(surplusRevisions(limited, [second], [pod('a', 'n1', hash, 'ready')]), [], 'its pods still run')
})

test('Failures doubles the pause', (t) => {
  const failures = new Failures()
  t.is(failures.hold('a', 0), 0)
  failures.replaced('a', 0)
  t.is(failures.hold('a', 200), 800)
  failures.replaced('a', 1_000)
  t.is(failures.hold('a', 1_000), 2_000)
})

test('a rollout keeps its bounds whatever happens on the way, and ends with one new pod on every node', (t) => {
  const limits = fc.oneof(
    fc.record({ maxUnavailable: fc.constantFrom(1, 2, '30%'), maxSurge: fc.constant(0) }),
    fc.record({ maxUnavailable: fc.constant(0), maxSurge: fc.constantFrom(1, 2, '50%') }),
  )
  const event = fc.oneof(
    fc.record({ do: fc.constant('settle' as const), share: fc.constantFrom(0.4, 1) }),
    fc.record({ do: fc.constant('template' as const), hash: fc.constantFrom('1', '2', '3') }),
    fc.record({ do: fc.constant('fail' as const), at: fc.nat(5) }),
    fc.record({ do: fc.constant('unready' as const), at: fc.nat(5) }),
    fc.record({ do: fc.constant('taint' as const), at: fc.nat(5), isTainted: fc.boolean() }),
  )
  const rollout = () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 6 }),
        limits,
        fc.array(event, { maxLength: 25 }),
        (count, rollingUpdate, events) => {
          const set = daemon({ updateStrategy: { type: 'RollingUpdate', rollingUpdate } })
          let nodes = Array.from({ length: count }, (_, i) => node(`n${i}`))
          let pods: Pod[] = []
          let hash = '1'
          let serial = 0
          const at = (nodeName: string) => pods.filter((p) => p.spec.nodeName === nodeName)
          const isUp = (p: Pod) => p.status.conditions?.[0]?.status === 'True' && p.status.phase === 'Running'
          const isWanted = (n: Node) => (n.spec.taints ?? []).length === 0
          const missing = () => nodes.filter((n) => isWanted(n) && !at(n.metadata.name).some(isUp)).length
          const look = (): boolean => {
            const before = missing()
            const plan = planPods(view({ set, nodes, pods, hash, hashes: new Set([hash]) }))
            pods = pods.filter((p) => !plan.remove.some((d) => d.pod === p))
            for (const nodeName of plan.create) pods.push(pod(`p${serial++}`, nodeName, hash, 'Pending'))
            const { unavailable, surge } = limitsOf(set, nodes.filter(isWanted).length)
            const allowed = Math.max(before, surge > 0 ? 0 : unavailable)
            assert.ok(missing() <= allowed, `${missing()} of ${allowed} missing`)
            // As the plan of one node sees it: also where no node is wanted, a surge may have put two.
            const perNode = limitsOf(set, 1).surge > 0 ? 2 : 1
            for (const n of nodes) assert.ok(at(n.metadata.name).length <= perNode)
            return plan.create.length + plan.remove.length > 0
          }
          const settle = (share: number): void => {
            const waiting = pods.filter(
              (p) => p.status.phase === 'Pending' || (p.status.phase === 'Running' && !isUp(p)),
            )
            for (const one of waiting.slice(0, Math.ceil(waiting.length * share)))
              pods[pods.indexOf(one)] = { ...one, status: pod('x', 'x', 'x', 'ready').status }
          }
          for (const one of events) {
            if (one.do === 'settle') settle(one.share)
            else if (one.do === 'template') hash = one.hash
            else if (one.do === 'taint')
              nodes = nodes.map((n, i) =>
                i === one.at ? node(n.metadata.name, one.isTainted ? [{ key: 'k', effect: 'NoSchedule' }] : []) : n,
              )
            else {
              const status = pod('x', 'x', 'x', one.do === 'fail' ? 'Failed' : 'unready').status
              pods = pods.map((p, i) => (i === one.at ? { ...p, status } : p))
            }
            look()
          }
          let looks = 0
          for (let quiet = 0; quiet < 2 && looks < 80; looks++) {
            settle(1)
            quiet = look() ? 0 : quiet + 1
          }
          assert.ok(looks < 80, 'it comes to an end')
          for (const n of nodes.filter(isWanted)) {
            const labels = at(n.metadata.name).map((p) => p.metadata.labels?.['controller-revision-hash'])
            assert.deepEqual(labels, [hash])
          }
        },
      ),
      { numRuns: 300 },
    )
  t.notThrows(rollout)
})

for (const { name, run } of daemonSetScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
}
