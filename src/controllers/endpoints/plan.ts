import { isDeepStrictEqual } from 'node:util'
import { headlessLabel } from '#api/discovery/labels.ts'
import type { EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service } from '#api/gen/core-v1.ts'
import { compareText } from '#base/order.ts'
import type { Draft } from '#client/client.ts'
import {
  addressOf,
  familiesOf,
  hostnameOf,
  isHeadless,
  mayServe,
  portOf,
  triggerAnnotation,
} from '../endpoint-slice/service-pods.ts'
import { isReady } from '../workload/pod-state.ts'

const addressesMax = 1000
const capacityAnnotation = 'endpoints.kubernetes.io/over-capacity'
export const managedByLabel = 'endpoints.kubernetes.io/managed-by'
export const managedBy = 'endpoint-controller'

export interface View {
  readonly service: Service
  readonly pods: readonly Pod[]
  readonly present: Endpoints | undefined
  readonly triggerTime: string | undefined
}

export type Action =
  | { readonly do: 'create'; readonly endpoints: Draft<Endpoints> }
  | { readonly do: 'update'; readonly endpoints: Endpoints }

/** The one write that brings the Endpoints object to the Service's pods; undefined when it is as it should be. */
export function planEndpoints({ service, pods, present, triggerTime }: View): Action | undefined {
  const all = subsetsOf(service, pods)
  const { subsets, isTruncated } = truncate(all)
  const labels = labelsFor(service)
  const annotations: Record<string, string> = { ...present?.metadata.annotations }
  const wasTruncated = annotations[capacityAnnotation] !== undefined
  if (
    present !== undefined &&
    wasTruncated === isTruncated &&
    isDeepStrictEqual(present.subsets ?? [], subsets) &&
    isDeepStrictEqual(present.metadata.labels ?? {}, labels)
  )
    return undefined
  delete annotations[capacityAnnotation]
  delete annotations[triggerAnnotation]
  if (isTruncated) annotations[capacityAnnotation] = 'truncated'
  if (triggerTime !== undefined) annotations[triggerAnnotation] = triggerTime
  if (present !== undefined)
    return { do: 'update', endpoints: { ...present, metadata: { ...present.metadata, labels, annotations }, subsets } }
  const { name, namespace } = service.metadata
  return { do: 'create', endpoints: { metadata: { name, namespace, labels, annotations }, subsets } }
}

interface Entry {
  readonly address: EndpointAddress
  readonly isReady: boolean
  readonly ports: readonly EndpointPort[]
}

/** Addresses grouped by the ports they have; all of it in a fixed order, so that the same pods give the same text. */
function subsetsOf(service: Service, pods: readonly Pod[]): EndpointSubset[] {
  const groups = new Map<string, Entry[]>()
  for (const pod of pods) {
    const entry = entryOf(service, pod)
    if (entry === undefined) continue
    const key = JSON.stringify(entry.ports)
    groups.set(key, [...(groups.get(key) ?? []), entry])
  }
  return [...groups]
    .toSorted(([a], [b]) => compareText(a, b))
    .map(([, entries]) => {
      const sorted = entries.toSorted((a, b) => compareText(a.address.ip, b.address.ip))
      const ready = sorted.filter((e) => e.isReady).map((e) => e.address)
      const notReady = sorted.filter((e) => !e.isReady).map((e) => e.address)
      const ports = [...(entries[0]?.ports ?? [])]
      return {
        ...(ready.length === 0 ? {} : { addresses: ready }),
        ...(notReady.length === 0 ? {} : { notReadyAddresses: notReady }),
        ...(ports.length === 0 ? {} : { ports }),
      }
    })
}

function entryOf(service: Service, pod: Pod): Entry | undefined {
  const { publishNotReadyAddresses = false, ports = [] } = service.spec
  // There is no word for a pod on its way out here; only who wants them all gets those too.
  if (!mayServe(pod) || (pod.metadata.deletionTimestamp !== undefined && !publishNotReadyAddresses)) return undefined
  const [family = 'IPv4'] = familiesOf(service)
  const ip = addressOf(pod, family)
  if (ip === undefined) return undefined
  const found = ports.flatMap((port): EndpointPort[] => {
    const number = portOf(pod, port)
    if (number === undefined) return []
    const { name, protocol = 'TCP', appProtocol } = port
    return [
      {
        ...(name === undefined || name === '' ? {} : { name }),
        port: number,
        protocol,
        ...(appProtocol === undefined ? {} : { appProtocol }),
      },
    ]
  })
  // Only a headless Service may go without ports.
  if (found.length === 0 && !(ports.length === 0 && isHeadless(service))) return undefined
  const hostname = hostnameOf(pod, service)
  const { name, namespace, uid } = pod.metadata
  return {
    address: {
      ip,
      ...(hostname === undefined ? {} : { hostname }),
      ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
      targetRef: { kind: 'Pod', namespace, name, uid },
    },
    isReady: publishNotReadyAddresses || isReady(pod),
    ports: found.toSorted((a, b) => compareText(JSON.stringify(a), JSON.stringify(b))),
  }
}

/** At most 1000 addresses, shared between the subsets in proportion; ready ones before those that are not. */
function truncate(subsets: readonly EndpointSubset[]): { subsets: EndpointSubset[]; isTruncated: boolean } {
  const count = (field: 'addresses' | 'notReadyAddresses'): number =>
    subsets.reduce((sum, subset) => sum + (subset[field]?.length ?? 0), 0)
  const ready = count('addresses')
  const notReady = count('notReadyAddresses')
  if (ready + notReady <= addressesMax) return { subsets: [...subsets], isTruncated: false }
  const field = ready > addressesMax ? 'addresses' : 'notReadyAddresses'
  const room = field === 'addresses' ? addressesMax : addressesMax - ready
  const total = field === 'addresses' ? ready : notReady
  let left = room
  const cut = subsets.map((subset): EndpointSubset => {
    const own = subset[field] ?? []
    const share = Math.min(left, Math.ceil((own.length / total) * room), own.length)
    left -= share
    const { notReadyAddresses: _, ...rest } = subset
    const base: EndpointSubset = field === 'addresses' ? rest : subset
    return { ...base, [field]: own.slice(0, share) }
  })
  return { subsets: cut, isTruncated: true }
}

function labelsFor(service: Service): Record<string, string> {
  const labels: Record<string, string> = { ...service.metadata.labels, [managedByLabel]: managedBy }
  if (isHeadless(service)) labels[headlessLabel] = ''
  else delete labels[headlessLabel]
  return labels
}
