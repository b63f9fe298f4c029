import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { Service as KubeService, ServicePort } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { isMapped, parseAddress, parseCidr } from '#base/net/address.ts'
import { type Outside, type Service, serviceNumber } from '#datapath/datapath.ts'
import type { Backend } from '#datapath/frontend.ts'
import { servedByGateway, servedByLabel } from '#gateway/service.ts'
import { type Chosen, chooseBackends, onlyBackends, type Whereabouts } from './endpoints.ts'
import type { ExternalUse } from './external.ts'

/** `namespace/name` of its Service; none for a slice that belongs to none. */
export const serviceOfSlice = ({ metadata }: EndpointSlice): readonly string[] => {
  const name = metadata.labels?.[serviceNameLabel]
  return name === undefined || name === '' ? [] : [`${metadata.namespace}/${name}`]
}

/** What a node must know of itself and its cluster to reflect Services. */
export interface ReflectFacts extends Whereabouts {
  /** Who may use an external IP: everybody, those outside, or nobody. */
  readonly externalUse: (address: string) => ExternalUse
}

const nowhere: ReflectFacts = { nodeName: '', zone: undefined, externalUse: () => 'none' }

/** Whatever comes to its addresses is for a socket of the node's own: what the gateway's engine listens on. */
const isServedByStack = ({ metadata }: KubeService): boolean => metadata.labels?.[servedByLabel] === servedByGateway

/** Addresses that a load balancer was given; one in mode Proxy is another machine's business (KEP-1860). */
export const balancerAddresses = ({ spec, status }: KubeService): string[] =>
  spec.type !== 'LoadBalancer'
    ? []
    : (status?.loadBalancer?.ingress ?? []).flatMap(({ ip, ipMode }) =>
        ip === undefined || ip === '' || ipMode === 'Proxy' ? [] : [ip],
      )

/**
 * What a Service and its slices come to in the kernel: one row for each of its addresses and ports. Pure.
 * Headless Services and ExternalName have no address of their own and none here.
 */
export function reflectService(
  service: KubeService,
  slices: readonly EndpointSlice[],
  facts: ReflectFacts = nowhere,
): Service[] {
  const { spec } = service
  if (spec.type === 'ExternalName') return []
  const bySlice = new Map<string, readonly EndpointSlice[]>()
  const ofFamily = (family: string): readonly EndpointSlice[] => {
    const known = bySlice.get(family) ?? slices.filter((slice) => slice.addressType === family)
    bySlice.set(family, known)
    return known
  }
  const common = commonOf(service)
  if (isPlain(service) && !common.toStack) return plainRows(service, slices, facts, common)
  return (spec.ports ?? []).flatMap((port): Service[] => {
    const protocol = port.protocol ?? 'TCP'
    const chosen = new Map<string, Chosen>()
    const choose = (address: string): Chosen => {
      const family = address.includes(':') ? 'IPv6' : 'IPv4'
      const known = chosen.get(family) ?? chooseBackends(port, protocol, ofFamily(family), facts)
      chosen.set(family, known)
      return known
    }
    return frontendsOf(service, port, facts).map(({ address, number, kind, use }): Service => {
      const frontend = { address, port: number, protocol }
      const backends = kind === 'cluster' ? insideOf(service, choose(address)) : choose(address).cluster
      // Changing an SCTP port needs another checksum over the whole packet, which nobody here makes.
      const reachable = (list: readonly Backend[]): readonly Backend[] =>
        protocol === 'SCTP' ? list.filter((b) => b.port === number) : list
      const row = { frontend, ...common, port: port.port, backends: reachable(backends) }
      if (common.toStack) return kind === 'cluster' ? gatewayRow(service, row) : row
      if (kind === 'cluster') return spec.internalTrafficPolicy === 'Local' ? { ...row, isInsideLocal: true } : row
      const outside = outsideOf(service, kind, choose(address), reachable)
      return use === 'outside' ? { ...row, backends: [], isOutsideOnly: true, outside } : { ...row, outside }
    })
  })
}

/** Most Services: asked for at their cluster addresses and nowhere else. */
const isPlain = ({ spec: { type, externalIPs, ports = [] } }: KubeService): boolean =>
  (type === undefined || type === 'ClusterIP') &&
  (externalIPs === undefined || externalIPs.length === 0) &&
  ports.every((p) => p.protocol !== 'SCTP')

/** The same rows, for all of a cluster's Services within a moment. */
function plainRows(
  service: KubeService,
  slices: readonly EndpointSlice[],
  facts: ReflectFacts,
  common: ReturnType<typeof commonOf>,
): Service[] {
  const { clusterIPs, clusterIP, ports = [] } = service.spec
  const rows: Service[] = []
  for (const port of ports) {
    const protocol = port.protocol ?? 'TCP'
    for (const address of clusterIPs ?? (clusterIP === undefined ? [] : [clusterIP])) {
      if (address === '' || address === 'None') continue
      const family = address.includes(':') ? 'IPv6' : 'IPv4'
      const ofFamily = slices.every((s) => s.addressType === family)
        ? slices
        : slices.filter((s) => s.addressType === family)
      const isInsideLocal = service.spec.internalTrafficPolicy === 'Local'
      const backends =
        (isInsideLocal ? undefined : onlyBackends(port, protocol, ofFamily)) ??
        insideOf(service, chooseBackends(port, protocol, ofFamily, facts))
      const frontend = { address, port: port.port, protocol }
      const { number, affinitySeconds } = common
      if (number === undefined) continue
      const isLocal = isInsideLocal ? { isInsideLocal } : undefined
      rows.push(
        affinitySeconds === undefined
          ? { frontend, backends, number, port: port.port, ...isLocal }
          : { frontend, backends, number, affinitySeconds, port: port.port, ...isLocal },
      )
    }
  }
  return rows
}

type Kind = 'cluster' | 'node' | 'balancer' | 'external'

interface Place {
  readonly kind: Kind
  readonly address: string
  readonly number: number
  readonly use: ExternalUse
}

/** Every address and port at which a port of a Service is asked for. */
function frontendsOf(service: KubeService, port: ServicePort, facts: ReflectFacts): Place[] {
  const { clusterIPs, clusterIP, type, externalIPs = [] } = service.spec
  const cluster = (clusterIPs ?? (clusterIP === undefined ? [] : [clusterIP])).filter((a) => a !== '' && a !== 'None')
  if (cluster.length === 0) return []
  const place =
    (kind: Kind, number: number, use: ExternalUse = 'all') =>
    (address: string) => ({
      kind,
      address,
      number,
      use,
    })
  const families = new Set(cluster.map((address) => (address.includes(':') ? '::' : '0.0.0.0')))
  const nodePort = type === 'NodePort' || type === 'LoadBalancer' ? (port.nodePort ?? 0) : 0
  const external = externalIPs.flatMap((address) => {
    const use = parseAddress(address) === undefined ? 'none' : facts.externalUse(address)
    return use === 'none' ? [] : [place('external', port.port, use)(address)]
  })
  return [
    ...cluster.map(place('cluster', port.port)),
    ...(nodePort === 0 ? [] : [...families].map(place('node', nodePort))),
    ...balancerAddresses(service).filter(isPlainAddress).map(place('balancer', port.port)),
    ...external,
  ]
}

/** For pods and nodes that use the cluster address. */
function insideOf({ spec }: KubeService, chosen: Chosen): readonly Backend[] {
  return spec.internalTrafficPolicy === 'Local' ? chosen.local : chosen.cluster
}

function outsideOf(
  { spec }: KubeService,
  kind: Kind,
  chosen: Chosen,
  reachable: (list: readonly Backend[]) => readonly Backend[],
): Outside {
  const isLocal = spec.externalTrafficPolicy === 'Local'
  const ranges = kind === 'balancer' ? sourceRangesOf(spec) : []
  return {
    backends: reachable(isLocal ? chosen.local : chosen.cluster),
    ...(isLocal ? { isLocal } : {}),
    ...(ranges.length === 0 ? {} : { ranges }),
  }
}

/** Nobody's address: a range that lets nobody in. */
const nobody = '::/128'

/** A range that cannot be read lets nobody in, and does not stand for everybody where it is the only one. */
function sourceRangesOf({ loadBalancerSourceRanges = [] }: KubeService['spec']): string[] {
  const ranges = loadBalancerSourceRanges.map((text) => text.trim()).filter((text) => text !== '')
  const known = ranges.filter(isPlainNetwork)
  return ranges.length > 0 && known.length === 0 ? [nobody] : known
}

/** What the kernel's maps can hold: IPv4 written as IPv6 (an older API server takes it) would pass there for IPv4. */
function isPlainAddress(text: string): boolean {
  const address = parseAddress(text)
  return address !== undefined && !isMapped(address)
}

export function isPlainNetwork(text: string): boolean {
  const cidr = parseCidr(text)
  return cidr !== undefined && !isMapped(cidr)
}

const affinitySecondsDefault = 10_800

function commonOf(service: KubeService): Pick<Service, 'number' | 'affinitySeconds' | 'toStack'> {
  const { metadata, spec } = service
  const seconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? affinitySecondsDefault
  const number = serviceNumber(`${metadata.namespace}/${metadata.name}`)
  if (spec.sessionAffinity !== 'ClientIP' && !isServedByStack(service)) return { number }
  return {
    number,
    ...(spec.sessionAffinity === 'ClientIP' ? { affinitySeconds: seconds } : {}),
    ...(isServedByStack(service) ? { toStack: true } : {}),
  }
}

/** A cluster address is nobody's own: a connection to it goes on to the load balancer's address, which is the node's. */
function gatewayRow(service: KubeService, { toStack: _, ...row }: Service): Service {
  const { address, port, protocol } = row.frontend
  const own = balancerAddresses(service).find((a) => a.includes(':') === address.includes(':'))
  return { ...row, backends: own === undefined ? [] : [{ address: own, port, protocol }] }
}
