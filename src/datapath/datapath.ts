import type { Displaced } from './attach.ts'
import type { Backend, Frontend } from './frontend.ts'
import type { Counter } from './maps/counters.ts'
import type { Flow, Swept } from './maps/flows.ts'
import type { PolicyEntry, PolicyKey } from './maps/policy.ts'
import type { StaleBackend, SweptTranslations, Translation } from './maps/translations.ts'

/** A pod's sandbox on this node. */
export interface Endpoint {
  /** Of the sandbox: two of them may have had the same pod, one after the other. */
  readonly id: string
  /** One address of each family at most, without prefix length. */
  readonly addresses: readonly string[]
  /** Host end of the veth pair. */
  readonly ifindex: number
  /** Of the pod's end. */
  readonly mac: string
  /** Whose sandbox: another owner of the same address inherits no connection. Absent: `id`. */
  readonly owner?: string
  /** Absent: as it is, or nobody's. */
  readonly identity?: number
  /** Numbers of policy sets, 0: not isolated. Absent: as they are, or not isolated. */
  readonly egressSet?: number
  readonly ingressSet?: number
}

/** Who has an address, anywhere in the cluster. */
export interface AddressIdentity {
  readonly address: string
  readonly identity: number
  /** Another owner of the same address (a pod's UID, a node's name) inherits no connection. */
  readonly owner: string
  /** Number of the node that has it, any but 0; absent: this node. */
  readonly node?: number
  /** IPv4 address of that node where packets to it are wrapped (VXLAN). */
  readonly tunnel?: string
}

/** Isolation of one of this node's pods. Absent fields stay as they are. */
export interface EndpointPolicy {
  readonly addresses: readonly string[]
  readonly egressSet?: number
  readonly ingressSet?: number
  readonly identity?: number
}

/** One step from a set of policies to the next. */
export interface PolicyChange {
  /** Elements of sets that no endpoint has yet. */
  readonly entries?: readonly PolicyEntry[]
  /** Network -> class, `firstClass` and up. A network that is there already gets the new class. */
  readonly networks?: ReadonlyMap<string, number>
  readonly removedNetworks?: readonly string[]
  readonly endpoints?: readonly EndpointPolicy[]
}

/** What connections that come by the uplink get. */
export interface Outside {
  /** None: refused; or, where `isLocal`, not answered at all. */
  readonly backends: readonly Backend[]
  /** Only this node's backends, and the client's address is kept. */
  readonly isLocal?: boolean
  /** Who may ask; absent: everybody. */
  readonly ranges?: readonly string[]
}

/** A frontend of a Service and what is behind it: one row. A Service has one for each of its addresses and ports. */
export interface Service {
  readonly frontend: Frontend
  /** For connections of pods and of the node itself. None: connections are refused. */
  readonly backends: readonly Backend[]
  /** Absent: not reached from outside. */
  readonly outside?: Outside
  /** `serviceNumber` of the Service that it belongs to: its frontends share affinity and source ranges. */
  readonly number?: string
  /** The Service's own port: what its frontends' (node port, cluster address) choices of one client have in common. */
  readonly port?: number
  /** Seconds for which a client that did not connect keeps its backend; absent: no affinity. */
  readonly affinitySeconds?: number
  /** The node's own stack answers: nothing is translated. */
  readonly toStack?: boolean
  /** `backends` are this node's only: a client's remembered choice of another does not count here. */
  readonly isInsideLocal?: boolean
  /** Pods and the node itself go past it, as if it were not there. */
  readonly isOutsideOnly?: boolean
}

/** What an address that is neither a pod's nor a cluster address is to this node. */
export interface KnownAddress {
  readonly address: string
  /**
   * `own`: of this node; `node`: of another; `virtual`: a load balancer's, where a port that no Service has is refused;
   * `external`: an external IP, of which only the Services' ports are ours; `resolver`: local on every node.
   */
  readonly kind: 'own' | 'node' | 'virtual' | 'external' | 'resolver'
  /** This node answers for the virtual address on its link. */
  readonly isAnnounced?: boolean
}

/** Of this node, without prefix lengths. */
export interface NodeAddresses {
  readonly all: readonly string[]
  /** What the programs were told just now; absent: they knew. */
  readonly changed?: { readonly before: readonly string[]; readonly now: readonly string[] }
}

/** Another node, or this one. */
export interface NodeNetwork {
  readonly name: string
  readonly podCidrs: readonly string[]
  /** Where its pods are reached; undefined for this node itself. */
  readonly via: readonly string[] | undefined
}

/**
 * The node's packets, as the agent sees them. Two implementations, `kernel.ts` and `fake.ts`, proved by
 * `conformance.ts`. What was set stays in force when the agent ends, and is there again when it comes back.
 */
export interface Datapath extends Disposable {
  /** Map entries first, then programs: when this resolves, the pod's first packet meets both. */
  upsertEndpoint(endpoint: Endpoint): Promise<void>
  /** Only what is this sandbox's own: an address that has moved on to another sandbox stays. */
  removeEndpoint(endpoint: Pick<Endpoint, 'id' | 'addresses' | 'ifindex'>): void
  /** Addresses that lead to pods now, with the device that they lead to. */
  addresses(): ReadonlyMap<string, number>
  /** Takes away what belongs to no endpoint of these. Returns what went, for the log. */
  pruneEndpoints(endpoints: readonly Endpoint[]): string[]

  /**
   * Who has which address. A new owner of an address raises the epoch: no connection of the old one's is his.
   * Written before the owner's first packet.
   */
  upsertIdentities(entries: readonly AddressIdentity[]): void
  /** After the owner is gone. An address of the pods' networks is then an unknown pod's. */
  removeIdentities(addresses: readonly string[]): void
  /** Identity by address. */
  identities(): ReadonlyMap<string, number>

  /**
   * Elements and networks first, then the endpoints' set numbers, then the epoch: the next packet of every connection is
   * judged by the new sets, and one that is no longer allowed is cut. Throws where a map is full; endpoints then have what
   * they had.
   */
  changePolicy(change: PolicyChange): void
  /** Sets that no endpoint has had for a while: a packet that is under way may still be judged by one just left. */
  removePolicyEntries(keys: readonly PolicyKey[]): void
  policyEntries(): PolicyEntry[]
  /** Network -> class. */
  policyNetworks(): ReadonlyMap<string, number>
  /** Set numbers by address of an endpoint. */
  endpointPolicies(): ReadonlyMap<string, { readonly egressSet: number; readonly ingressSet: number }>
  /** Connections that this node's programs know. */
  flows(): Flow[]
  /** Takes away those that are over: programs no longer heed them, but they take room. Every few seconds will do. */
  sweepFlows(): Promise<Swept>

  /** Everything in `upserts` and `removals`; unchanged Services cost nothing. */
  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void
  /** What is in force now, in no order. */
  services(): Service[]
  /**
   * After changes of Services and addresses: programs that only some of them need are attached or taken off. Resolves when
   * that is so; nothing to do costs nothing.
   */
  attachForServices(): Promise<void>
  /** Whether any frontend leads to it. */
  hasBackend(backend: Backend): boolean
  /** Takes away translations that nobody has used for long, and those to `stale` at once. */
  sweepTranslations(stale?: readonly StaleBackend[]): Promise<SweptTranslations>
  /** Both directions of every connection whose addresses are exchanged packet by packet. */
  translations(): Translation[]
  /** All of them: others are forgotten. Who begins to answer for an address tells the link so. */
  setAddresses(addresses: readonly KnownAddress[]): void
  knownAddresses(): KnownAddress[]

  /** Makes the node's routes those that lead to these nodes' pods, and removes others of ours. */
  setNodes(nodes: readonly NodeNetwork[]): Promise<void>
  /** Pod networks and where they lead; empty for this node's own. */
  nodeRoutes(): Promise<ReadonlyMap<string, string>>

  counters(): Counter[]

  /**
   * On devices ours run before everybody else's programs; where somebody has put one in front they are moved there again. Says
   * which those were.
   */
  keepFirst(): Promise<readonly Displaced[]>

  /**
   * The programs know the node's addresses on its uplink, under which pods are known outside: when these have changed, others
   * that know the new ones take over, without a packet in between. Throws where the uplink has gone.
   */
  followNode(): Promise<NodeAddresses>
}

/**
 * 64 bits of a Service's `namespace/name`, hexadecimal without leading zeros: the same on every node and after every restart.
 * Two FNV-1a sums of 32 bits with different beginnings; 10,000 names meet once in some 10^11 clusters.
 */
export function serviceNumber(name: string): string {
  let [a, b] = [0x811c9dc5, 0x9747b28c]
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i)
    a = Math.imul(a ^ c, 0x01000193)
    b = Math.imul(b ^ c, 0x01000193) ^ (b >>> 15)
  }
  const [high, low] = [(a >>> 0).toString(16), (b >>> 0).toString(16)]
  if (a === 0) return b === 0 ? '1' : low
  return high + (low.length < 8 ? low.padStart(8, '0') : low)
}
