import { contains, familyOf } from './address.ts'
import { type Cluster, type Node, nameOf, type Pod } from './cluster.ts'
import { wrongHeader } from './headers.ts'
import { type Packet, protocolOf, protocols, reversed, type Tuple, tupleOf } from './packet.ts'
import { type Asked, type Judgement, judgePolicy, type Party } from './policy.ts'
import type { Reason } from './reasons.ts'
import { advance, type Flow, Flows, isSyn, sameTuple } from './tracking.ts'

/** Where a packet meets the node: leaving a pod, coming by the uplink, or from the node's own stack to a pod. */
export type Hook =
  | { readonly from: 'pod'; readonly pod: string }
  | { readonly from: 'uplink' }
  | { readonly from: 'host'; readonly pod: string }

/** Where it goes: nowhere, to the node's own stack, into a pod of the node, or out by the node's routes. */
export type End = 'drop' | 'stack' | 'pod' | 'out'

/** Who an address is, before any number is given to it. */
export type Identity = 'host' | 'remote node' | 'world' | 'unknown pod' | { readonly pod: string }

export interface Outcome {
  readonly end: End
  readonly reason: Reason
  /** Every rule that may be named for it; empty: none is. */
  readonly rules: readonly string[]
  /** As it leaves; absent where it was dropped or is the stack's as it came. */
  readonly packet?: Packet
  /** The pod that it is put into. */
  readonly pod?: string
  readonly source?: Identity
  readonly destination?: Identity
  /** What was decided, step by step, for a reader. */
  readonly story: readonly string[]
  /** Rare things that a run wants to have met: `closing tuple reused`. */
  readonly marks: readonly string[]
}

interface Told {
  readonly story: string[]
  readonly marks: string[]
}
type Result = Omit<Outcome, keyof Told>

class Dropped {
  readonly reason: Reason
  constructor(reason: Reason) {
    this.reason = reason
  }
}

export const addressesOf = (cluster: Cluster): Map<string, Pod> => {
  const found = new Map<string, Pod>()
  for (const pod of cluster.pods.values())
    if (pod.hostNetwork !== true) for (const address of pod.addresses) found.set(address, pod)
  return found
}

/** One node of a cluster: the rules are the cluster's, connections and translations are its own. */
export class NodeModel {
  readonly name: string
  readonly flows = new Flows()
  #cluster: Cluster
  #pods: Map<string, Pod>
  #epoch = 0

  constructor(name: string, cluster: Cluster) {
    this.name = name
    this.#cluster = cluster
    this.#pods = addressesOf(cluster)
  }

  get cluster(): Cluster {
    return this.#cluster
  }

  get node(): Node {
    const node = this.#cluster.nodes.get(this.name)
    if (node === undefined) throw new Error(`the cluster has no node ${this.name}`)
    return node
  }

  /** The cluster is now this. Flows are judged again at their next packet; an address that another pod has now begins afresh. */
  change(cluster: Cluster): void {
    const pods = addressesOf(cluster)
    for (const [address, pod] of pods) {
      const last = this.#pods.get(address)
      if (last === undefined || nameOf(last) !== nameOf(pod)) this.flows.forget(address)
    }
    this.#cluster = cluster
    this.#pods = pods
    this.#epoch++
  }

  podOf(address: string): Pod | undefined {
    return this.#pods.get(address)
  }

  identityOf(address: string): Identity {
    const pod = this.#pods.get(address)
    if (pod !== undefined) return { pod: nameOf(pod) }
    for (const node of this.#cluster.nodes.values())
      if (node.addresses.includes(address)) return node.name === this.name ? 'host' : 'remote node'
    return this.#cluster.podCidrs.some((cidr) => contains(cidr, address)) ? 'unknown pod' : 'world'
  }

  /** What becomes of the packet, and what the node remembers of it. */
  judge(hook: Hook, packet: Packet, now: number): Outcome {
    const story: string[] = []
    const marks: string[] = []
    try {
      return { ...this.#judge(hook, packet, now, { story, marks }), story, marks }
    } catch (dropped) {
      if (!(dropped instanceof Dropped)) throw dropped
      return { end: 'drop', reason: dropped.reason, rules: [], story, marks }
    }
  }

  #judge(hook: Hook, packet: Packet, now: number, told: Told): Result {
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) throw new Dropped(wrong)
    if (hook.from === 'pod') {
      checkMulticast(packet)
      this.#checkSource(hook.pod, packet)
      this.#checkService(packet)
    }
    const tuple = trackedTuple(packet)
    const to = this.#pods.get(packet.destination)
    const local = to !== undefined && to.node === this.name
    if (hook.from === 'uplink' && !local) return { end: 'stack', reason: 'forwarded', rules: [] }
    const source = hook.from === 'host' ? 'host' : this.identityOf(packet.source)
    const destination = this.identityOf(packet.destination)
    const judged = this.#track(packet, tuple, now, told)
    const ids = { source, destination }
    if (!judged.allowed) return { end: 'drop', reason: judged.reason, rules: [], ...ids }
    return { ...this.#forward(hook, packet, local ? to : undefined), rules: judged.rules, ...ids }
  }

  /** A pod speaks for itself only. */
  #checkSource(pod: string, packet: Packet): void {
    if (!(this.#cluster.pods.get(pod)?.addresses ?? []).includes(packet.source)) throw new Dropped('invalid source')
  }

  #checkService(packet: Packet): void {
    if (this.#cluster.serviceCidrs.some((cidr) => contains(cidr, packet.destination))) throw new Dropped('no service')
  }

  #track(
    packet: Packet,
    tuple: Tuple,
    now: number,
    { story, marks }: Told,
  ): { readonly allowed: boolean; readonly reason: Reason; readonly rules: readonly string[] } {
    let flow = this.flows.find(tuple, now)
    if (flow !== undefined && flow.phase === 'closing' && isSyn(packet)) {
      story.push('a SYN on a connection that is closing begins another')
      marks.push('closing tuple reused')
      flow = undefined
    }
    if (flow !== undefined) return this.#continue(flow, packet, tuple, now, { story, marks })
    const forward = this.#judgeTuple(tuple)
    if (forward.allowed) {
      story.push(...forward.story)
      advance(this.flows.begin(tuple, now, this.#epoch), packet, tuple, now)
      return forward
    }
    if (tuple.protocol === protocols.tcp && !isSyn(packet)) {
      const client = reversed(tuple)
      const backward = this.#judgeTuple(client)
      if (!backward.allowed) return { allowed: false, reason: 'invalid flow', rules: [] }
      marks.push('adopted as an answer')
      story.push('no SYN was seen: taken for the answer of a connection that may be', ...backward.story)
      advance(this.flows.begin(client, now, this.#epoch), packet, tuple, now)
      return backward
    }
    story.push(...forward.story)
    return forward
  }

  #continue(
    flow: Flow,
    packet: Packet,
    tuple: Tuple,
    now: number,
    { story, marks }: Told,
  ): { readonly allowed: boolean; readonly reason: Reason; readonly rules: readonly string[] } {
    const judged = this.#judgeTuple(flow.client)
    if (flow.epoch !== this.#epoch) {
      if (!judged.allowed) {
        marks.push('cut by a change of rules')
        story.push('known, but the rules have changed', ...judged.story)
        this.flows.remove(flow)
        return judged
      }
      flow.epoch = this.#epoch
    }
    story.push(sameTuple(tuple, flow.client) ? `known, ${flow.phase}` : `an answer, ${flow.phase}`)
    advance(flow, packet, tuple, now)
    return judged
  }

  /** Egress of the source where it is a pod of this node, ingress of the destination where that is. */
  #judgeTuple(tuple: Tuple): {
    readonly allowed: boolean
    readonly reason: Reason
    readonly rules: readonly string[]
    readonly story: readonly string[]
  } {
    const from = this.#pods.get(tuple.source)
    const to = this.#pods.get(tuple.destination)
    const asked = askedOf(tuple)
    const rules: string[] = []
    const story: string[] = []
    const sides: [Pod | undefined, 'egress' | 'ingress', Party][] = [
      [from, 'egress', { address: tuple.destination, pod: to }],
      [to, 'ingress', { address: tuple.source, pod: from }],
    ]
    for (const [pod, direction, peer] of sides) {
      if (pod === undefined || pod.node !== this.name) continue
      // The node that a pod runs on always reaches it (NetworkPolicy, "Traffic to and from the node").
      if (direction === 'ingress' && this.identityOf(peer.address) === 'host') continue
      const judgement = judgePolicy(this.#cluster, direction, pod, peer, asked)
      story.push(tell(judgement, direction, pod))
      if (!judgement.allowed) {
        const unknown = this.identityOf(peer.address) === 'unknown pod'
        return { allowed: false, reason: unknown ? 'unknown sender' : 'policy denied', rules: [], story }
      }
      rules.push(...judgement.rules)
    }
    return { allowed: true, reason: 'forwarded', rules, story }
  }

  #forward(hook: Hook, packet: Packet, to: Pod | undefined): Omit<Result, 'rules'> {
    const { name } = this
    if (hook.from === 'host') return { end: 'stack', reason: 'forwarded' }
    // What is the node's own, and what needs an ICMP error, is the stack's.
    if (packet.hops < 2) return { end: 'stack', reason: 'forwarded' }
    const next = { ...packet, hops: packet.hops - 1 }
    if (to !== undefined) return { end: 'pod', reason: 'forwarded', packet: next, pod: nameOf(to) }
    const own = this.#cluster.nodes.get(name)
    const ours =
      own !== undefined &&
      (own.addresses.includes(packet.destination) || own.podCidrs.some((c) => contains(c, packet.destination)))
    return ours ? { end: 'stack', reason: 'forwarded' } : { end: 'out', reason: 'forwarded', packet: next }
  }
}

function tell(judgement: Judgement, direction: string, pod: Pod): string {
  if (!judgement.isolated) return `${nameOf(pod)} is open for ${direction}`
  if (judgement.allowed) return `${direction} of ${nameOf(pod)} by ${judgement.rules[0] ?? 'itself'}`
  return `${direction} of ${nameOf(pod)} is closed by ${judgement.policies.join(', ')}`
}

const askedOf = ({ protocol, destinationPort }: Tuple): Asked => ({
  protocol,
  port:
    protocol === protocols.tcp || protocol === protocols.udp || protocol === protocols.sctp
      ? destinationPort
      : undefined,
})

/** Ports, or 0 for what has none: such a packet is known by its addresses and protocol. */
function trackedTuple(packet: Packet): Tuple {
  const { source, destination } = packet
  return tupleOf(packet) ?? { source, destination, sourcePort: 0, destinationPort: 0, protocol: protocolOf(packet) }
}

function checkMulticast({ source, destination }: Packet): void {
  const multicast =
    familyOf(destination) === 4
      ? contains('224.0.0.0/4', destination)
      : contains('ff00::/8', destination) || contains('fe80::/10', destination) || contains('fe80::/10', source)
  if (multicast) throw new Dropped('multicast')
}
