import type { DaemonSet, DaemonSetStatus } from '#api/gen/apps-v1.ts'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { scaledValue } from '#api/meta/intstr.ts'
import { compareText } from '#base/order.ts'
import { isAvailable, isReady, isTerminal } from '../workload/pod-state.ts'
import { type Eligibility, eligibilityFor, hashLabel, isUpdated, targetOf } from './nodes.ts'

export interface View {
  readonly set: DaemonSet
  readonly nodes: readonly Node[]
  /** The set's own pods. */
  readonly pods: readonly Pod[]
  /** The present revision's hash, and those of revisions that hold the same template. */
  readonly hash: string
  readonly hashes: ReadonlySet<string>
  readonly now: number
  /** Milliseconds that a failed pod of the node has to stay, so that one that fails at once does not fail in a circle. */
  readonly holdFailed: (nodeName: string) => number
}

export interface Doomed {
  readonly pod: Pod
  /** What to tell about it; undefined where its end is plain business. */
  readonly because: 'failed' | 'succeeded' | undefined
  readonly nodeName: string
}

export interface Plan {
  /** Nodes to make a pod for. */
  readonly create: readonly string[]
  readonly remove: readonly Doomed[]
  /** Milliseconds after which a failed pod may go; undefined when none is held. */
  readonly againIn: number | undefined
}

/** At most so many pods are made, and as many deleted, before we look again. */
const burstMax = 250

/** What to do next: first what is missing or too much; only when nothing is, a step of the rollout. */
export function planPods(view: View): Plan {
  const judge = eligibilityFor(view.set)
  const byNode = groupByNode(view.pods.filter((pod) => !isSettled(pod)))
  const plan = { create: [] as string[], remove: [] as Doomed[], againIn: undefined as number | undefined }
  for (const node of view.nodes) {
    const name = node.metadata.name
    planNode(view, name, judge(node), byNode.get(name) ?? [], plan)
  }
  // Waiting for a node that is gone, a pod would wait for ever: nobody else finds it.
  const present = new Set(view.nodes.map(({ metadata }) => metadata.name))
  for (const [nodeName, pods] of byNode)
    if (!present.has(nodeName))
      for (const pod of pods)
        if (!pod.spec.nodeName && !isGoing(pod)) plan.remove.push({ pod, because: undefined, nodeName })
  if (plan.create.length === 0 && plan.remove.length === 0 && view.set.spec.updateStrategy?.type !== 'OnDelete')
    planRollout(view, judge, byNode, plan)
  return { ...plan, create: plan.create.slice(0, burstMax), remove: plan.remove.slice(0, burstMax) }
}

/** Ended and told to go: only a finalizer still holds it, and the next pod need not wait for that. */
const isSettled = (pod: Pod): boolean => isGoing(pod) && isTerminal(pod)

const isGoing = ({ metadata }: Pod): boolean => metadata.deletionTimestamp !== undefined

function groupByNode(pods: readonly Pod[]): Map<string, Pod[]> {
  const groups = new Map<string, Pod[]>()
  for (const pod of pods) {
    const name = targetOf(pod)
    if (name === undefined) continue
    const known = groups.get(name)
    if (known === undefined) groups.set(name, [pod])
    else known.push(pod)
  }
  return groups
}

/** Placed before not placed, then the older. */
const byAge = (a: Pod, b: Pod): number =>
  Number(Boolean(b.spec.nodeName)) - Number(Boolean(a.spec.nodeName)) ||
  compareText(a.metadata.creationTimestamp, b.metadata.creationTimestamp) ||
  compareText(a.metadata.name, b.metadata.name)

type Draft = { create: string[]; remove: Doomed[]; againIn: number | undefined }

function planNode(
  view: View,
  nodeName: string,
  { shouldRun, mayStay }: Eligibility,
  pods: readonly Pod[],
  plan: Draft,
): void {
  if (!mayStay) {
    for (const pod of pods) if (!isGoing(pod)) plan.remove.push({ pod, because: undefined, nodeName })
    return
  }
  if (pods.length === 0) {
    if (shouldRun) plan.create.push(nodeName)
    return
  }
  const running: Pod[] = []
  for (const pod of pods) {
    if (isGoing(pod)) continue
    if (pod.status.phase === 'Failed') {
      const ms = view.holdFailed(nodeName)
      if (ms > 0) plan.againIn = Math.min(ms, plan.againIn ?? ms)
      else plan.remove.push({ pod, because: 'failed', nodeName })
    } else if (pod.status.phase === 'Succeeded') plan.remove.push({ pod, because: 'succeeded', nodeName })
    else running.push(pod)
  }
  running.sort(byAge)
  if (limitsOf(view.set, 1).surge === 0) {
    for (const pod of running.slice(1)) plan.remove.push({ pod, because: undefined, nodeName })
    return
  }
  // While surging the next pod starts beside one that is on its way out.
  if (running.length === 0 && shouldRun && pods.every(isGoing)) plan.create.push(nodeName)
  if (running.length > 1) planSurged(view, nodeName, running, plan)
}

/** Two pods may share a node while the new one is not available yet and the old one still serves. */
function planSurged({ set, hash, now }: View, nodeName: string, running: readonly Pod[], plan: Draft): void {
  const isNew = (pod: Pod): boolean => pod.metadata.labels?.[hashLabel] === hash
  const fresh = running.find(isNew)
  // The template may have changed twice: of two that are old, the one that serves is the one to keep.
  const older = running.filter((pod) => !isNew(pod))
  const old = older.find(isReady) ?? older[0]
  for (const pod of running) if (pod !== fresh && pod !== old) plan.remove.push({ pod, because: undefined, nodeName })
  if (fresh === undefined || old === undefined) return
  if (!isReady(old) || isAvailable(fresh, set.spec.minReadySeconds ?? 0, now))
    plan.remove.push({ pod: old, because: undefined, nodeName })
}

/** Both round up; if both came out as 0 nothing could move, so one may be missing. */
export function limitsOf(
  { spec }: DaemonSet,
  desired: number,
): { readonly surge: number; readonly unavailable: number } {
  const { maxSurge = 0, maxUnavailable = 1 } = spec.updateStrategy?.rollingUpdate ?? {}
  const surge = scaledValue(maxSurge, desired, 'up')
  const unavailable = scaledValue(maxUnavailable, desired, 'up')
  return { surge, unavailable: surge === 0 && unavailable === 0 && desired > 0 ? 1 : unavailable }
}

/** What a node's pods are, as a rollout sees them. */
interface Site {
  readonly nodeName: string
  readonly shouldRun: boolean
  readonly fresh: Pod | undefined
  readonly old: Pod | undefined
}

function planRollout(
  view: View,
  judge: (node: Node) => Eligibility,
  byNode: ReadonlyMap<string, readonly Pod[]>,
  plan: Draft,
): void {
  const { set, hashes } = view
  const sites: Site[] = []
  for (const node of view.nodes) {
    const nodeName = node.metadata.name
    const { shouldRun } = judge(node)
    const pods = byNode.get(nodeName)
    // Pods may still be where none would be put any more; they are replaced by nothing.
    if (!shouldRun && pods === undefined) continue
    const staying = (pods ?? []).filter((pod) => !isGoing(pod))
    const fresh = staying.find((pod) => isUpdated(set, pod, hashes))
    sites.push({ nodeName, shouldRun, fresh, old: staying.find((pod) => !isUpdated(set, pod, hashes)) })
  }
  const { surge, unavailable } = limitsOf(set, sites.filter(({ shouldRun }) => shouldRun).length)
  if (surge > 0) planSurge(view, sites, surge, plan)
  else planReplacement(view, sites, unavailable, plan)
}

const serves = ({ set, now }: View, pod: Pod | undefined): boolean =>
  pod !== undefined && isAvailable(pod, set.spec.minReadySeconds ?? 0, now)

/** Without surge: old pods that do not serve go first, then as many that do as may be missing. */
function planReplacement(view: View, sites: readonly Site[], unavailable: number, plan: Draft): void {
  let spent = 0
  const first: Doomed[] = []
  const then: Doomed[] = []
  for (const { nodeName, fresh, old } of sites) {
    if (old !== undefined && fresh === undefined) {
      const doomed = { nodeName, pod: old, because: undefined }
      if (serves(view, old)) then.push(doomed)
      else {
        first.push(doomed)
        spent++
      }
    } else if (old !== undefined || !serves(view, fresh)) spent++
  }
  plan.remove.push(...first, ...then.slice(0, Math.max(0, unavailable - spent)))
}

/** With surge: new pods beside old ones that do not serve, and beside as many that do as the surge allows. */
function planSurge(view: View, sites: readonly Site[], surge: number, plan: Draft): void {
  let spent = 0
  let available = 0
  const first: string[] = []
  const then: string[] = []
  const leaving: Doomed[] = []
  for (const { nodeName, shouldRun, fresh, old } of sites) {
    if (serves(view, old ?? fresh)) available++
    if (old === undefined) continue
    if (fresh !== undefined) {
      if (!serves(view, fresh)) spent++
    } else if (!shouldRun) {
      const doomed = { nodeName, pod: old, because: undefined }
      if (serves(view, old)) leaving.push(doomed)
      else plan.remove.push(doomed)
    } else if (serves(view, old)) then.push(nodeName)
    else first.push(nodeName)
  }
  plan.create.push(...first, ...then.slice(0, Math.max(0, surge - spent)))
  // Who surges wants nothing to be missing: pods where none should be go as others have come up elsewhere.
  const wanted = sites.filter(({ shouldRun }) => shouldRun).length
  plan.remove.push(...leaving.slice(0, Math.max(0, available - wanted)))
}

export function planStatus(view: View): DaemonSetStatus {
  const { set, nodes, now, hashes } = view
  const judge = eligibilityFor(set)
  const byNode = groupByNode(view.pods.filter((pod) => !isSettled(pod)))
  const counts = { desired: 0, current: 0, misscheduled: 0, ready: 0, updated: 0, available: 0 }
  for (const node of nodes) {
    const [pod] = (byNode.get(node.metadata.name) ?? []).toSorted(byAge)
    if (!judge(node).shouldRun) {
      if (pod !== undefined) counts.misscheduled++
      continue
    }
    counts.desired++
    if (pod === undefined) continue
    counts.current++
    if (isReady(pod)) counts.ready++
    if (isAvailable(pod, set.spec.minReadySeconds ?? 0, now)) counts.available++
    if (isUpdated(set, pod, hashes)) counts.updated++
  }
  const { collisionCount, conditions } = set.status ?? {}
  return {
    currentNumberScheduled: counts.current,
    numberMisscheduled: counts.misscheduled,
    desiredNumberScheduled: counts.desired,
    numberReady: counts.ready,
    observedGeneration: set.metadata.generation ?? 0,
    updatedNumberScheduled: counts.updated,
    numberAvailable: counts.available,
    numberUnavailable: counts.desired - counts.available,
    ...(collisionCount === undefined ? {} : { collisionCount }),
    ...(conditions === undefined ? {} : { conditions }),
  }
}
