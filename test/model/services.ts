import { contains, familyOf } from './address.ts'
import { type Cluster, type Endpoint, protocolNumbers, type Service, type ServicePort } from './cluster.ts'
import type { Reason } from './reasons.ts'

/** Services (core/v1): which of them an address and port is, and who may answer. */

/** From a pod or node of the cluster, or from elsewhere. */
export type Side = 'inside' | 'outside'

export interface Asker {
  readonly side: Side
  readonly source: string
  /** The node that is asked. */
  readonly node: string
}

export type Found =
  | { readonly kind: 'none' }
  | { readonly kind: 'refused'; readonly reason: Reason; readonly service?: Service }
  | {
      readonly kind: 'found'
      readonly service: Service
      readonly port: ServicePort
      /** Whoever of them is taken is right, unless the client had one before. */
      readonly candidates: readonly Endpoint[]
    }

type Kind = 'cluster' | 'node' | 'balancer' | 'external'

/** What is asked for at this address; `destination` is of the packet as it came. */
export function findService(
  cluster: Cluster,
  { side, source, node }: Asker,
  destination: string,
  protocol: number,
  port: number | undefined,
): Found {
  const place = port === undefined ? undefined : placeOf(cluster, destination, protocol, port)
  if (place === undefined) {
    // A port that no Service has is refused, lest the packet goes round and round on its way to an address that nobody has.
    const nobodys =
      cluster.serviceCidrs.some((cidr) => contains(cidr, destination)) ||
      [...cluster.services.values()].some((s) => (s.ingressIPs ?? []).includes(destination))
    return nobodys ? { kind: 'refused', reason: 'no service' } : { kind: 'none' }
  }
  const { service, kind, servicePort } = place
  if (kind === 'external' && side === 'inside' && service.isExternalGuarded === true) return { kind: 'none' }
  const all = (service.endpoints[servicePort.port] ?? []).filter((e) => familyOf(e.address) === familyOf(destination))
  const reachable = (list: readonly Endpoint[]): readonly Endpoint[] =>
    // The ports of SCTP are part of its checksum over everything.
    usable(list).filter((e) => servicePort.protocol !== 'SCTP' || e.port === port)
  const here = all.filter((e) => e.node === node)
  if (side === 'inside') {
    const isLocal = kind === 'cluster' && service.internalTrafficPolicy === 'Local'
    const candidates = reachable(isLocal ? here : all)
    if (candidates.length === 0) return { kind: 'refused', reason: 'no backend', service }
    return { kind: 'found', service, port: servicePort, candidates }
  }
  if (kind === 'cluster') return { kind: 'refused', reason: 'no service', service }
  const { sourceRanges = [] } = service
  if (kind === 'balancer' && sourceRanges.length > 0 && !sourceRanges.some((range) => contains(range, source)))
    return { kind: 'refused', reason: 'source range', service }
  const isLocal = service.externalTrafficPolicy === 'Local'
  const candidates = reachable(isLocal ? here : all)
  if (candidates.length > 0) return { kind: 'found', service, port: servicePort, candidates }
  return { kind: 'refused', reason: isLocal ? 'no local backend' : 'no backend', service }
}

function placeOf(
  cluster: Cluster,
  destination: string,
  protocol: number,
  port: number,
): { readonly service: Service; readonly kind: Kind; readonly servicePort: ServicePort } | undefined {
  const isNodes = [...cluster.nodes.values()].some((n) => n.addresses.includes(destination))
  for (const service of cluster.services.values()) {
    for (const servicePort of service.ports) {
      if (protocolNumbers[servicePort.protocol] !== protocol) continue
      const kinds: [Kind, boolean][] = [
        ['cluster', service.clusterIPs.includes(destination) && servicePort.port === port],
        ['balancer', (service.ingressIPs ?? []).includes(destination) && servicePort.port === port],
        ['external', (service.externalIPs ?? []).includes(destination) && servicePort.port === port],
        ['node', isNodes && servicePort.nodePort === port && hasFamily(service, destination)],
      ]
      const kind = kinds.find(([, is]) => is)?.[0]
      if (kind !== undefined) return { service, kind, servicePort }
    }
  }
  return undefined
}

const hasFamily = ({ clusterIPs }: Service, address: string): boolean =>
  clusterIPs.some((own) => familyOf(own) === familyOf(address))

/** Those that are ready; where there is none, those that are going but still serve (KEP-1669). */
function usable(all: readonly Endpoint[]): readonly Endpoint[] {
  const ready = all.filter((e) => e.ready)
  return ready.length > 0 ? ready : all.filter((e) => e.serving && e.terminating)
}
