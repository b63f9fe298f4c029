import test from 'ava'
import type { ReplicaSet } from '#api/gen/apps-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { pods, replicaSets } from '#api/gen/resources.ts'
import { fieldError, invalid } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { eventually } from '#base/async/eventually.ts'
import { silentLog } from '#base/log/log.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { fakeFactory, template } from '../workload/scenario.ts'
import { planNextLook, planReplicas, planStatus } from './plan.ts'
import { leastUseful } from './rank.ts'
import { replicaSetController } from './replica-set.ts'
import { replicaSetScenarios } from './scenarios.ts'

const now = Date.parse('2026-01-01T01:00:00Z')
const hour = 3_600_000

interface Shape {
  node?: string
  phase?: Pod['status']['phase']
  /** Milliseconds ago. */
  ready?: number
  born?: number
  cost?: string
  restarts?: number
  going?: boolean
}

const pod = (name: string, shape: Shape = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name,
    namespace: 'a',
    uid: name,
    resourceVersion: '1',
    creationTimestamp: formatTime(now - (shape.born ?? hour)),
    labels: { app: 'web' },
    ...(shape.cost === undefined ? {} : { annotations: { 'controller.kubernetes.io/pod-deletion-cost': shape.cost } }),
    ...(shape.going === true ? { deletionTimestamp: formatTime(now) } : {}),
  },
  spec: { containers: [], ...(shape.node === undefined ? {} : { nodeName: shape.node }) },
  status: {
    phase: shape.phase ?? 'Running',
    ...(shape.ready === undefined
      ? {}
      : { conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: formatTime(now - shape.ready) }] }),
    ...(shape.restarts === undefined
      ? {}
      : { containerStatuses: [{ restartCount: shape.restarts }] as Pod['status']['containerStatuses'] & object }),
  },
})

const good: Shape = { node: 'n1', ready: hour }

const set = (replicas: number, minReadySeconds = 0): ReplicaSet => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: { name: 'web', namespace: 'a', uid: 'u', resourceVersion: '1', generation: 3, creationTimestamp: '' },
  spec: { replicas, minReadySeconds, selector: { matchLabels: { app: 'web' } }, template: template('web') },
  status: { replicas: 0 },
})

const firstToGo = (a: Pod, b: Pod, related: Pod[] = [a, b]): string | undefined => {
  const forward = leastUseful([a, b], related, 1, now)[0]?.metadata.name
  const backward = leastUseful([b, a], related, 1, now)[0]?.metadata.name
  return forward === backward ? forward : `either ${forward} or ${backward}`
}

test('planReplicas() makes what is missing, ended and going pods not counted', (t) => {
  const owned = [pod('a'), pod('b', { phase: 'Failed' }), pod('c', { going: true })]
  t.deepEqual(planReplicas(set(3), owned, owned, now), { do: 'create-pods', count: 2 })
})

test('planReplicas() makes 500 pods at most before it looks again', (t) =>
  t.deepEqual(planReplicas(set(9000), [], [], now), { do: 'create-pods', count: 500 }))

test('planReplicas() does nothing for a set that is being deleted', (t) => {
  const going = set(3)
  t.is(planReplicas({ ...going, metadata: { ...going.metadata, deletionTimestamp: 'x' } }, [], [], now), undefined)
})

test('leastUseful() prefers, in this order', (t) => {
  t.is(firstToGo(pod('a', { ready: hour }), pod('b', { node: 'n1', phase: 'Pending' })), 'a', 'not placed')
  t.is(firstToGo(pod('a', good), pod('b', { node: 'n1', phase: 'Pending', ready: 1 })), 'b', 'pending')
  t.is(firstToGo(pod('a', { ...good, cost: '-5' }), pod('b', { node: 'n1' })), 'b', 'not ready')
  t.is(firstToGo(pod('a', { ...good, cost: '-5' }), pod('b', { ...good, node: 'n2' })), 'a', 'lower cost')
  t.is(
    firstToGo(pod('a', { ...good, cost: '07', ready: 1000 }), pod('b', { ...good, node: 'n2' })),
    'a',
    'not a number: no cost',
  )
  const other = pod('c', { ...good, node: 'n2' })
  const [a, b] = [pod('a', { ...good, ready: 1000 }), pod('b', { ...good, node: 'n2' })]
  t.is(firstToGo(a, b, [a, b, other]), 'b', 'doubled up on its node')
  t.is(firstToGo(pod('a', { ...good, ready: 1000 }), pod('b', good)), 'a', 'ready for a shorter time')
  t.is(firstToGo(pod('a', good), pod('b', { ...good, restarts: 4 })), 'b', 'restarted more often')
  t.is(firstToGo(pod('a', good), pod('b', { ...good, born: 1000 })), 'b', 'younger')
})

test('planStatus() counts, and notes why pods could not be made', (t) => {
  const owned = [pod('a', { ready: 5_000 }), pod('b', { ready: 60_000 }), pod('c'), pod('d', { going: true })]
  t.deepEqual(planStatus(set(4, 10), owned, new Error('exceeded quota'), now), {
    replicas: 3,
    fullyLabeledReplicas: 3,
    readyReplicas: 2,
    availableReplicas: 1,
    terminatingReplicas: 1,
    observedGeneration: 3,
    conditions: [
      {
        type: 'ReplicaFailure',
        status: 'True',
        lastTransitionTime: '2026-01-01T01:00:00Z',
        reason: 'FailedCreate',
        message: 'exceeded quota',
      },
    ],
  })
  t.is(planNextLook(set(4, 10), owned, now), 5_000)
})

test('a set whose pods are refused tries one at a time and says so', async (t) => {
  const client = new FakeClient()
  let refused = 0
  const allow = client.rule((call) => {
    if (call.verb !== 'create' || call.resource !== 'pods') return undefined
    refused++
    return invalid('', 'Pod', 'web-x', [fieldError.required('spec.containers')])
  })
  await using informers = new Informers({ client })
  const stop = new AbortController()
  const part = replicaSetController({
    name: 'replicaset-controller',
    client,
    informers,
    clock: client.clock,
    log: silentLog,
  })
  const ended = part.run(stop.signal, () => {})
  client.seed(replicaSets, { metadata: { name: 'web', namespace: 'a' }, spec: set(8).spec, status: { replicas: 0 } })
  const failed = await eventually(async () => {
    const { status } = await client.get(replicaSets, { namespace: 'a', name: 'web' })
    return status.conditions?.[0] ?? false
  })
  t.is(failed.reason, 'FailedCreate')
  t.is(failed.message, 'Pod "web-x" is invalid: spec.containers: Required value')
  // One of the eight at each look; a look may follow its own status.
  t.true(refused <= 3)
  allow()
  await eventually(async () => {
    ;(client.clock as unknown as { advance(ms: number): void }).advance(100)
    const { status } = await client.get(replicaSets, { namespace: 'a', name: 'web' })
    return status.replicas === 8 && (status.conditions ?? []).length === 0
  })
  t.is((await client.list(pods)).items.length, 8)
  stop.abort()
  await ended
})

for (const { name, run } of replicaSetScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
}
