import { headlessLabel, serviceNameLabel } from '#api/discovery/labels.ts'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointHints, EndpointPort, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { services } from '#api/gen/resources.ts'
import { isReady } from '../workload/pod-state.ts'
import { type Action, addToGroup, type Group, inSafeOrder, type Making, managedByLabel, planGroups } from './pack.ts'
import {
  addressOf,
  type Family,
  familiesOf,
  hostnameOf,
  isHeadless,
  mayServe,
  portOf,
  triggerAnnotation,
} from './service-pods.ts'

export const managedBy = 'endpointslice-controller.k8s.io'

/** What is known of a node; undefined when there is no such node. */
export type NodeZone = (name: string) => { readonly zone: string | undefined } | undefined

export interface View {
  readonly service: Service
  /** All that its selector selects. */
  readonly pods: readonly Pod[]
  readonly nodeZone: NodeZone
  /** Slices of the Service that are ours by label. */
  readonly slices: readonly EndpointSlice[]
  /** For the annotation on every slice that is written. */
  readonly triggerTime: string | undefined
}

/** The writes that bring a Service's slices to its pods. */
export function planSlices(view: View): Action[] {
  const { service, slices, triggerTime } = view
  const families = familiesOf(service)
  const making: Making = {
    owner: service,
    ownerResource: services,
    labels: labelsFor(service),
    annotate({ [triggerAnnotation]: _, ...rest }) {
      return triggerTime === undefined ? rest : { ...rest, [triggerAnnotation]: triggerTime }
    },
    placeholder: true,
  }
  const actions = families.flatMap((family) =>
    planGroups(
      making,
      family,
      desiredGroups(view, family),
      slices.filter((s) => s.addressType === family),
    ),
  )
  for (const slice of slices) if (!families.includes(slice.addressType as Family)) actions.push({ do: 'delete', slice })
  return inSafeOrder(actions)
}

/** Endpoints by the set of ports they have: a named port may have another number in every pod. */
function desiredGroups({ service, pods, nodeZone }: View, family: Family): Map<string, Group> {
  const groups = new Map<string, Group>()
  for (const pod of pods) {
    const address = addressOf(pod, family)
    if (address === undefined || !mayServe(pod)) continue
    const nodeName = pod.spec.nodeName ?? ''
    const node = nodeZone(nodeName)
    // A pod whose node is gone serves nobody, whatever its status still says.
    if (node === undefined && service.spec.publishNotReadyAddresses !== true) continue
    addToGroup(groups, portsFor(service, pod), endpointOf(service, pod, address, nodeName, node?.zone))
  }
  return groups
}

function portsFor(service: Service, pod: Pod): EndpointPort[] {
  return (service.spec.ports ?? []).flatMap((port) => {
    const number = portOf(pod, port)
    if (number === undefined) return []
    const { name = '', protocol = 'TCP', appProtocol } = port
    return [{ name, port: number, protocol, ...(appProtocol === undefined ? {} : { appProtocol }) }]
  })
}

function endpointOf(service: Service, pod: Pod, address: string, nodeName: string, zone: string | undefined): Endpoint {
  const serving = isReady(pod)
  const terminating = pod.metadata.deletionTimestamp !== undefined
  const hostname = hostnameOf(pod, service)
  const ready = service.spec.publishNotReadyAddresses === true || (serving && !terminating)
  const hints = ready ? hintsFor(service, nodeName, zone) : undefined
  return {
    addresses: [address],
    conditions: {
      ready,
      serving,
      terminating,
    },
    ...(hostname === undefined ? {} : { hostname }),
    targetRef: {
      kind: 'Pod',
      namespace: pod.metadata.namespace,
      name: pod.metadata.name,
      uid: pod.metadata.uid,
    },
    ...(nodeName === '' ? {} : { nodeName }),
    ...(zone === undefined ? {} : { zone }),
    ...(hints === undefined ? {} : { hints }),
  }
}

/** Whom an endpoint is for, where the Service prefers what is near (KEP-4444, KEP-3015). */
function hintsFor({ spec }: Service, nodeName: string, zone: string | undefined): EndpointHints | undefined {
  const forZones = zone === undefined || zone === '' ? {} : { forZones: [{ name: zone }] }
  switch (spec.trafficDistribution) {
    case 'PreferClose':
    case 'PreferSameZone':
      return 'forZones' in forZones ? forZones : undefined
    case 'PreferSameNode':
      return nodeName === '' ? undefined : { ...forZones, forNodes: [{ name: nodeName }] }
    default:
      return undefined
  }
}

/** The Service's own labels, and those by which slices are found. */
function labelsFor(service: Service): Record<string, string> {
  const labels: Record<string, string> = { ...service.metadata.labels }
  delete labels[headlessLabel]
  if (isHeadless(service)) labels[headlessLabel] = ''
  return { ...labels, [serviceNameLabel]: service.metadata.name, [managedByLabel]: managedBy }
}
