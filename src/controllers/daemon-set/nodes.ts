import type { DaemonSet } from '#api/gen/apps-v1.ts'
import type {
  Affinity,
  Node,
  NodeSelectorRequirement,
  Pod,
  PodSpec,
  PodTemplateSpec,
  Toleration,
} from '#api/gen/core-v1.ts'
import { requiredNodeTest } from '#api/placement/node-affinity.ts'
import { isTolerated, untoleratedTaint } from '#api/placement/taints.ts'

/** On which nodes a DaemonSet's pods belong, and how a pod is tied to its node. */

export const hashLabel = 'controller-revision-hash'
const generationLabel = 'pod-template-generation'
const generationAnnotation = 'deprecated.daemonset.template.generation'

const exists = (key: string, effect: NonNullable<Toleration['effect']>): Toleration => ({
  key: `node.kubernetes.io/${key}`,
  operator: 'Exists',
  effect,
})

/** What every daemon puts up with: it may be what mends the node. */
const daemonTolerations = [
  exists('not-ready', 'NoExecute'),
  exists('unreachable', 'NoExecute'),
  exists('disk-pressure', 'NoSchedule'),
  exists('memory-pressure', 'NoSchedule'),
  exists('pid-pressure', 'NoSchedule'),
  exists('unschedulable', 'NoSchedule'),
]
const hostNetworkToleration = exists('network-unavailable', 'NoSchedule')

function tolerationsOf({ tolerations = [], hostNetwork }: PodSpec): Toleration[] {
  const added = hostNetwork === true ? [...daemonTolerations, hostNetworkToleration] : daemonTolerations
  const isSame = (a: Toleration, b: Toleration): boolean =>
    a.key === b.key && a.operator === b.operator && a.effect === b.effect && a.value === b.value
  return [...tolerations.filter((own) => !added.some((t) => isSame(t, own))), ...added]
}

export interface Eligibility {
  /** A pod belongs there. */
  readonly shouldRun: boolean
  /** A pod that is there may stay. */
  readonly mayStay: boolean
}

const nowhere: Eligibility = { shouldRun: false, mayStay: false }

/** Judges nodes for a DaemonSet; what depends on the set alone is computed once. */
export function eligibilityFor({ spec }: DaemonSet): (node: Node) => Eligibility {
  const pod = spec.template.spec
  const tolerations = tolerationsOf(pod)
  const fits = requiredNodeTest(pod)
  return (node) => {
    if (pod.nodeName !== undefined && pod.nodeName !== '' && pod.nodeName !== node.metadata.name) return nowhere
    if (fits !== undefined && !fits(node)) return nowhere
    const { taints = [] } = node.spec
    if (untoleratedTaint(taints, tolerations) === undefined) return { shouldRun: true, mayStay: true }
    const isEvicted = taints.some((taint) => taint.effect === 'NoExecute' && !isTolerated(taint, tolerations))
    return { shouldRun: false, mayStay: !isEvicted }
  }
}

/** The set's template for one node: the scheduler binds the pod there, nowhere else, and sees it as any other. */
export function templateFor(set: DaemonSet, hash: string, nodeName: string): PodTemplateSpec {
  const { template } = set.spec
  const generation = set.metadata.annotations?.[generationAnnotation]
  return {
    metadata: {
      ...template.metadata,
      labels: {
        ...template.metadata?.labels,
        [hashLabel]: hash,
        ...(generation === undefined ? {} : { [generationLabel]: generation }),
      },
    },
    spec: {
      ...template.spec,
      tolerations: tolerationsOf(template.spec),
      affinity: tiedTo(template.spec.affinity, nodeName),
    },
  }
}

/** The node's name in every alternative of the required node affinity, in place of what fields were asked for. */
function tiedTo(affinity: Affinity | undefined, nodeName: string): Affinity {
  const isNode: NodeSelectorRequirement = { key: 'metadata.name', operator: 'In', values: [nodeName] }
  const nodeAffinity = affinity?.nodeAffinity
  const terms = nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? []
  const tied = (terms.length === 0 ? [{}] : terms).map((term) => ({ ...term, matchFields: [isNode] }))
  return {
    ...affinity,
    nodeAffinity: { ...nodeAffinity, requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: tied } },
  }
}

/** The node a daemon's pod is on, or is meant for. */
export function targetOf({ spec }: Pod): string | undefined {
  if (spec.nodeName !== undefined && spec.nodeName !== '') return spec.nodeName
  const terms = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? []
  for (const { matchFields = [] } of terms)
    for (const { key, operator, values = [] } of matchFields)
      if (key === 'metadata.name' && operator === 'In' && values.length === 1) return values[0]
  return undefined
}

/** Made of the present template: by the revision's hash, or by the generation that older clients count. */
export function isUpdated(set: DaemonSet, pod: Pod, hashes: ReadonlySet<string>): boolean {
  const labels = pod.metadata.labels ?? {}
  const generation = set.metadata.annotations?.[generationAnnotation]
  return hashes.has(labels[hashLabel] ?? '') || (generation !== undefined && labels[generationLabel] === generation)
}
