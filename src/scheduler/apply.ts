import type { Binding, Pod, PodCondition } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Client } from '#client/client.ts'

/** Gives the pod its node. The server chooses the pod's address in the same write. */
export async function bind(client: Client, pod: Pod, nodeName: string, signal: AbortSignal): Promise<void> {
  const { name, namespace, uid } = pod.metadata
  await client.createSubresource<Binding>(
    pods,
    { name, namespace },
    'binding',
    { metadata: { name, namespace, uid }, target: { kind: 'Node', name: nodeName } },
    { signal },
  )
}

/** Another may write the status at the same time; more often than this in a row is worth an error. */
const attemptsMax = 4

/** Says in the pod's status why it has no node. Writes nothing where that is said already, or the pod has moved on. */
export async function reportUnscheduled(
  client: Client,
  pod: Pod,
  { reason, message }: { readonly reason: string; readonly message: string },
  now: number,
  signal: AbortSignal,
): Promise<void> {
  let current = pod
  for (let attempt = 1; ; attempt++) {
    const { uid, resourceVersion, deletionTimestamp } = current.metadata
    if (uid !== pod.metadata.uid || deletionTimestamp !== undefined || current.spec.nodeName) return
    const known = findCondition(current.status.conditions, 'PodScheduled')
    if (known?.status === 'False' && known.reason === reason && known.message === message) return
    const condition: PodCondition = {
      type: 'PodScheduled',
      status: 'False',
      reason,
      message,
      lastTransitionTime:
        known?.status === 'False' && known.lastTransitionTime !== undefined
          ? known.lastTransitionTime
          : formatTime(now),
    }
    const conditions = [...(current.status.conditions ?? []).filter((c) => c.type !== 'PodScheduled'), condition]
    const patch = { metadata: { uid, resourceVersion }, status: { conditions } }
    try {
      await client.patch(pods, current.metadata, 'merge', patch, { subresource: 'status', signal })
      return
    } catch (error) {
      if (isStatus(error, 'NotFound')) return
      if (!isStatus(error, 'Conflict') || attempt >= attemptsMax) throw error
    }
    try {
      current = await client.get(pods, pod.metadata, { signal })
    } catch (error) {
      if (isStatus(error, 'NotFound')) return
      throw error
    }
  }
}
