import { type Plugin, scoreMax } from '../plugin.ts'

/** Room for what the pod asks, and a preference for nodes that have most of it left. */
export const nodeResourcesFit: Plugin = {
  name: 'NodeResourcesFit',
  weight: 1,
  judge({ requests, weights }) {
    const asked = [...requests].filter(([, value]) => value > 0)
    return {
      filter({ allocatable, requested, pods }) {
        let reasons: string[] | undefined
        const podsMax = allocatable.get('pods') ?? 0
        if (pods.size + 1 > podsMax) reasons = ['Too many pods']
        for (const [name, value] of asked) {
          if (value <= (allocatable.get(name) ?? 0) - (requested.get(name) ?? 0)) continue
          reasons ??= []
          reasons.push(`Insufficient ${name}`)
        }
        return reasons
      },
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
