import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import { scaledValue } from '#api/meta/intstr.ts'
import { desiredAnnotation, maxAnnotation } from './names.ts'

/** The arithmetic of a rollout: how many pods each ReplicaSet should have next. */

/** A ReplicaSet as it is to become; `set` is what it is. */
export interface SetDraft {
  readonly set: ReplicaSet
  replicas: number
  annotations: Readonly<Record<string, string>>
  minReadySeconds: number
}

export const setDraft = (set: ReplicaSet): SetDraft => ({
  set,
  replicas: set.spec.replicas ?? 1,
  annotations: set.metadata.annotations ?? {},
  minReadySeconds: set.spec.minReadySeconds ?? 0,
})

export const replicasOf = (deployment: Deployment): number => deployment.spec.replicas ?? 1
export const isRolling = (deployment: Deployment): boolean => deployment.spec.strategy?.type !== 'Recreate'
/**
 * Available pods that will stay: a set that was told to shrink and has not yet still reports pods that are about to go,
 * and a template that changes back at that moment must not take the last ones for spare (upstream does).
 */
const availableOf = ({ set }: SetDraft): number => Math.min(set.status?.availableReplicas ?? 0, set.spec.replicas ?? 1)
const sum = (sets: readonly SetDraft[], of: (set: SetDraft) => number): number =>
  sets.reduce((total, set) => total + of(set), 0)
export const sizeOf = (sets: readonly SetDraft[]): number => sum(sets, (s) => s.replicas)
export const availableIn = (sets: readonly SetDraft[]): number => sum(sets, availableOf)

interface Limits {
  /** Pods above the wanted number. */
  readonly surge: number
  /** Pods below it that may be missing. */
  readonly unavailable: number
}

/** Surge rounds up, unavailable down; if both came out as 0 nothing could move, so one may be missing. */
export function limitsOf(deployment: Deployment): Limits {
  if (!isRolling(deployment)) return { surge: 0, unavailable: 0 }
  const { maxSurge = 0, maxUnavailable = 0 } = deployment.spec.strategy?.rollingUpdate ?? {}
  const replicas = replicasOf(deployment)
  const surge = scaledValue(maxSurge, replicas, 'up')
  const unavailable = scaledValue(maxUnavailable, replicas, 'down')
  if (surge === 0 && unavailable === 0) return { surge, unavailable: replicas === 0 ? 0 : 1 }
  return { surge, unavailable: Math.min(unavailable, replicas) }
}

/** What a set remembers of the Deployment's size, for scaling in proportion later. */
export const sizeAnnotations = (deployment: Deployment): Record<string, string> => ({
  [desiredAnnotation]: String(replicasOf(deployment)),
  [maxAnnotation]: String(replicasOf(deployment) + limitsOf(deployment).surge),
})

export function scaleTo(deployment: Deployment, draft: SetDraft, replicas: number): void {
  draft.replicas = replicas
  draft.annotations = { ...draft.annotations, ...sizeAnnotations(deployment) }
}

/** How big the new set may be now, given all sets (itself included) and its own present size. */
export function newSetSize(deployment: Deployment, all: readonly SetDraft[], own: number): number {
  const replicas = replicasOf(deployment)
  if (!isRolling(deployment)) return replicas
  const room = replicas + limitsOf(deployment).surge - sizeOf(all)
  return room <= 0 ? own : own + Math.min(room, Math.max(0, replicas - own))
}

/** One step of the new set towards its size. True when it moved. */
export function growNewSet(deployment: Deployment, fresh: SetDraft, all: readonly SetDraft[]): boolean {
  const replicas = replicasOf(deployment)
  if (fresh.replicas === replicas) return false
  const size = fresh.replicas > replicas ? replicas : newSetSize(deployment, all, fresh.replicas)
  if (size === fresh.replicas) return false
  scaleTo(deployment, fresh, size)
  return true
}

/**
 * One step down of the old sets, oldest first: pods that are not available go before any that is, and never more than
 * the new set's available ones allow. True when one moved.
 */
export function shrinkOldSets(deployment: Deployment, fresh: SetDraft, old: readonly SetDraft[]): boolean {
  if (sizeOf(old) === 0) return false
  const all = [...old, fresh]
  const availableMin = replicasOf(deployment) - limitsOf(deployment).unavailable
  const missingFresh = fresh.replicas - availableOf(fresh)
  let room = sizeOf(all) - availableMin - missingFresh
  if (room <= 0) return false
  let moved = false
  for (const draft of old) {
    const count = Math.min(room, draft.replicas - availableOf(draft))
    if (count <= 0) continue
    scaleTo(deployment, draft, draft.replicas - count)
    room -= count
    moved = true
  }
  let spare = availableIn(all) - availableMin
  for (const draft of old) {
    const count = Math.min(spare, draft.replicas)
    if (count <= 0) continue
    scaleTo(deployment, draft, draft.replicas - count)
    spare -= count
    moved = true
  }
  return moved
}

/** All old sets to nothing, for Recreate. True when one moved. */
export function emptyOldSets(deployment: Deployment, old: readonly SetDraft[]): boolean {
  const full = old.filter((draft) => draft.replicas > 0)
  for (const draft of full) scaleTo(deployment, draft, 0)
  return full.length > 0
}

/** The Deployment's size changed since one of the active sets was last scaled. */
export function isScaling(deployment: Deployment, all: readonly SetDraft[]): boolean {
  return all.some((draft) => {
    const desired = Number.parseInt(draft.annotations[desiredAnnotation] ?? '', 10)
    return draft.replicas > 0 && !Number.isNaN(desired) && desired !== replicasOf(deployment)
  })
}

/** The Deployment changed its size: one set takes all of it; several, in the middle of a rollout, their shares. */
export function scaleSets(deployment: Deployment, fresh: SetDraft | undefined, old: readonly SetDraft[]): void {
  const replicas = replicasOf(deployment)
  const all = fresh === undefined ? old : [...old, fresh]
  const active = all.filter((draft) => draft.replicas > 0)
  const only = active.length === 0 ? (fresh ?? old.at(-1)) : active.length === 1 ? active[0] : undefined
  if (only !== undefined) {
    scaleTo(deployment, only, replicas)
    return
  }
  if (fresh !== undefined && isSaturated(deployment, fresh)) {
    emptyOldSets(deployment, old)
    scaleTo(deployment, fresh, fresh.replicas)
    return
  }
  if (isRolling(deployment)) scaleInProportion(deployment, active)
}

const isSaturated = (deployment: Deployment, { set, replicas, annotations }: SetDraft): boolean =>
  Number.parseInt(annotations[desiredAnnotation] ?? '', 10) === replicasOf(deployment) &&
  replicas === replicasOf(deployment) &&
  (set.status?.availableReplicas ?? 0) === replicasOf(deployment)

/** Biggest first (the newer of equals when growing, the older when shrinking); what rounding leaves goes to the first. */
function scaleInProportion(deployment: Deployment, active: readonly SetDraft[]): void {
  const replicas = replicasOf(deployment)
  const allowed = replicas > 0 ? replicas + limitsOf(deployment).surge : 0
  const toAdd = allowed - sizeOf(active)
  const age = (draft: SetDraft): string => draft.set.metadata.creationTimestamp
  const sorted = active.toSorted(
    (a, b) =>
      b.replicas - a.replicas ||
      (age(a) === age(b) ? 0 : age(a) < age(b) === toAdd > 0 ? 1 : -1) ||
      (a.set.metadata.name < b.set.metadata.name ? -1 : 1),
  )
  let added = 0
  const sizes = sorted.map((draft) => {
    const share = shareOf(deployment, draft, toAdd, added)
    added += share
    return draft.replicas + share
  })
  for (const [i, draft] of sorted.entries()) {
    const leftover = i === 0 && toAdd !== 0 ? toAdd - added : 0
    scaleTo(deployment, draft, Math.max(0, (sizes[i] ?? 0) + leftover))
  }
}

function shareOf(deployment: Deployment, draft: SetDraft, toAdd: number, added: number): number {
  if (draft.replicas === 0 || toAdd === 0 || toAdd === added) return 0
  const share = fractionOf(deployment, draft)
  return toAdd > 0 ? Math.min(share, toAdd - added) : Math.max(share, toAdd - added)
}

/** How much the set would change if it kept its part of the whole. */
function fractionOf(deployment: Deployment, draft: SetDraft): number {
  const replicas = replicasOf(deployment)
  if (replicas === 0) return -draft.replicas
  const noted = Number.parseInt(draft.annotations[maxAnnotation] ?? '', 10)
  const before = Number.isNaN(noted) || noted === 0 ? (deployment.status?.replicas ?? 0) : noted
  if (before === 0) return 0
  return Math.round((draft.replicas * (replicas + limitsOf(deployment).surge)) / before) - draft.replicas
}
