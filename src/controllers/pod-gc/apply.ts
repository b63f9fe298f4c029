import type { Pod } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { withCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Client } from '#client/client.ts'
import type { Reason } from './plan.ts'

/** What a pod that did not end by itself is told to have died of. */
const words: Partial<Record<Reason, string>> = {
  orphaned: 'PodGC: node no longer exists',
  'out-of-service': 'PodGC: node is out of service',
}

/** Deletes this very pod, without waiting for a node; one that had not ended is marked as failed first. */
export async function collectPod(
  client: Client,
  pod: Pod,
  reason: Reason,
  now: number,
  signal: AbortSignal,
): Promise<void> {
  const { uid } = pod.metadata
  const { phase } = pod.status
  try {
    if (phase !== 'Succeeded' && phase !== 'Failed' && reason !== 'unscheduled') {
      const status = { phase: 'Failed', conditions: conditionsOf(pod, reason, now) }
      await client.patch(pods, pod.metadata, 'merge', { metadata: { uid }, status }, { subresource: 'status', signal })
    }
    await client.delete(pods, pod.metadata, { gracePeriodSeconds: 0, preconditions: { uid }, signal })
  } catch (error) {
    // It went by itself, or another of its name is there now.
    if (!isStatus(error, 'NotFound') && !isStatus(error, 'Conflict')) throw error
  }
}

function conditionsOf(pod: Pod, reason: Reason, now: number): Pod['status']['conditions'] {
  const message = words[reason]
  if (message === undefined) return pod.status.conditions ?? []
  const condition = { type: 'DisruptionTarget', status: 'True', reason: 'DeletionByPodGC', message }
  return [...withCondition(pod.status.conditions, condition, formatTime(now))]
}
