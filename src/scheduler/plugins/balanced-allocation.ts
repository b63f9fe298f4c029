import { type Plugin, scoreMax } from '../plugin.ts'
import type { NodeInfo } from '../snapshot.ts'

/** Prefers nodes on which the pod brings the used shares of cpu and memory closer together. */
export const balancedAllocation: Plugin = {
  name: 'NodeResourcesBalancedAllocation',
  weight: 1,
  judge({ requests }) {
    const cpu = requests.get('cpu') ?? 0
    const memory = requests.get('memory') ?? 0
    // A pod that asks for nothing changes no balance.
    if (cpu === 0 && memory === 0) return undefined
    return {
      score(node) {
        const half = scoreMax / 2
        return Math.floor(half + (half + balance(node, cpu, memory) - balance(node, 0, 0)) / 2)
      },
    }
  },
}

/** 100 where both shares are the same, less by the standard deviation. */
function balance({ allocatable, requested }: NodeInfo, cpu: number, memory: number): number {
  const cpuMax = allocatable.get('cpu') ?? 0
  const memoryMax = allocatable.get('memory') ?? 0
  if (cpuMax === 0 || memoryMax === 0) return scoreMax
  const cpuShare = Math.min(1, ((requested.get('cpu') ?? 0) + cpu) / cpuMax)
  const memoryShare = Math.min(1, ((requested.get('memory') ?? 0) + memory) / memoryMax)
  return Math.floor((1 - Math.abs(cpuShare - memoryShare) / 2) * scoreMax)
}
