import test from 'ava'
import type { Node, NodeCondition, Pod, Taint, Toleration } from '#api/gen/core-v1.ts'
import { tolerates } from '#api/placement/taints.ts'
import { FakeClock } from '#base/clock.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { planEviction } from './evict-plan.ts'
import { defaultGraces, evictionRates, lostAt, planLost, planTaints, zoneState } from './plan.ts'
import { nodeLifecycleScenarios } from './scenarios.ts'
import { ZoneRates } from './zone-rates.ts'

const now = Date.parse('2026-01-01T00:10:00Z')
const created = '2026-01-01T00:00:00Z'

const node = (ready: string | undefined, taints: Taint[] = [], zone = 'z', name = 'n'): Node => {
  const conditions: NodeCondition[] = ready === undefined ? [] : [{ type: 'Ready', status: ready }]
  return {
    metadata: { name, creationTimestamp: created, labels: { 'topology.kubernetes.io/zone': zone } },
    spec: { taints },
    status: { conditions },
  } as unknown as Node
}

test('lostAt() gives a node 50 s from its last sign, and 60 s from its birth to the first', (t) => {
  t.is(lostAt(node('True'), now, defaultGraces), now + 50_000)
  t.is(lostAt(node(undefined), undefined, defaultGraces), Date.parse(created) + 60_000)
})

test('planLost() makes every reported condition unknown, and changes nothing the second time', (t) => {
  const first = planLost(node('True'), now)
  t.deepEqual(
    first?.map((c) => `${c.type} ${c.status} ${c.reason}`),
    [
      'Ready Unknown NodeStatusUnknown',
      'MemoryPressure Unknown NodeStatusNeverUpdated',
      'DiskPressure Unknown NodeStatusNeverUpdated',
      'PIDPressure Unknown NodeStatusNeverUpdated',
    ],
  )
  t.is(first?.[0]?.lastTransitionTime, '2026-01-01T00:10:00Z')
  t.is(planLost({ status: { conditions: first } } as Node, now + 1_000), undefined)
})

test('planTaints() follows readiness, keeps what others put there, and changes nothing that is right', (t) => {
  const other: Taint = { key: 'mine', effect: 'NoExecute' }
  const lost = planTaints(node('Unknown', [other]), 'evict', now)
  t.deepEqual(lost, [
    other,
    { key: 'node.kubernetes.io/unreachable', effect: 'NoSchedule' },
    { key: 'node.kubernetes.io/unreachable', effect: 'NoExecute', timeAdded: '2026-01-01T00:10:00Z' },
  ])
  t.is(planTaints(node('Unknown', lost), 'evict', now + 5_000), undefined)
  t.deepEqual(planTaints(node('True', lost), 'evict', now), [other])
})

test('planTaints() holds evictions back where told to, and takes them back when we are cut off', (t) => {
  const held = planTaints(node('Unknown'), 'hold', now)
  t.deepEqual(
    held?.map((x) => x.effect),
    ['NoSchedule'],
  )
  const given = planTaints(node('Unknown'), 'evict', now) ?? []
  t.deepEqual(planTaints(node('Unknown', given), 'hold', now), undefined)
  t.deepEqual(
    planTaints(node('Unknown', given), 'lift', now)?.map((x) => x.effect),
    ['NoSchedule'],
  )
})

test('planTaints() goes from unreachable to not ready without giving pods their time anew', (t) => {
  const given = planTaints(node('Unknown'), 'evict', now) ?? []
  const next = planTaints(node('False', given), 'hold', now + 60_000)
  t.deepEqual(
    next?.find((x) => x.effect === 'NoExecute'),
    {
      key: 'node.kubernetes.io/not-ready',
      effect: 'NoExecute',
      timeAdded: '2026-01-01T00:10:00Z',
    },
  )
})

test('a node that has never reported is not given up', (t) => {
  t.is(planTaints(node(undefined), 'evict', now), undefined)
})

test('zoneState() and evictionRates() slow down where most of a zone fails, and stop where everything does', (t) => {
  t.is(zoneState(['True', 'Unknown']), 'normal')
  t.is(zoneState(['True', 'Unknown', 'Unknown', 'Unknown']), 'partial')
  t.is(zoneState(['Unknown']), 'full')
  const a = (...ready: string[]) => ready.map((r, i) => node(r, [], 'a', `a${i}`))
  const b = (...ready: string[]) => ready.map((r, i) => node(r, [], 'b', `b${i}`))
  t.true(evictionRates([...a('Unknown', 'Unknown'), ...b('Unknown')]).cutOff)
  const one = evictionRates([...a('Unknown', 'Unknown'), ...b('True')])
  t.false(one.cutOff)
  t.is(one.byZone.get('/a'), 0.1)
  t.is(evictionRates(a('True', 'Unknown', 'Unknown', 'Unknown')).byZone.get('/a'), 0)
  const large = a(...Array.from({ length: 60 }, (_, i) => (i < 10 ? 'True' : 'Unknown')))
  t.is(evictionRates(large).byZone.get('/a'), 0.01)
})

test('ZoneRates gives up one node in ten seconds, and asks no second time for the same', (t) => {
  const clock = new FakeClock()
  const rates = new ZoneRates(clock)
  t.true(rates.allows('z', 'a', 0.1))
  t.true(rates.allows('z', 'a', 0.1))
  t.false(rates.allows('z', 'b', 0.1))
  clock.advance(9_999)
  t.false(rates.allows('z', 'b', 0.1))
  clock.advance(2)
  t.true(rates.allows('z', 'b', 0.1))
  t.true(rates.allows('y', 'c', 0.1))
})

const taint: Taint = { key: 'k', value: 'v', effect: 'NoExecute', timeAdded: created }

test('tolerates() as upstream: empty key bears all, empty effect every effect', (t) => {
  t.true(tolerates({ operator: 'Exists' }, taint))
  t.true(tolerates({ key: 'k', value: 'v' }, taint))
  t.false(tolerates({ key: 'k', value: 'x' }, taint))
  t.false(tolerates({ key: 'k', operator: 'Exists', effect: 'NoSchedule' }, taint))
  t.false(tolerates({}, taint))
})

test('planEviction() counts the shortest toleration from when the taint was added', (t) => {
  const on = (tolerations: Toleration[]) => ({ metadata: {}, spec: { tolerations } }) as Pod
  const tainted = { spec: { taints: [taint] } } as Node
  t.deepEqual(planEviction(on([]), tainted), { do: 'evict', atMs: Number.NEGATIVE_INFINITY })
  t.deepEqual(planEviction(on([{ operator: 'Exists' }]), tainted), { do: 'stay' })
  const both = [
    { key: 'k', operator: 'Exists' as const, tolerationSeconds: 300 },
    { operator: 'Exists' as const, tolerationSeconds: 60 },
  ]
  t.deepEqual(planEviction(on(both), tainted), { do: 'evict', atMs: Date.parse(created) + 60_000 })
  t.deepEqual(planEviction(on([]), { spec: {} } as Node), { do: 'stay' })
})

for (const { name, run } of nodeLifecycleScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
