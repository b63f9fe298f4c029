import type { Pod } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'
import { isActive, isReady, readySince } from '../workload/pod-state.ts'

/** Pods with a lower cost are deleted first, among those that are equally far. */
const deletionCostAnnotation = 'controller.kubernetes.io/pod-deletion-cost'

/**
 * The `count` pods whose loss hurts least: not placed before placed, pending before running, unready before ready,
 * cheap before dear, doubled up on a node before alone, then the younger (roughly, so that it is not always the same
 * node that loses), the more often restarted. `related` are all pods of the same purpose (every revision's).
 */
export function leastUseful(pods: readonly Pod[], related: readonly Pod[], count: number, now: number): Pod[] {
  if (count >= pods.length) return [...pods]
  const perNode = new Map<string, number>()
  for (const pod of related) {
    const node = pod.spec.nodeName
    if (node && isActive(pod)) perNode.set(node, (perNode.get(node) ?? 0) + 1)
  }
  const crowd = (pod: Pod): number => perNode.get(pod.spec.nodeName ?? '') ?? 0
  return pods.toSorted((a, b) => compare(a, b, crowd, now)).slice(0, count)
}

const phaseOrder: Readonly<Record<string, number>> = { Pending: 0, Unknown: 1, Running: 2 }

/** Negative when `a` goes first. */
function compare(a: Pod, b: Pod, crowd: (pod: Pod) => number, now: number): number {
  return (
    Number(Boolean(a.spec.nodeName)) - Number(Boolean(b.spec.nodeName)) ||
    (phaseOrder[a.status.phase ?? 'Pending'] ?? 0) - (phaseOrder[b.status.phase ?? 'Pending'] ?? 0) ||
    Number(isReady(a)) - Number(isReady(b)) ||
    deletionCost(a) - deletionCost(b) ||
    crowd(b) - crowd(a) ||
    youngerFirst(readySince(a), readySince(b), a, b, now) ||
    restarts(b) - restarts(a) ||
    sidecarRestarts(b) - sidecarRestarts(a) ||
    youngerFirst(parseTime(a.metadata.creationTimestamp), parseTime(b.metadata.creationTimestamp), a, b, now)
  )
}

/** 0 where there is no 32-bit number, or it has a plus or leading zeros: admission lets no such thing through. */
function deletionCost(pod: Pod): number {
  const text = pod.metadata.annotations?.[deletionCostAnnotation]
  if (text === undefined || !/^(0|[1-9]\d*|-\d+)$/.test(text)) return 0
  const cost = Number(text)
  return cost === (cost | 0) ? cost : 0
}

/** Times that differ are compared by the magnitude of the age; of the same magnitude, the uid decides (it is random). */
function youngerFirst(a: number | undefined, b: number | undefined, podA: Pod, podB: Pod, now: number): number {
  if (a === b) return 0
  if (a === undefined || a === 0) return -1
  if (b === undefined || b === 0) return 1
  return magnitude(now - a) - magnitude(now - b) || (podA.metadata.uid < podB.metadata.uid ? -1 : 1)
}

const magnitude = (ms: number): number => (ms > 0 ? Math.floor(Math.log2(ms * 1e6)) : -1)

const restarts = ({ status }: Pod): number => mostRestarts(status.containerStatuses)

/** Init containers that run once do not count. */
function sidecarRestarts({ spec, status }: Pod): number {
  const sidecars = (spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always').map(({ name }) => name)
  return mostRestarts(status.initContainerStatuses?.filter(({ name }) => sidecars.includes(name)))
}

const mostRestarts = (statuses: Pod['status']['containerStatuses']): number =>
  Math.max(0, ...(statuses ?? []).map((status) => status.restartCount))
