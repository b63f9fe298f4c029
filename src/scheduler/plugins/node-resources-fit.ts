import { type Plugin, scoreMax, type Verdict } from '../plugin.ts'
import type { NodeInfo, PodInfo } from '../snapshot.ts'

/** What a node has too little of for a pod; undefined when it has enough of everything. */
export function missingOn({ allocatable, requested, pods }: NodeInfo, { requests }: PodInfo): Verdict {
  let reasons: string[] | undefined
  if (pods.size + 1 > (allocatable.get('pods') ?? 0)) reasons = ['Too many pods']
  for (const [name, value] of requests) {
    if (value <= 0 || value <= (allocatable.get(name) ?? 0) - (requested.get(name) ?? 0)) continue
    reasons ??= []
    reasons.push(`Insufficient ${name}`)
  }
  return reasons
}

/** Room for what the pod asks, and a preference for nodes that have most of it left. */
export const nodeResourcesFit: Plugin = {
  name: 'NodeResourcesFit',
  weight: 1,
  judge(info) {
    const { weights } = info
    return {
      filter: (node) => missingOn(node, info),
      score({ allocatable, weightCpu, weightMemory }) {
        let sum = 0
        let counted = 0
        const add = (capacity: number, used: number): void => {
          if (capacity === 0) return
          counted++
          if (used <= capacity) sum += Math.floor(((capacity - used) * scoreMax) / capacity)
        }
        add(allocatable.get('cpu') ?? 0, weightCpu + weights.cpu)
        add(allocatable.get('memory') ?? 0, weightMemory + weights.memory)
        return counted === 0 ? 0 : Math.floor(sum / counted)
      },
    }
  },
}
