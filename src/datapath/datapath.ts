import type { Counter } from './maps/counters.ts'

export type Protocol = 'TCP' | 'UDP'

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
}

/** Where a Service is asked for. */
export interface Frontend {
  readonly address: string
  readonly port: number
  readonly protocol: Protocol
}

/** Where it is answered. */
export type Backend = Frontend

export interface Service {
  readonly frontend: Frontend
  /** None: connections are refused. */
  readonly backends: readonly Backend[]
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

  /** Everything in `upserts` and `removals`; unchanged Services cost nothing. */
  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void
  /** What is in force now, in no order. */
  services(): Service[]

  /** Makes the node's routes those that lead to these nodes' pods, and removes others of ours. */
  setNodes(nodes: readonly NodeNetwork[]): Promise<void>
  /** Pod networks and where they lead; empty for this node's own. */
  nodeRoutes(): Promise<ReadonlyMap<string, string>>

  counters(): Counter[]
}

/** Same frontend, same text. */
export const frontendName = ({ address, port, protocol }: Frontend): string =>
  `${address.includes(':') ? `[${address}]` : address}:${port}/${protocol}`
