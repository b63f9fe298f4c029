import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { Service as KubeService, ServicePort } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { type Backend, frontendName, type Protocol, type Service } from '#datapath/datapath.ts'

/** `namespace/name` of its Service; none for a slice that belongs to none. */
export const serviceOfSlice = ({ metadata }: EndpointSlice): readonly string[] => {
  const name = metadata.labels?.[serviceNameLabel]
  return name === undefined || name === '' ? [] : [`${metadata.namespace}/${name}`]
}

/**
 * What a Service and its slices come to in the kernel: one row for each of its cluster addresses and ports. Pure.
 * Headless Services and ExternalName have no address of their own and none here; SCTP has no sockets to hook.
 */
export function reflectService(service: KubeService, slices: readonly EndpointSlice[]): Service[] {
  const { clusterIPs, clusterIP, type, ports = [] } = service.spec
  if (type === 'ExternalName') return []
  const addresses = (clusterIPs ?? (clusterIP === undefined ? [] : [clusterIP])).filter((a) => a !== '' && a !== 'None')
  return addresses.flatMap((address) => {
    const family = address.includes(':') ? 'IPv6' : 'IPv4'
    const ofFamily = slices.filter((slice) => slice.addressType === family)
    return ports.flatMap((port): Service[] => {
      const protocol = port.protocol ?? 'TCP'
      if (protocol === 'SCTP') return []
      return [{ frontend: { address, port: port.port, protocol }, backends: backendsOf(port, protocol, ofFamily) }]
    })
  })
}

interface Candidate {
  readonly backend: Backend
  readonly ready: boolean
  /** Going, but still answering. */
  readonly draining: boolean
}

/** Ready endpoints; only where there is none, those that are going but still serve (KEP-1669). In a stable order. */
function backendsOf(port: ServicePort, protocol: Protocol, slices: readonly EndpointSlice[]): Backend[] {
  const found = slices.flatMap((slice) => candidates(slice, port, protocol))
  const ready = found.filter((c) => c.ready)
  const chosen = ready.length > 0 ? ready : found.filter((c) => c.draining)
  // An endpoint may for a while be in two slices, on its way from one to the other.
  const byName = new Map(chosen.map(({ backend }) => [frontendName(backend), backend]))
  return [...byName].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, backend]) => backend)
}

/** A slice's port belongs to the Service's port of the same name and protocol; its number is the resolved target port. */
function candidates(slice: EndpointSlice, { name = '' }: ServicePort, protocol: Protocol): Candidate[] {
  return (slice.ports ?? []).flatMap((port) => {
    if ((port.name ?? '') !== name || (port.protocol ?? 'TCP') !== protocol || port.port === undefined) return []
    const number = port.port
    return (slice.endpoints ?? []).flatMap(({ addresses, conditions }) => {
      // All addresses of an endpoint are one; consumers take the first.
      const [address] = addresses
      if (address === undefined) return []
      // Absent means unknown: ready is then taken to be true, serving what ready is, terminating false.
      const ready = conditions?.ready ?? true
      const draining = (conditions?.serving ?? ready) && (conditions?.terminating ?? false)
      return [{ backend: { address, port: number, protocol }, ready, draining }]
    })
  })
}
