import type { Node, Pod } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'

export const outOfServiceTaint = 'node.kubernetes.io/out-of-service'

export type Reason = 'terminated' | 'orphaned' | 'unscheduled' | 'out-of-service'

export interface Action {
  readonly do: 'delete-pod'
  readonly pod: Pod
  readonly reason: Reason
}

export interface Facts {
  readonly pods: readonly Pod[]
  readonly node: (name: string) => Node | undefined
  /** Nodes that are known, by asking the server itself, not to be there. */
  readonly missingNodes: ReadonlySet<string>
  /** Pods that have ended are kept up to this many; none are collected for 0 or less. */
  readonly terminatedMax: number
}

const hasEnded = ({ status: { phase } }: Pod): boolean => phase === 'Succeeded' || phase === 'Failed'

/** Which pods nobody will ever come for. Each pod once, for the first reason that applies. Pure. */
export function planPodGc({ pods, node, missingNodes, terminatedMax }: Facts): Action[] {
  const actions = new Map<Pod, Reason>()
  const collect = (reason: Reason, found: readonly Pod[]) => {
    for (const pod of found) if (!actions.has(pod)) actions.set(pod, reason)
  }
  if (terminatedMax > 0) {
    const ended = pods.filter((pod) => hasEnded(pod) && pod.metadata.deletionTimestamp === undefined)
    const tooMany = ended.length - terminatedMax
    if (tooMany > 0) collect('terminated', ended.toSorted(byAge).slice(0, tooMany))
  }
  collect(
    'out-of-service',
    pods.filter((pod) => isOnNodeOutOfService(pod, node)),
  )
  collect(
    'orphaned',
    pods.filter(({ spec }) => spec.nodeName !== undefined && missingNodes.has(spec.nodeName)),
  )
  collect(
    'unscheduled',
    pods.filter(({ metadata, spec }) => metadata.deletionTimestamp !== undefined && !spec.nodeName),
  )
  return [...actions].map(([pod, reason]) => ({ do: 'delete-pod', pod, reason }))
}

/** An administrator said that the node will not come back: pods that should end there have ended. */
function isOnNodeOutOfService({ metadata, spec }: Pod, node: Facts['node']): boolean {
  if (metadata.deletionTimestamp === undefined || !spec.nodeName) return false
  const on = node(spec.nodeName)
  if (on === undefined) return false
  const isReady = on.status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') ?? false
  return !isReady && (on.spec.taints ?? []).some((t) => t.key === outOfServiceTaint)
}

/** Oldest first; of the same second, by name, so that every look chooses the same. */
function byAge(a: Pod, b: Pod): number {
  const age = (pod: Pod) => parseTime(pod.metadata.creationTimestamp) ?? 0
  return age(a) - age(b) || (a.metadata.name < b.metadata.name ? -1 : 1)
}

/** Nodes that pods name and that the copy does not have. */
export const unknownNodes = (pods: readonly Pod[], node: Facts['node']): Set<string> =>
  new Set(pods.flatMap(({ spec }) => (spec.nodeName && node(spec.nodeName) === undefined ? [spec.nodeName] : [])))
