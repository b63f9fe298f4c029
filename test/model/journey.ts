import type { Endpoint } from './cluster.ts'
import { natPorts } from './nat.ts'
import { type Packet, protocolOf, type Tuple, tupleOf } from './packet.ts'
import type { Reason } from './reasons.ts'
import type { Claim } from './tracking.ts'

/** A packet's way through a node: where it comes in, what is known of it meanwhile, and what is told of it in the end. */

/** Where a packet meets the node: leaving a pod, coming by the uplink, or from the node's own stack to a pod. */
export type Hook =
  | { readonly from: 'pod'; readonly pod: string }
  /** `early`: XDP sees it first. That makes no difference to what becomes of it. */
  | { readonly from: 'uplink'; readonly early?: true }
  | { readonly from: 'host'; readonly pod: string }
  /**
   * Out of the tunnel, from the node with that address; `as`: the pod whose identity is with it, `node`: whoever has the
   * source address, or a number that is nobody's.
   */
  | { readonly from: 'tunnel'; readonly node: string; readonly as: string }
  /** What the node's own stack sends into the tunnel. */
  | { readonly from: 'stack' }

/**
 * Where it goes: nowhere, to the node's own stack, into a pod of the node, out by the node's routes, wrapped to another node, or
 * back as a refusal.
 */
export type End = 'drop' | 'stack' | 'pod' | 'out' | 'tunnel' | 'refusal'

/** Who an address is, before any number is given to it. */
export type Identity = 'host' | 'remote node' | 'world' | 'unknown pod' | { readonly pod: string }

/** What is up to the kernel: the run gives its choice back, and it must be one of those that are right. */
export interface Chooser {
  /** One of the Service's endpoints. */
  backend(candidates: readonly Endpoint[], question: Tuple): Endpoint
  /** A source port; `isFree` says of which the answers could be told. `wanted` is taken where it is free. */
  port(wanted: number, isFree: (port: number) => boolean, question: Tuple): number | undefined
}

/** Takes the first that is right: for a model that runs alone. */
export const firstChoice: Chooser = {
  backend: (candidates) => candidates[0] as Endpoint,
  port: (wanted, isFree) => {
    if (isFree(wanted)) return wanted
    for (let port: number = natPorts.first; port < natPorts.first + natPorts.count; port++)
      if (isFree(port)) return port
    return undefined
  },
}

export interface Outcome {
  readonly end: End
  readonly reason: Reason
  /** Every rule that may be named for it; empty: none is. */
  readonly rules: readonly string[]
  /** As it leaves; absent where it was dropped or is the stack's as it came. */
  readonly packet?: Packet
  /** Beside that: what its sender gets. A test-run shows nothing of it, devices do. */
  readonly back?: Packet
  /** The pod that it is put into. */
  readonly pod?: string
  /** Wrapped: address of the other node, and whose identity goes with it. */
  readonly wrapped?: { readonly node: string; readonly as: Identity }
  readonly source?: Identity
  readonly destination?: Identity
  /** Chosen for a Service. */
  readonly backend?: Endpoint
  /** What was decided, step by step, for a reader. */
  readonly story: readonly string[]
  /** Rare things that a run wants to have met: `closing tuple reused`. */
  readonly marks: readonly string[]
}

export interface Told {
  readonly story: string[]
  readonly marks: string[]
}
export type Result = Omit<Outcome, keyof Told>

/** What tracking says: of whom the packet is, and whether it may. */
export interface Tracked {
  readonly reason: Reason
  readonly rules: readonly string[]
  /** 1: an answer. */
  readonly side: 0 | 1
  /** Its flow has other names. */
  readonly translated: boolean
  /** Its beginning was not seen. */
  readonly adopted: boolean
  /** It was, before this packet. */
  readonly established?: boolean
  /** The connection is cut: its receiver gets this instead. */
  readonly reset?: Packet
  readonly source?: Identity
  readonly destination?: Identity
}

/** A packet on its way through the node. */
export interface Journey {
  /** As it is now. */
  packet: Packet
  tuple: Tuple
  readonly now: number
  readonly told: Told
  readonly choose: Chooser
  /** First address of the pod that it is from, or, from outside, to: whose refusals are counted. */
  device: string
  backend?: Endpoint
  /** Who sends it, as the node that it comes from says. */
  claim?: Claim
  /** It goes to a Service: its flow has another name for who asks. */
  translated: boolean
  /** What its sender is told although the packet goes on. */
  back?: Packet | undefined
  /** Where it was sent to before that. */
  asked?: Tuple
}

export const drop = (reason: Reason): Result => ({ end: 'drop', reason, rules: [] })

/** Ports, or 0 for what has none: such a packet is known by its addresses and protocol. */
export function trackedTuple(packet: Packet): Tuple {
  const { source, destination } = packet
  return tupleOf(packet) ?? { source, destination, sourcePort: 0, destinationPort: 0, protocol: protocolOf(packet) }
}
