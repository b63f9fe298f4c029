import { namedNodes } from '#api/placement/node-affinity.ts'
import { compareText } from '#base/order.ts'
import type { Judge, PlanContext, Plugin } from './plugin.ts'
import { balancedAllocation } from './plugins/balanced-allocation.ts'
import { imageLocality } from './plugins/image-locality.ts'
import { interPodAffinity } from './plugins/inter-pod-affinity.ts'
import { nodeAffinity } from './plugins/node-affinity.ts'
import { nodeName } from './plugins/node-name.ts'
import { nodePorts } from './plugins/node-ports.ts'
import { nodeResourcesFit } from './plugins/node-resources-fit.ts'
import { nodeUnschedulable } from './plugins/node-unschedulable.ts'
import { podTopologySpread } from './plugins/pod-topology-spread.ts'
import { taintToleration } from './plugins/taint-toleration.ts'
import { dynamicResources, volumeBinding } from './plugins/unsupported.ts'
import type { NodeInfo, PodInfo } from './snapshot.ts'

/** In the order in which nodes are asked: the first that says no gives the reason. */
export const plugins: readonly Plugin[] = [
  nodeUnschedulable,
  nodeName,
  taintToleration,
  nodeAffinity,
  nodePorts,
  nodeResourcesFit,
  volumeBinding,
  podTopologySpread,
  interPodAffinity,
  dynamicResources,
  balancedAllocation,
  imageLocality,
]

export type Placement =
  | { readonly do: 'bind'; readonly nodeName: string }
  | {
      readonly do: 'wait'
      /** For people, and for tools that parse it. */
      readonly message: string
      /** The plugins that said no: what may make them say yes wakes the pod. */
      readonly rejectedBy: ReadonlySet<string>
    }

export interface PlanOptions {
  /** At which node to begin: moves on from pod to pod, so that not the same nodes are always looked at first. */
  readonly startAt: number
  /** 0 to 1. Decides between nodes of the same score. */
  readonly random: () => number
}

export interface Plan {
  readonly placement: Placement
  /** Nodes looked at. */
  readonly looked: number
}

/** Where a pod goes, given the cluster as it is. Pure: it changes nothing, and the same input gives the same answer. */
export function planPlacement(info: PodInfo, context: PlanContext, { startAt, random }: PlanOptions): Plan {
  const { nodes } = context.snapshot
  if (nodes.length === 0) return { placement: waiting('no nodes available to schedule pods', []), looked: 0 }

  const judges: { readonly plugin: Plugin; readonly judge: Judge }[] = []
  for (const plugin of plugins) {
    const judge = plugin.judge(info, context)
    if (judge === undefined) continue
    if ('refuses' in judge) {
      const message = `0/${nodes.length} nodes are available: ${judge.refuses}.`
      return { placement: waiting(message, [plugin.name]), looked: 0 }
    }
    judges.push({ plugin, judge })
  }

  const { passed, looked, reasons, rejectedBy } = filterNodes(info, context, judges, startAt)
  const [first] = passed
  if (first === undefined) {
    const texts = [...reasons].map(([reason, count]) => `${count} ${reason}`).toSorted(compareText)
    return {
      placement: waiting(`0/${nodes.length} nodes are available: ${texts.join(', ')}.`, rejectedBy),
      looked,
    }
  }
  const best = passed.length === 1 ? first : bestOf(passed, judges, random)
  return { placement: { do: 'bind', nodeName: best.name }, looked }
}

const waiting = (message: string, rejectedBy: Iterable<string>): Placement => ({
  do: 'wait',
  message,
  rejectedBy: new Set(rejectedBy),
})

/** With many nodes a good one out of enough will do: half of 100 nodes, falling to a twentieth, never below 100. */
export function nodesEnough(total: number): number {
  if (total < 100) return total
  return Math.max(100, Math.floor((total * Math.max(5, 50 - Math.floor(total / 125))) / 100))
}

interface Filtered {
  readonly passed: NodeInfo[]
  readonly looked: number
  readonly reasons: ReadonlyMap<string, number>
  readonly rejectedBy: ReadonlySet<string>
}

function filterNodes(
  { pod }: PodInfo,
  { snapshot }: PlanContext,
  judges: readonly { readonly plugin: Plugin; readonly judge: Judge }[],
  startAt: number,
): Filtered {
  const filters = judges.flatMap(({ plugin, judge }) =>
    judge.filter === undefined ? [] : [{ name: plugin.name, filter: judge.filter.bind(judge) }],
  )
  const reasons = new Map<string, number>()
  const rejectedBy = new Set<string>()
  const passed: NodeInfo[] = []
  const total = snapshot.nodes.length
  const only = namedNodes(pod.spec)?.flatMap((name) => snapshot.node(name) ?? [])
  const nodes = only ?? snapshot.nodes
  if (only !== undefined && only.length < total) {
    rejectedBy.add(nodeAffinity.name)
    reasons.set(`node(s) didn't satisfy plugin(s) [${nodeAffinity.name}]`, total - only.length)
  }
  const enough = nodesEnough(nodes.length)
  let looked = 0
  for (; looked < nodes.length && passed.length < enough; looked++) {
    const node = nodes[(startAt + looked) % nodes.length]
    if (node === undefined) continue
    let isGood = true
    for (const { name, filter } of filters) {
      const against = filter(node)
      if (against === undefined) continue
      isGood = false
      rejectedBy.add(name)
      for (const reason of against) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
      break
    }
    if (isGood) passed.push(node)
  }
  return { passed, looked, reasons, rejectedBy }
}

/** The node with the highest weighted score; of equals, any. */
function bestOf(
  nodes: readonly NodeInfo[],
  judges: readonly { readonly plugin: Plugin; readonly judge: Judge }[],
  random: () => number,
): NodeInfo {
  const totals = new Float64Array(nodes.length)
  for (const { plugin, judge } of judges) {
    if (judge.score === undefined) continue
    judge.prepareScores?.(nodes)
    const scores: number[] = new Array(nodes.length)
    for (const [i, node] of nodes.entries()) scores[i] = judge.score(node)
    judge.normalize?.(scores)
    for (const [i, score] of scores.entries()) totals[i] = (totals[i] ?? 0) + score * plugin.weight
  }
  let best = 0
  let ties = 1
  for (let i = 1; i < totals.length; i++) {
    const difference = (totals[i] ?? 0) - (totals[best] ?? 0)
    if (difference > 0) {
      best = i
      ties = 1
    } else if (difference === 0 && random() * ++ties < 1) best = i
  }
  const node = nodes[best]
  if (node === undefined) throw new Error('Cannot choose among no nodes')
  return node
}
