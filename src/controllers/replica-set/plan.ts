import type { ReplicaSet, ReplicaSetStatus } from '#api/gen/apps-v1.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { formatTime } from '#api/meta/time.ts'
import { isActive, isAvailable, isReady, isTerminating, nextAvailableIn } from '../workload/pod-state.ts'
import { leastUseful } from './rank.ts'

export type Action =
  | { readonly do: 'create-pods'; readonly count: number }
  | { readonly do: 'delete-pods'; readonly pods: readonly Pod[] }

/** At most so many pods are made or deleted before we look again. */
const burstMax = 500

/**
 * What to do next, given a set and the pods it owns. `related` are the pods of all sets of the same owner: of a
 * Deployment's pods, one that shares its node with another is spared least.
 */
export function planReplicas(
  set: ReplicaSet,
  owned: readonly Pod[],
  related: readonly Pod[],
  now: number,
): Action | undefined {
  if (set.metadata.deletionTimestamp !== undefined) return undefined
  const active = owned.filter(isActive)
  const missing = (set.spec.replicas ?? 1) - active.length
  if (missing > 0) return { do: 'create-pods', count: Math.min(missing, burstMax) }
  if (missing < 0) return { do: 'delete-pods', pods: leastUseful(active, related, Math.min(-missing, burstMax), now) }
  return undefined
}

/** The status after a look at `owned`; `failure` is what making or deleting pods ended with. */
export function planStatus(
  set: ReplicaSet,
  owned: readonly Pod[],
  failure: Error | undefined,
  now: number,
): ReplicaSetStatus {
  const { minReadySeconds = 0, template } = set.spec
  const active = owned.filter(isActive)
  const labels = Object.entries(template.metadata?.labels ?? {})
  const conditions = conditionsAfter(set, active.length, failure, now)
  return {
    replicas: active.length,
    fullyLabeledReplicas: active.filter((p) => labels.every(([k, v]) => p.metadata.labels?.[k] === v)).length,
    readyReplicas: active.filter(isReady).length,
    availableReplicas: active.filter((p) => isAvailable(p, minReadySeconds, now)).length,
    terminatingReplicas: owned.filter(isTerminating).length,
    observedGeneration: set.metadata.generation ?? 0,
    ...(conditions.length === 0 ? {} : { conditions }),
  }
}

type Conditions = NonNullable<ReplicaSetStatus['conditions']>

function conditionsAfter(set: ReplicaSet, active: number, failure: Error | undefined, now: number): Conditions {
  const present = set.status?.conditions ?? []
  const known = findCondition(present, 'ReplicaFailure')
  if (failure === undefined) return known === undefined ? present : present.filter((c) => c !== known)
  // The first failure is the one shown, until a look without any.
  if (known !== undefined) return present
  return [
    ...present,
    {
      type: 'ReplicaFailure',
      status: 'True',
      lastTransitionTime: formatTime(now),
      reason: active < (set.spec.replicas ?? 1) ? 'FailedCreate' : 'FailedDelete',
      message: failure.message,
    },
  ]
}

/** Milliseconds until a ready pod will have been ready for long enough: nothing changes in the API then. */
export const planNextLook = (set: ReplicaSet, owned: readonly Pod[], now: number): number | undefined =>
  nextAvailableIn(owned.filter(isActive), set.spec.minReadySeconds ?? 0, now)
