import type { Node, Pod } from '#api/gen/core-v1.ts'
import { requiredNodeTest } from '#api/placement/node-affinity.ts'
import { resourcesOf } from '#api/placement/requests.ts'
import { untoleratedTaint } from '#api/placement/taints.ts'
import { conflicts, hostPorts } from './host-ports.ts'
import { missingOn } from './plugins/node-resources-fit.ts'
import type { NodeInfo, PodInfo } from './snapshot.ts'

/** Something that happened in the cluster and may make room for a pod that waits. */
export type ClusterEvent =
  | { readonly what: 'node-changed'; readonly node: Node; readonly old: Node | undefined }
  | { readonly what: 'node-removed' }
  /** A pod has its node now, or other labels. */
  | { readonly what: 'pod-placed'; readonly pod: Pod }
  /** A pod has left its node, or ended there; `node` as it is without it, undefined when it is gone too. */
  | { readonly what: 'pod-gone'; readonly pod: Pod; readonly node: NodeInfo | undefined }

type Hint = (info: PodInfo, event: ClusterEvent) => boolean

const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a ?? null) !== JSON.stringify(b ?? null)

/** A new node, or one of which something changed that `pick` picks. */
const nodeIsNews = (event: ClusterEvent, pick: (node: Node) => unknown): event is ClusterEvent & { node: Node } =>
  event.what === 'node-changed' && (event.old === undefined || differs(pick(event.node), pick(event.old)))

const anyPod = ({ what }: ClusterEvent): boolean => what === 'pod-placed' || what === 'pod-gone'
const labels = ({ metadata }: Node): unknown => metadata.labels
const taints = ({ spec }: Node): unknown => spec.taints

/** By plugin: whether the event may turn its no into a yes. Plugins that are not here wait for a change of the pod. */
const hints: Readonly<Record<string, Hint>> = {
  NodeUnschedulable: (_, event) =>
    nodeIsNews(event, ({ spec }) => spec.unschedulable) && event.node.spec.unschedulable !== true,
  NodeName: ({ pod }, event) =>
    event.what === 'node-changed' && event.old === undefined && event.node.metadata.name === pod.spec.nodeName,
  TaintToleration: ({ pod }, event) =>
    nodeIsNews(event, taints) && untoleratedTaint(event.node.spec.taints, pod.spec.tolerations) === undefined,
  NodeAffinity: ({ pod }, event) => nodeIsNews(event, labels) && (requiredNodeTest(pod.spec)?.(event.node) ?? true),
  NodePorts: ({ ports }, event) =>
    (event.what === 'node-changed' && event.old === undefined) ||
    (event.what === 'pod-gone' && hostPorts(event.pod.spec).some((used) => ports.some((p) => conflicts(p, used)))),
  NodeResourcesFit: (info, event) => {
    // What was freed can only help where it was freed. Asked exactly: thousands may wait while small pods come and go.
    if (event.what === 'pod-gone') return event.node !== undefined && missingOn(event.node, info) === undefined
    if (!nodeIsNews(event, ({ status }) => status.allocatable)) return false
    const allocatable = resourcesOf(event.node.status.allocatable)
    return [...info.requests].every(([name, value]) => value <= (allocatable.get(name) ?? 0))
  },
  PodTopologySpread: ({ pod }, event) =>
    anyPod(event)
      ? 'pod' in event && event.pod.metadata.namespace === pod.metadata.namespace
      : event.what === 'node-removed' || nodeIsNews(event, (node) => [labels(node), taints(node)]),
  InterPodAffinity: (_, event) => anyPod(event) || nodeIsNews(event, labels),
}

/** Whether a pod that `rejectedBy` said no to should be tried again because of the event. */
export function mayHelp(info: PodInfo, rejectedBy: ReadonlySet<string>, event: ClusterEvent): boolean {
  // Without any node nobody was asked.
  if (rejectedBy.size === 0) return event.what === 'node-changed'
  for (const name of rejectedBy) if (hints[name]?.(info, event) === true) return true
  return false
}
