import type { Pod } from '#api/gen/core-v1.ts'
import { findCondition, isConditionTrue } from '#api/meta/conditions.ts'
import { parseTime } from '#api/meta/time.ts'

/** Has run to its end. */
export const isTerminal = (pod: Pod): boolean => pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed'

/** Counts as a replica: neither ended nor being deleted. */
export const isActive = (pod: Pod): boolean => !isTerminal(pod) && pod.metadata.deletionTimestamp === undefined

/** Being deleted, and its containers may still run. */
export const isTerminating = (pod: Pod): boolean => !isTerminal(pod) && pod.metadata.deletionTimestamp !== undefined

export const isReady = (pod: Pod): boolean => isConditionTrue(pod.status.conditions, 'Ready')

/** Milliseconds since the epoch at which the pod became ready; undefined while it is not. */
export function readySince(pod: Pod): number | undefined {
  const ready = findCondition(pod.status.conditions, 'Ready')
  return ready?.status === 'True' ? (parseTime(ready.lastTransitionTime) ?? 0) : undefined
}

/**
 * Milliseconds from `now` until the pod has been ready for `minReadySeconds`: 0 when it is available, undefined while
 * it is not even ready.
 */
export function availableIn(pod: Pod, minReadySeconds: number, now: number): number | undefined {
  const since = readySince(pod)
  if (since === undefined) return undefined
  return minReadySeconds === 0 ? 0 : Math.max(0, since + minReadySeconds * 1000 - now)
}

export const isAvailable = (pod: Pod, minReadySeconds: number, now: number): boolean =>
  availableIn(pod, minReadySeconds, now) === 0

/** The soonest moment, in milliseconds from `now`, at which a ready pod becomes available; undefined when none will. */
export function nextAvailableIn(pods: readonly Pod[], minReadySeconds: number, now: number): number | undefined {
  let soonest: number | undefined
  for (const pod of pods) {
    const ms = availableIn(pod, minReadySeconds, now)
    if (ms !== undefined && ms > 0 && (soonest === undefined || ms < soonest)) soonest = ms
  }
  return soonest
}
