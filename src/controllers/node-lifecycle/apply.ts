import type { Node, NodeCondition, Pod, Taint } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { Client } from '#client/client.ts'
import type { EventRecorder } from '#client/events.ts'

/** Writes with the revision that was looked at: a kubelet that came back meanwhile wins, and we look again. */
export const writeConditions = (
  client: Client,
  node: Node,
  conditions: readonly NodeCondition[],
  signal: AbortSignal,
): Promise<Node> =>
  client.update(
    nodes,
    { ...node, status: { ...node.status, conditions: [...conditions] } },
    { subresource: 'status', signal },
  )

export function writeTaints(client: Client, node: Node, taints: readonly Taint[], signal: AbortSignal): Promise<Node> {
  const { resourceVersion } = node.metadata
  const spec = { taints: taints.length === 0 ? null : taints }
  return client.patch(nodes, node.metadata, 'merge', { metadata: { resourceVersion }, spec }, { signal })
}

interface Means {
  readonly client: Client
  readonly events: EventRecorder
  readonly clock: Clock
}

/** Pods of a lost node are not ready, whatever it last said of them: nothing should be sent to them. */
export async function markPodsNotReady(
  { client, events, clock }: Means,
  onNode: readonly Pod[],
  signal: AbortSignal,
): Promise<void> {
  for (const pod of onNode) {
    if (findCondition(pod.status.conditions, 'Ready')?.status !== 'True') continue
    const conditions = (pod.status.conditions ?? []).map((condition) =>
      condition.type === 'Ready'
        ? { ...condition, status: 'False', lastTransitionTime: formatTime(clock.now()) }
        : condition,
    )
    const { resourceVersion } = pod.metadata
    const patch = { metadata: { resourceVersion }, status: { conditions } }
    try {
      await client.patch(pods, pod.metadata, 'merge', patch, { subresource: 'status', signal })
      events.record(pod, { type: 'Warning', reason: 'NodeNotReady', message: 'Node is not ready' })
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
    }
  }
}
