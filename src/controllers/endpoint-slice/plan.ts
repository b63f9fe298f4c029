import type { Pod, Service } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointPort, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { services } from '#api/gen/resources.ts'
import { controllerReference, isControlledBy } from '#api/meta/owner.ts'
import type { Draft } from '#client/client.ts'
import { isReady } from '../workload/pod-state.ts'
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

export const serviceNameLabel = 'kubernetes.io/service-name'
export const managedByLabel = 'endpointslice.kubernetes.io/managed-by'
export const headlessLabel = 'service.kubernetes.io/headless'
export const managedBy = 'endpointslice-controller.k8s.io'

const endpointsPerSliceMax = 100

export type Action =
  | { readonly do: 'create'; readonly slice: Draft<EndpointSlice> }
  | { readonly do: 'update'; readonly slice: EndpointSlice }
  | { readonly do: 'delete'; readonly slice: EndpointSlice }

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

/** The writes that bring a Service's slices to its pods: as few as can be, for every write goes to every node. */
export function planSlices(view: View): Action[] {
  const families = familiesOf(view.service)
  const actions: Action[] = []
  for (const family of families) {
    actions.push(
      ...planFamily(
        view,
        family,
        view.slices.filter((s) => s.addressType === family),
      ),
    )
  }
  for (const slice of view.slices)
    if (!families.includes(slice.addressType as Family)) actions.push({ do: 'delete', slice })
  // New before changed before old: an endpoint that moves between slices is in both for a moment, never in none.
  const order = { create: 0, update: 1, delete: 2 }
  return actions.toSorted((a, b) => order[a.do] - order[b.do])
}

interface Group {
  readonly ports: readonly EndpointPort[]
  /** Endpoints by identity. */
  readonly endpoints: Map<string, Endpoint>
}

function planFamily(view: View, family: Family, slices: readonly EndpointSlice[]): Action[] {
  const { service } = view
  const groups = desiredGroups(view, family)
  const present = new Map<string, EndpointSlice[]>()
  const doomed: EndpointSlice[] = []
  for (const slice of slices) {
    const key = portsKey(slice.ports ?? [])
    if (!isControlledBy(slice, service)) doomed.push(slice)
    else if (!groups.has(key)) doomed.push(slice)
    else present.set(key, [...(present.get(key) ?? []), slice])
  }
  const packed: Packed[] = []
  for (const [key, group] of groups) {
    const { kept, emptied } = pack(group, present.get(key) ?? [])
    packed.push(...kept)
    doomed.push(...emptied)
  }
  // Clients tell "no endpoints" from "not looked at yet" by there being a slice.
  if (packed.length === 0) packed.push(placeholder(doomed))
  return writes(view, family, packed, doomed)
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
    const ports = portsFor(service, pod)
    const key = portsKey(ports)
    let group = groups.get(key)
    if (group === undefined) {
      group = { ports, endpoints: new Map() }
      groups.set(key, group)
    }
    const endpoint = endpointOf(service, pod, address, nodeName, node?.zone)
    group.endpoints.set(identity(endpoint), endpoint)
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

const portsKey = (ports: readonly EndpointPort[]): string =>
  ports
    .map(({ name = '', port, protocol = 'TCP', appProtocol = '' }) => `${name}|${port}|${protocol}|${appProtocol}`)
    .toSorted()
    .join(',')

function endpointOf(service: Service, pod: Pod, address: string, nodeName: string, zone: string | undefined): Endpoint {
  const serving = isReady(pod)
  const terminating = pod.metadata.deletionTimestamp !== undefined
  const hostname = hostnameOf(pod, service)
  return {
    addresses: [address],
    conditions: {
      ready: service.spec.publishNotReadyAddresses === true || (serving && !terminating),
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
  }
}

const identity = ({ addresses, targetRef }: Endpoint): string => `${targetRef?.uid ?? ''}/${addresses.join()}`

const sameEndpoint = (a: Endpoint, b: Endpoint): boolean =>
  a.conditions.ready === b.conditions.ready &&
  a.conditions.serving === b.conditions.serving &&
  a.conditions.terminating === b.conditions.terminating &&
  a.hostname === b.hostname &&
  a.nodeName === b.nodeName &&
  a.zone === b.zone &&
  a.hints === undefined

/** A slice as it is to be: `from` is what it is made of, undefined for a new one. */
interface Packed {
  readonly ports: readonly EndpointPort[]
  readonly endpoints: readonly Endpoint[]
  readonly from: EndpointSlice | undefined
  readonly changed: boolean
}

/**
 * Keeps every endpoint in the slice where it is. New ones fill slices that are written anyway; what is left goes into
 * one untouched slice if it fits there whole, else into new slices.
 */
function pack(group: Group, slices: readonly EndpointSlice[]): { kept: Packed[]; emptied: EndpointSlice[] } {
  const missing = new Map(group.endpoints)
  const open: { from: EndpointSlice | undefined; endpoints: Endpoint[]; changed: boolean }[] = []
  const emptied: EndpointSlice[] = []
  for (const slice of slices) {
    const endpoints: Endpoint[] = []
    let changed = false
    for (const old of slice.endpoints ?? []) {
      const key = identity(old)
      const next = missing.get(key)
      if (next === undefined) {
        changed = true
        continue
      }
      missing.delete(key)
      endpoints.push(next)
      if (!sameEndpoint(old, next)) changed = true
    }
    if (endpoints.length === 0) emptied.push(slice)
    else open.push({ from: slice, endpoints, changed })
  }
  const left = [...missing.values()]
  const fill = (endpoints: Endpoint[]): void => {
    endpoints.push(...left.splice(0, Math.max(0, endpointsPerSliceMax - endpoints.length)))
  }
  for (const slice of open) if (slice.changed) fill(slice.endpoints)
  while (left.length > 0) {
    // The fullest that takes all of it: room stays in one piece.
    const roomy = open
      .filter(({ endpoints }) => endpoints.length + left.length <= endpointsPerSliceMax)
      .toSorted((a, b) => b.endpoints.length - a.endpoints.length)[0]
    if (roomy !== undefined) {
      roomy.changed = true
      fill(roomy.endpoints)
      continue
    }
    const endpoints: Endpoint[] = []
    fill(endpoints)
    // An emptied slice is written over rather than deleted beside a new one.
    open.push({ from: emptied.pop(), endpoints, changed: true })
  }
  return { kept: open.map((slice) => ({ ...slice, ports: group.ports })), emptied }
}

/** A slice without endpoints, made of one that would be deleted if there is one. */
function placeholder(doomed: EndpointSlice[]): Packed {
  const same = doomed.findIndex((s) => (s.endpoints ?? []).length === 0 && (s.ports ?? []).length === 0)
  const [from] = doomed.splice(Math.max(0, same), 1)
  return { ports: [], endpoints: [], from, changed: same < 0 }
}

function writes(view: View, family: Family, packed: readonly Packed[], doomed: readonly EndpointSlice[]): Action[] {
  const { service, triggerTime } = view
  const spare = [...doomed]
  const actions: Action[] = []
  const labels = labelsFor(service)
  for (const { ports, endpoints, from = spare.pop(), changed } of packed) {
    const isOwned = from !== undefined && isControlledBy(from, service)
    if (from !== undefined && isOwned && !changed && sameLabels(from.metadata.labels, labels)) continue
    const annotations: Record<string, string> = { ...(isOwned ? from?.metadata.annotations : {}) }
    delete annotations[triggerAnnotation]
    if (triggerTime !== undefined) annotations[triggerAnnotation] = triggerTime
    const content = { addressType: family, ports: [...ports], endpoints: [...endpoints] }
    if (from !== undefined && isOwned) {
      actions.push({
        do: 'update',
        slice: { ...from, metadata: { ...from.metadata, labels, annotations }, ...content },
      })
    } else {
      if (from !== undefined) actions.push({ do: 'delete', slice: from })
      actions.push({ do: 'create', slice: { metadata: metaFor(service, labels, annotations), ...content } })
    }
  }
  for (const slice of spare) actions.push({ do: 'delete', slice })
  return actions
}

const metaFor = (service: Service, labels: Record<string, string>, annotations: Record<string, string>) => ({
  generateName: `${service.metadata.name}-`,
  namespace: service.metadata.namespace,
  labels,
  annotations,
  ownerReferences: [controllerReference(services, service)],
})

/** The Service's own labels, and those by which slices are found. */
function labelsFor(service: Service): Record<string, string> {
  const labels: Record<string, string> = { ...service.metadata.labels }
  delete labels[headlessLabel]
  if (isHeadless(service)) labels[headlessLabel] = ''
  return { ...labels, [serviceNameLabel]: service.metadata.name, [managedByLabel]: managedBy }
}

function sameLabels(a: Readonly<Record<string, string>> | undefined, b: Readonly<Record<string, string>>): boolean {
  const keys = Object.keys(b)
  return a !== undefined && Object.keys(a).length === keys.length && keys.every((key) => a[key] === b[key])
}
