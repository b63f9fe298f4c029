import type { Service as KubeService, Node } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { type KnownAddress, serviceNumber } from '#datapath/datapath.ts'
import { balancerAddresses } from './reflect.ts'

/** A Service with addresses that no node has by itself. */
export interface Published {
  readonly balancer: readonly string[]
  readonly external: readonly string[]
  /** Nodes with endpoints, where only they may answer; undefined: any node may. */
  readonly only: ReadonlySet<string> | undefined
  /** Another controller gave the addresses, and sees to it that packets come here. */
  readonly isForeign: boolean
}

/** Undefined for a Service without such addresses. Pure. */
export function publishedBy(
  service: KubeService,
  slices: readonly EndpointSlice[],
  ownClass: string,
): Published | undefined {
  const { spec } = service
  const balancer = balancerAddresses(service)
  const external = spec.externalIPs ?? []
  if (balancer.length === 0 && external.length === 0) return undefined
  const isForeign = spec.loadBalancerClass !== undefined && spec.loadBalancerClass !== ownClass
  if (spec.externalTrafficPolicy !== 'Local') return { balancer, external, only: undefined, isForeign }
  const answering = slices.flatMap(({ endpoints = [] }) =>
    endpoints.filter(({ conditions: c }) => c?.ready ?? c?.serving ?? true),
  )
  return { balancer, external, isForeign, only: new Set(answering.flatMap((e) => e.nodeName ?? [])) }
}

const excludedLabel = 'node.kubernetes.io/exclude-from-external-load-balancers'

/** A node that may stand for load balancers' addresses: ready, staying, and not excluded. */
export const mayAnnounce = ({ metadata, status }: Node): boolean =>
  metadata.deletionTimestamp === undefined &&
  metadata.labels?.[excludedLabel] === undefined &&
  (status?.conditions ?? []).some((c) => c.type === 'Ready' && c.status === 'True')

/**
 * The one node that answers for an address: of all candidates the one with the highest sum over both names (rendezvous
 * hashing). Every node comes to the same answer by itself, and a node that goes takes only its own addresses along.
 */
export function elect(address: string, candidates: readonly string[]): string | undefined {
  let best: { readonly name: string; readonly score: string } | undefined
  for (const name of candidates) {
    const score = serviceNumber(`${address} ${name} ${address}`).padStart(16, '0')
    if (best === undefined || score > best.score || (score === best.score && name > best.name)) best = { name, score }
  }
  return best?.name
}

export interface AddressFacts {
  readonly nodeName: string
  readonly nodes: readonly Node[]
  readonly published: readonly Published[]
  /** The node's resolver, local on every node. */
  readonly resolver: readonly string[]
}

/** All addresses that mean something to this node, though they are neither pods' nor cluster addresses. Pure. */
export function planKnownAddresses(facts: AddressFacts): KnownAddress[] {
  const known = new Map<string, KnownAddress>()
  const candidates = facts.nodes.filter(mayAnnounce).map(({ metadata }) => metadata.name)
  for (const { balancer, external, only, isForeign } of facts.published) {
    for (const address of external) known.set(address, { address, kind: 'external' })
    // Without an endpoint anywhere somebody must still say "that is me", or nobody can be told why.
    const local = only === undefined ? [] : candidates.filter((name) => only.has(name))
    for (const address of balancer) {
      const elected = isForeign ? undefined : elect(address, local.length > 0 ? local : candidates)
      const isAnnounced = elected === facts.nodeName
      known.set(address, { address, kind: 'virtual', ...(isAnnounced ? { isAnnounced } : {}) })
    }
  }
  for (const address of facts.resolver) known.set(address, { address, kind: 'resolver' })
  // Last: what is a node's is nobody's virtual address.
  for (const node of facts.nodes) {
    const kind = node.metadata.name === facts.nodeName ? 'own' : 'node'
    for (const { type, address } of node.status?.addresses ?? [])
      if (type === 'InternalIP' || type === 'ExternalIP') known.set(address, { address, kind })
  }
  return [...known.values()]
}
