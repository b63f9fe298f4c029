import type { Pod, TopologySpreadConstraint } from '#api/gen/core-v1.ts'
import { type Selector, selectorFrom } from '#api/meta/selector.ts'
import { type NodeTest, requiredNodeTest } from '#api/placement/node-affinity.ts'
import { untoleratedTaint } from '#api/placement/taints.ts'
import { withLabelsOf } from '../label-keys.ts'
import { type Judge, type PlanContext, type Plugin, scoreMax } from '../plugin.ts'
import type { NodeInfo, PodCount, PodInfo } from '../snapshot.ts'

const hostname = 'kubernetes.io/hostname'
const zone = 'topology.kubernetes.io/zone'
const spreadReasons = ["node(s) didn't match pod topology spread constraints"]
const labelReasons = ["node(s) didn't match pod topology spread constraints (missing required label)"]

interface Constraint {
  readonly key: string
  readonly maxSkew: number
  readonly minDomains: number
  readonly pods: PodCount
  /** 1 when the pod itself will be counted once it is placed. */
  readonly self: number
  /** Whether the node's pods are counted: by default only nodes that the pod's affinity allows. */
  readonly counts: NodeTest
}

/** Spreads like pods over domains: a bound on the difference, and a preference. */
export const podTopologySpread: Plugin = {
  name: 'PodTopologySpread',
  weight: 2,
  judge(info, context) {
    const own = info.pod.spec.topologySpreadConstraints ?? []
    const hard = own.filter((c) => c.whenUnsatisfiable === 'DoNotSchedule').map((c) => compile(info, c, context))
    const soft =
      own.length > 0
        ? own.filter((c) => c.whenUnsatisfiable === 'ScheduleAnyway').map((c) => compile(info, c, context))
        : defaults(info, context)
    if (hard.length + soft.length === 0) return undefined
    const { nodes } = context.snapshot
    return {
      ...(hard.length === 0 ? {} : { filter: hardFilter(hard, nodes) }),
      ...(soft.length === 0 ? {} : softScore(soft, nodes, own.length > 0)),
    }
  },
}

function compile({ pod }: PodInfo, constraint: TopologySpreadConstraint, { snapshot }: PlanContext): Constraint {
  const { topologyKey, maxSkew, minDomains = 1 } = constraint
  const merged = withLabelsOf(pod, constraint)
  const selector = selectorFrom(merged)
  return {
    key: topologyKey,
    maxSkew,
    minDomains,
    pods: snapshot.count(pod.metadata.namespace, JSON.stringify(merged ?? null), selector),
    self: selector.matches(pod.metadata.labels) ? 1 : 0,
    counts: nodeTest(pod, constraint),
  }
}

function nodeTest(
  { spec }: Pod,
  { nodeAffinityPolicy, nodeTaintsPolicy }: Partial<TopologySpreadConstraint>,
): NodeTest {
  const required = nodeAffinityPolicy === 'Ignore' ? undefined : requiredNodeTest(spec)
  return (node) =>
    (required === undefined || required(node)) &&
    (nodeTaintsPolicy !== 'Honor' || untoleratedTaint(node.spec.taints, spec.tolerations) === undefined)
}

/** For pods that say nothing: loosely over hosts and zones, by what their Services and controller select. */
function defaults(info: PodInfo, context: PlanContext): Constraint[] {
  const found = context.defaultSelector(info)
  if (found === undefined) return []
  const { pod } = info
  const selector: Selector = found.selector
  const pods = context.snapshot.count(pod.metadata.namespace, found.id, selector)
  const self = selector.matches(pod.metadata.labels) ? 1 : 0
  const counts = nodeTest(pod, {})
  return [
    { key: hostname, maxSkew: 3, minDomains: 1, pods, self, counts },
    { key: zone, maxSkew: 5, minDomains: 1, pods, self, counts },
  ]
}

const domainOf = ({ node }: NodeInfo, key: string): string | undefined => node?.metadata.labels?.[key]

const hasAllKeys = (node: NodeInfo, constraints: readonly Constraint[]): boolean =>
  constraints.every(({ key }) => domainOf(node, key) !== undefined)

function hardFilter(constraints: readonly Constraint[], nodes: readonly NodeInfo[]): NonNullable<Judge['filter']> {
  const eligible = nodes.filter((node) => hasAllKeys(node, constraints))
  const rules = constraints.map((constraint) => {
    const domains = countDomains(constraint, eligible)
    const least = domains.size < constraint.minDomains ? 0 : Math.min(...domains.values())
    return { constraint, domains, least: domains.size === 0 ? 0 : least }
  })
  return (node) => {
    for (const { constraint, domains, least } of rules) {
      const domain = domainOf(node, constraint.key)
      if (domain === undefined) return labelReasons
      const skew = (domains.get(domain) ?? 0) + constraint.self - least
      if (skew > constraint.maxSkew) return spreadReasons
    }
    return undefined
  }
}

function countDomains({ key, pods, counts }: Constraint, nodes: readonly NodeInfo[]): Map<string, number> {
  const domains = new Map<string, number>()
  for (const info of nodes) {
    const domain = domainOf(info, key)
    if (domain === undefined || info.node === undefined || !counts(info.node)) continue
    domains.set(domain, (domains.get(domain) ?? 0) + (pods.byNode.get(info.name) ?? 0))
  }
  return domains
}

function softScore(
  constraints: readonly Constraint[],
  all: readonly NodeInfo[],
  requireAllKeys: boolean,
): Pick<Judge, 'prepareScores' | 'score' | 'normalize'> {
  let rules: { constraint: Constraint; domains: Map<string, number> | undefined; weight: number }[] = []
  let ignored: boolean[] = []
  return {
    prepareScores(nodes) {
      ignored = nodes.map((node) => requireAllKeys && !hasAllKeys(node, constraints))
      const taking = nodes.filter((_, i) => ignored[i] === false)
      const counted = requireAllKeys ? all.filter((node) => hasAllKeys(node, constraints)) : all
      rules = constraints.map((constraint) => {
        const isHost = constraint.key === hostname
        const domains = isHost ? undefined : countDomains(constraint, counted)
        const size = isHost ? taking.length : new Set(taking.map((n) => domainOf(n, constraint.key) ?? '')).size
        return { constraint, domains, weight: Math.log(size + 2) }
      })
    },
    score(node) {
      if (requireAllKeys && !hasAllKeys(node, constraints)) return 0
      let score = 0
      for (const { constraint, domains, weight } of rules) {
        const domain = domainOf(node, constraint.key)
        if (domain === undefined) continue
        const count = domains === undefined ? (constraint.pods.byNode.get(node.name) ?? 0) : (domains.get(domain) ?? 0)
        score += count * weight + (constraint.maxSkew - 1)
      }
      return Math.round(score)
    },
    normalize(scores) {
      const real = scores.filter((_, i) => ignored[i] === false)
      const max = Math.max(0, ...real)
      const min = Math.min(...real, Number.MAX_SAFE_INTEGER)
      for (const [i, score] of scores.entries()) {
        if (ignored[i] === true) scores[i] = 0
        else scores[i] = max === 0 ? scoreMax : Math.floor((scoreMax * (max + min - score)) / max)
      }
    },
  }
}
