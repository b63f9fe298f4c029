import type { Node, Pod } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'
import { tolerates } from '#api/placement/taints.ts'

export type Verdict = { readonly do: 'stay' } | { readonly do: 'evict'; readonly atMs: number }

/**
 * How long a pod may stay on its node: not at all with a NoExecute taint it does not bear, until the shortest of its
 * tolerations has run out, or for ever. Time runs from when the taint was added. Pure.
 */
export function planEviction(pod: Pod, node: Node | undefined): Verdict {
  if (pod.metadata.deletionTimestamp !== undefined) return { do: 'stay' }
  const taints = (node?.spec.taints ?? []).filter((t) => t.effect === 'NoExecute')
  let atMs = Number.POSITIVE_INFINITY
  for (const taint of taints) {
    const bearing = (pod.spec.tolerations ?? []).filter((t) => tolerates(t, taint))
    if (bearing.length === 0) return { do: 'evict', atMs: Number.NEGATIVE_INFINITY }
    const seconds = Math.min(...bearing.map((t) => t.tolerationSeconds ?? Number.POSITIVE_INFINITY))
    if (seconds <= 0) return { do: 'evict', atMs: Number.NEGATIVE_INFINITY }
    const added = parseTime(taint.timeAdded)
    // Without a time there is nothing to count from: then the pod goes when the toleration would have run out anyway.
    if (added !== undefined) atMs = Math.min(atMs, added + seconds * 1000)
    else if (seconds !== Number.POSITIVE_INFINITY) atMs = Math.min(atMs, Number.NEGATIVE_INFINITY)
  }
  return atMs === Number.POSITIVE_INFINITY ? { do: 'stay' } : { do: 'evict', atMs }
}
