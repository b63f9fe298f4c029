import test from 'ava'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { fakeFactory } from '../workload/scenario.ts'
import { type Facts, outOfServiceTaint, planPodGc, unknownNodes } from './plan.ts'
import { podGcScenarios } from './scenarios.ts'

const pod = (name: string, phase: string, extra: { node?: string; deleted?: boolean; created?: string } = {}): Pod =>
  ({
    metadata: {
      name,
      creationTimestamp: extra.created ?? '2026-01-01T00:00:00Z',
      ...(extra.deleted ? { deletionTimestamp: '2026-01-02T00:00:00Z' } : {}),
    },
    spec: extra.node === undefined ? {} : { nodeName: extra.node },
    status: { phase },
  }) as Pod
const facts = (pods: Pod[], more: Partial<Facts> = {}): Facts => ({
  pods,
  node: () => undefined,
  missingNodes: new Set(),
  terminatedMax: 100,
  ...more,
})
const words = (all: Facts) => planPodGc(all).map((a) => `${a.pod.metadata.name} ${a.reason}`)

test('planPodGc() deletes the oldest of the ended pods that are too many, and none that run', (t) => {
  const pods = [
    pod('young', 'Failed', { created: '2026-01-03T00:00:00Z' }),
    pod('old', 'Succeeded', { created: '2026-01-01T00:00:00Z' }),
    pod('middle', 'Failed', { created: '2026-01-02T00:00:00Z' }),
    pod('running', 'Running', { created: '2025-01-01T00:00:00Z' }),
  ]
  t.deepEqual(words(facts(pods, { terminatedMax: 1 })), ['old terminated', 'middle terminated'])
  t.deepEqual(words(facts(pods, { terminatedMax: 0 })), [])
})

test('planPodGc() deletes pods of nodes that are gone, and pods that were deleted before they had one', (t) => {
  const pods = [
    pod('orphan', 'Running', { node: 'gone' }),
    pod('at-home', 'Running', { node: 'here' }),
    pod('nowhere', 'Pending', { deleted: true }),
    pod('leaving', 'Running', { node: 'here', deleted: true }),
  ]
  const missingNodes = new Set(['gone'])
  t.deepEqual(words(facts(pods, { missingNodes })), ['orphan orphaned', 'nowhere unscheduled'])
})

test('planPodGc() frees pods that are leaving a node out of service, unless it works after all', (t) => {
  const node = (ready: string) =>
    ({
      spec: { taints: [{ key: outOfServiceTaint, effect: 'NoExecute' }] },
      status: { conditions: [{ type: 'Ready', status: ready }] },
    }) as Node
  const pods = [pod('leaving', 'Running', { node: 'n', deleted: true }), pod('staying', 'Running', { node: 'n' })]
  t.deepEqual(words(facts(pods, { node: () => node('Unknown') })), ['leaving out-of-service'])
  t.deepEqual(words(facts(pods, { node: () => node('True') })), [])
})

test('unknownNodes() names each node once', (t) => {
  const pods = [pod('a', 'Running', { node: 'x' }), pod('b', 'Running', { node: 'x' }), pod('c', 'Pending')]
  t.deepEqual([...unknownNodes(pods, () => undefined)], ['x'])
})

for (const { name, run } of podGcScenarios)
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
