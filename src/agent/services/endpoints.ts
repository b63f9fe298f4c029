import type { ServicePort } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { isMapped, parseAddress } from '#base/net/address.ts'
import { type Backend, frontendName, type Protocol } from '#datapath/frontend.ts'

/** Where this node is, for choosing among endpoints. */
export interface Whereabouts {
  readonly nodeName: string
  /** Label topology.kubernetes.io/zone. */
  readonly zone: string | undefined
}

interface Candidate {
  readonly backend: Backend
  readonly ready: boolean
  /** Going, but still answering. */
  readonly draining: boolean
  readonly isLocal: boolean
  readonly endpoint: Endpoint
}

/** The backends of one port of a Service in one family, by who may have them. */
export interface Chosen {
  /** For policy Cluster, with the topology's hints followed where all endpoints have them. */
  readonly cluster: readonly Backend[]
  /** For policy Local: this node's own. */
  readonly local: readonly Backend[]
}

/**
 * Ready endpoints; only where there is none, those that are going but still serve (KEP-1669), which is decided for the cluster
 * and for this node each by itself. In a stable order. Pure.
 */
export function chooseBackends(
  port: ServicePort,
  protocol: Protocol,
  slices: readonly EndpointSlice[],
  where: Whereabouts,
): Chosen {
  const all: Candidate[] = []
  for (const slice of slices) addCandidates(all, slice, port, protocol, where.nodeName)
  const count = slices.length
  return {
    get cluster() {
      return unique(followHints(usable(all), where), count)
    },
    get local() {
      return unique(usable(all.filter((c) => c.isLocal)), count)
    },
  }
}

/**
 * The same where there is nothing to choose, as in most of a cluster's thousands of Services: one slice with one port, and all of
 * its endpoints ready and without hints. Undefined where it takes a look. Pure.
 */
export function onlyBackends(
  { name = '' }: ServicePort,
  protocol: Protocol,
  slices: readonly EndpointSlice[],
): readonly Backend[] | undefined {
  const slice = slices[0]
  const target = slice?.ports?.[0]
  if (slice === undefined || slices.length !== 1 || target === undefined || slice.ports?.length !== 1) return undefined
  const { port } = target
  if ((target.name ?? '') !== name || (target.protocol ?? 'TCP') !== protocol || port === undefined) return undefined
  const endpoints = slice.endpoints ?? []
  const backends = new Array<Backend>(endpoints.length)
  let last = ''
  for (let i = 0; i < endpoints.length; i++) {
    const { addresses, conditions, hints } = endpoints[i] ?? noEndpoint
    const address = addresses[0]
    if (address === undefined || conditions?.ready === false || hints !== undefined) return undefined
    if (isMappedText(address)) return undefined
    // As they come they may stay: in order, and none twice.
    if (address <= last) return undefined
    backends[i] = { address, port, protocol }
    last = address
  }
  return backends
}

/** IPv4 written as IPv6, which an older API server takes: one such would keep all Services from being written. */
function isMappedText(text: string): boolean {
  // Ten thousand Services are read at once at every start: few addresses begin so.
  if (!text.startsWith(':') && !text.startsWith('0')) return false
  const address = parseAddress(text)
  return address !== undefined && isMapped(address)
}

const noEndpoint: Endpoint = { addresses: [], conditions: {} }

function usable(all: readonly Candidate[]): readonly Candidate[] {
  if (all.every((c) => c.ready)) return all
  const ready = all.filter((c) => c.ready)
  return ready.length > 0 ? ready : all.filter((c) => c.draining)
}

/** As kube-proxy: one endpoint without hints, or no endpoint for this node or zone, and all of them are used. */
function followHints(all: readonly Candidate[], { nodeName, zone }: Whereabouts): readonly Candidate[] {
  const hinted = (has: (hints: NonNullable<Endpoint['hints']>) => boolean): boolean =>
    all.length > 0 && all.every(({ endpoint: { hints } }) => hints !== undefined && has(hints))
  if (hinted(({ forNodes = [] }) => forNodes.length > 0)) {
    const here = all.filter((c) => c.endpoint.hints?.forNodes?.some((node) => node.name === nodeName))
    if (here.length > 0) return here
  }
  if (zone !== undefined && hinted(({ forZones = [] }) => forZones.length > 0)) {
    const here = all.filter((c) => c.endpoint.hints?.forZones?.some((z) => z.name === zone))
    if (here.length > 0) return here
  }
  return all
}

/** An endpoint may for a while be in two slices, on its way from one to the other; one slice has it once. */
function unique(all: readonly Candidate[], slices: number): Backend[] {
  if (slices <= 1) return all.map(({ backend }) => backend).sort(byPlace)
  const byName = new Map(all.map(({ backend }) => [frontendName(backend), backend]))
  return [...byName.values()].sort(byPlace)
}

const byPlace = (a: Backend, b: Backend): number =>
  a.address < b.address ? -1 : a.address > b.address ? 1 : a.port - b.port

/** A slice's port belongs to the Service's port of the same name and protocol; its number is the resolved target port. */
function addCandidates(
  all: Candidate[],
  slice: EndpointSlice,
  { name = '' }: ServicePort,
  protocol: Protocol,
  nodeName: string,
): void {
  for (const { name: portName = '', protocol: portProtocol = 'TCP', port } of slice.ports ?? []) {
    if (portName !== name || portProtocol !== protocol || port === undefined) continue
    for (const endpoint of slice.endpoints ?? []) {
      // All addresses of an endpoint are one; consumers take the first.
      const address = endpoint.addresses[0]
      if (address === undefined || isMappedText(address)) continue
      const { ready, draining } = conditionsOf(endpoint)
      const isLocal = endpoint.nodeName === nodeName
      all.push({ backend: { address, port, protocol }, ready, draining, isLocal, endpoint })
    }
  }
}

/** Absent means unknown: ready is then taken to be true, serving what ready is, terminating false. */
function conditionsOf({ conditions }: Endpoint): { readonly ready: boolean; readonly draining: boolean } {
  const ready = conditions?.ready ?? true
  return { ready, draining: (conditions?.serving ?? ready) && (conditions?.terminating ?? false) }
}
