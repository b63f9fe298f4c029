import { familyOf } from '../address.ts'
import { Affinities } from '../affinity.ts'
import { type Cluster, type Endpoint, protocolNumbers, type Service } from '../cluster.ts'
import type { Tuple } from '../packet.ts'
import { findService } from '../services.ts'

/** What a socket that names its peer gets, by the API's words alone: nothing of the product is used in this file. */

/** Where a socket is, or whom it talks to. An IPv6 socket has IPv4 addresses as `::ffff:10.0.0.1`. */
export interface End {
  readonly address: string
  readonly port: number
}
export const endText = ({ address, port }: End): string => `${address} ${port}`

/** Where a process is: on the node (or in a pod on its network), or in one of two pods. */
export const places = ['node', 'pod-1', 'pod-2'] as const
export type Place = (typeof places)[number]
export type Protocol = 'TCP' | 'UDP'

/** A host port of a pod of this node. */
export interface HostPort {
  readonly port: number
  readonly protocol: Protocol
  /** As in the pod: none or an unspecified one is all addresses of the node. */
  readonly hostIP: string
  readonly pod: { readonly addresses: readonly string[]; readonly port: number }
}

export interface HintedEndpoint extends Endpoint {
  /** topology.kubernetes.io/zone of those that it is for (KEP-2433). */
  readonly zones: readonly string[]
}

export interface World {
  readonly cluster: Cluster
  readonly node: string
  readonly zone: string
  readonly own: readonly string[]
  readonly hostPorts: readonly HostPort[]
}

export type Answer =
  /** As if there were no Services. */
  | { readonly kind: 'untouched'; readonly marks: readonly string[] }
  /** ECONNREFUSED, at once. */
  | { readonly kind: 'refused'; readonly marks: readonly string[] }
  | {
      readonly kind: 'led'
      /** Whoever of them is taken is right. */
      readonly backends: readonly End[]
      readonly marks: readonly string[]
    }

export const v4Prefix = '::ffff:'
/** An IPv6 socket's word for an IPv4 address is that address. */
export const plain = (address: string): string =>
  address.startsWith(v4Prefix) ? address.slice(v4Prefix.length) : address
export const isUnspecified = (address: string): boolean => address === '0.0.0.0' || address === '::'
const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1'

/** By what name a peer is known that was asked for by this one: the unspecified address is this host. */
export function nameFor({ address, port }: End): End {
  if (!isUnspecified(plain(address))) return { address, port }
  const loopback = plain(address) === '::' ? '::1' : '127.0.0.1'
  return { address: address.startsWith(v4Prefix) ? v4Prefix + loopback : loopback, port }
}

export class SocketRules {
  readonly #affinities = new Affinities()
  /** Who a client of a Service had last: only to say what was met. */
  readonly #last = new Map<string, string>()

  /** `took`: of those that are right, which the kernel took. */
  ask(world: World, place: Place, asked: End, protocol: Protocol, took: (candidates: readonly End[]) => End): Answer {
    const { port } = asked
    const address = plain(nameFor(asked).address)
    const marks = [address === asked.address ? `by IPv${familyOf(address)}` : 'by another word for the address']
    const loops = isLoopback(address)
    // What a pod calls this host is the pod.
    if (loops && place !== 'node') return { kind: 'untouched', marks: [...marks, 'loopback of a pod'] }
    if (loops) marks.push('loopback of the node')
    const hostPort = hostPortAt(world, address, port, protocol)
    if (hostPort !== undefined) {
      const own = hostPort.pod.addresses.find((a) => familyOf(a) === familyOf(address))
      if (own !== undefined)
        return { kind: 'led', backends: [{ address: own, port: hostPort.pod.port }], marks: [...marks, 'host port'] }
    }
    // The node's loopback addresses are addresses of the node.
    const at = loops ? world.own.find((a) => familyOf(a) === familyOf(address)) : address
    if (at === undefined) return { kind: 'untouched', marks }
    const asker = { side: 'inside', source: place, node: world.node } as const
    const found = findService(world.cluster, asker, at, protocolNumbers[protocol], port)
    if (found.kind === 'none') return { kind: 'untouched', marks }
    if (found.kind === 'refused') return { kind: 'refused', marks: [...marks, found.reason] }
    const { service } = found
    marks.push(...wordsFor(service, at))
    const candidates = this.#near(world, service, at, found.candidates, marks)
    const endOf = (e: Endpoint): End => ({ address: e.address, port: e.port })
    let right: readonly Endpoint[] = candidates
    // Somebody is known by his address, of which he has one in each family.
    const client = `${place}, IPv${familyOf(address)}`
    const key = `${service.namespace}/${service.name} ${client}`
    this.#affinities.choose({ ...found, candidates }, { source: client } as unknown as Tuple, 0, {
      backend: (list) => {
        right = list
        const end = took(list.map(endOf))
        const taken = list.find((e) => e.address === end.address && e.port === end.port) ?? list[0]
        if (taken === undefined) throw new Error('nobody to choose')
        if (service.affinitySeconds !== undefined) {
          const last = this.#last.get(key)
          if (last === taken.address && candidates.length > 1) marks.push('affinity kept')
          if (last !== undefined && last !== taken.address) marks.push('affinity to one that is none any more')
          this.#last.set(key, taken.address)
        }
        return taken
      },
      port: (wanted) => wanted,
    })
    if (right.some((e) => e.terminating)) marks.push('to one that is going')
    return { kind: 'led', backends: right.map(endOf), marks }
  }

  /** Endpoints of this zone where every one of them says for which zones it is; for policy Local the node's own is near enough. */
  #near(
    { zone }: World,
    service: Service,
    at: string,
    candidates: readonly Endpoint[],
    marks: string[],
  ): readonly Endpoint[] {
    if (service.clusterIPs.includes(at) && service.internalTrafficPolicy === 'Local') return candidates
    const hints = candidates as readonly HintedEndpoint[]
    if (!hints.every((e) => e.zones.length > 0)) return candidates
    const here = hints.filter((e) => e.zones.includes(zone))
    marks.push(here.length > 0 ? 'hints followed' : 'hints for others')
    return here.length > 0 ? here : candidates
  }
}

function hostPortAt(
  { own, hostPorts }: World,
  address: string,
  port: number,
  protocol: Protocol,
): HostPort | undefined {
  const anywhere = own.includes(address) || address === '127.0.0.1' || address === '::1'
  return hostPorts.find((p) => {
    if (p.port !== port || p.protocol !== protocol) return false
    if (p.hostIP === '') return anywhere
    if (isUnspecified(p.hostIP)) return anywhere && familyOf(p.hostIP) === familyOf(address)
    return p.hostIP === address
  })
}

function wordsFor(
  { clusterIPs, ingressIPs = [], externalIPs = [], internalTrafficPolicy }: Service,
  at: string,
): string[] {
  if (clusterIPs.includes(at))
    return ['cluster address', ...(internalTrafficPolicy === 'Local' ? ['policy Local'] : [])]
  if (ingressIPs.includes(at)) return ['address of a load balancer']
  return [externalIPs.includes(at) ? 'external IP' : 'node port']
}

/** Whether a process of the node may take a port at an address: node ports are taken. */
export function mayBind({ cluster }: World, place: Place, { address, port }: End, protocol: Protocol): boolean {
  if (place !== 'node') return true
  // A socket at the unspecified IPv6 address hears IPv4 too, unless it says otherwise, which the hook does not see.
  const families = address === '::' ? [4, 6] : [familyOf(plain(address))]
  return ![...cluster.services.values()].some(
    (service) =>
      service.ports.some((p) => p.nodePort === port && p.protocol === protocol) &&
      service.clusterIPs.some((ip) => families.includes(familyOf(ip))),
  )
}

export const among = (ends: readonly End[], end: End): boolean => ends.some((e) => endText(e) === endText(end))
