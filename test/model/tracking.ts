import { compareAddresses } from './address.ts'
import type { Pod } from './cluster.ts'
import { chunks, flag, type Packet, protocols, type Tuple } from './packet.ts'

/**
 * Connections as a stateful middlebox sees them (RFC 5382, 4787, 5508, 9293, 9260). A flow begins with a packet that policy
 * allows, is established once both sides have spoken, and ends by its own end or by silence. Times are milliseconds of the
 * clock that the test passes in.
 *
 * Where an RFC leaves a choice, this is ours:
 * - a reset counts if its number lies between what its receiver has acknowledged and what its sender has sent (RFC 9293,
 *   3.10.7.4 allows the whole window; who guesses blindly has the least here);
 * - a connection whose both ends have closed, and acknowledged that, is gone at once; until then ten seconds;
 * - a SYN on a connection that both ends have closed begins another; on any other it changes nothing (RFC 5961, 4).
 */

/** How long a silent flow lives. */
export const lifeMs = {
  /** One side only has spoken, whatever the protocol. */
  unanswered: 60_000,
  /** RFC 5382, REQ-5: at least two hours and four minutes. Half-closed is alive. */
  connected: 8_000_000,
  closing: 10_000,
  /** RFC 4787, REQ-5: at least two minutes. */
  datagrams: 180_000,
  /** RFC 5508, REQ-2: at least sixty seconds. */
  icmp: 60_000,
} as const

type Pair<T> = [client: T, server: T]

export interface Flow {
  /** As the side that began it sends. */
  readonly client: Tuple
  /** Its beginning was not seen. */
  readonly adopted: boolean
  /** Begun by the node itself. */
  readonly fromHost: boolean
  /** Its ends have other names outside. */
  readonly translated: boolean
  /** Both ends were on this node: nobody outside has anything to do with it. */
  readonly isLocal: boolean
  readonly spoke: Pair<boolean>
  established: boolean
  closing: boolean
  /** TCP: FIN seen. */
  readonly fin: Pair<boolean>
  /** TCP: behind the last byte sent; SCTP: the tag asked for. */
  readonly sent: Pair<number>
  /** TCP: the highest acknowledgement. */
  readonly acked: Pair<number>
  lastSeen: number
  /** The number of the policy change before which it was last judged. */
  epoch: number
  /** First address of the pod whose share it counts to. */
  readonly countedTo: string | undefined
  /** Who one of its ends is, as the packet said that began it. */
  claim: Claim | undefined
}

/** The sender's node says who has the address. */
export interface Claim {
  readonly address: string
  readonly pod: Pod
}

/** Numerically, address before port: the same text for both directions. */
function keyOf(t: Tuple): string {
  const order =
    t.source === t.destination ? t.sourcePort - t.destinationPort : compareAddresses(t.source, t.destination)
  return order <= 0
    ? `${t.source} ${t.sourcePort} ${t.destination} ${t.destinationPort} ${t.protocol}`
    : `${t.destination} ${t.destinationPort} ${t.source} ${t.sourcePort} ${t.protocol}`
}

export const sameTuple = (a: Tuple, b: Tuple): boolean =>
  a.source === b.source &&
  a.destination === b.destination &&
  a.sourcePort === b.sourcePort &&
  a.destinationPort === b.destinationPort &&
  a.protocol === b.protocol

/** How many established flows there may be, how many of one pod's, and how many translations. */
export interface Limits {
  readonly flows: number
  readonly share: number
  /** Of the flows, so many may be unanswered; more are a flood. */
  readonly waiting: number
  /** Entries of translations: two for each connection. */
  readonly translations: number
}

export class Flows {
  readonly #limits: Limits
  /** The established ones; the first so many that nobody has answered wait among them. */
  readonly #table = new Map<string, Flow>()
  /** The rest of those that nobody has answered: kept as long as there is room. */
  readonly #flood = new Map<string, Flow>()
  readonly #shares = new Map<string, number>()
  #waiting = 0

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /** The live flow that a packet of this tuple belongs to, in either direction. */
  find(tuple: Tuple, now: number): Flow | undefined {
    const key = keyOf(tuple)
    const known = this.#table.get(key)
    if (known !== undefined) {
      if (now - known.lastSeen <= lifeOf(known)) return known
      this.remove(known)
    }
    const other = this.#flood.get(key)
    return other !== undefined && now - other.lastSeen <= lifeOf(other) ? other : undefined
  }

  /** What lies in the table for the tuple, over or not. */
  lying(tuple: Tuple): Flow | undefined {
    return this.#table.get(keyOf(tuple))
  }

  begin(flow: Flow): void {
    const waits = this.#waiting < this.#limits.waiting && this.#table.size < this.#limits.flows
    if (waits) this.#waiting++
    const map = waits ? this.#table : this.#flood
    map.set(keyOf(flow.client), flow)
  }

  /** Both sides have spoken. Says why it may not be established. */
  establish(flow: Flow): 'flows full' | 'flows share' | undefined {
    const { countedTo } = flow
    const key = keyOf(flow.client)
    const share = countedTo === undefined ? 0 : (this.#shares.get(countedTo) ?? 0)
    if (countedTo !== undefined && share >= this.#limits.share) return 'flows share'
    if (this.#table.get(key) === flow) this.#waiting--
    else {
      if (this.#table.size >= this.#limits.flows) return 'flows full'
      this.#flood.delete(key)
      this.#table.set(key, flow)
    }
    if (countedTo !== undefined) this.#shares.set(countedTo, share + 1)
    flow.established = true
    return undefined
  }

  /** Takes away what is over: only its room is missed. */
  sweep(now: number): void {
    for (const flow of [...this.#table.values()]) if (now - flow.lastSeen > lifeOf(flow)) this.remove(flow)
  }

  remove(flow: Flow): void {
    const key = keyOf(flow.client)
    if (this.#flood.get(key) === flow) this.#flood.delete(key)
    if (this.#table.get(key) !== flow) return
    this.#table.delete(key)
    const { countedTo, established } = flow
    if (!established) this.#waiting--
    else if (countedTo !== undefined) this.#shares.set(countedTo, (this.#shares.get(countedTo) ?? 1) - 1)
  }

  has(flow: Flow): boolean {
    const key = keyOf(flow.client)
    return this.#table.get(key) === flow || this.#flood.get(key) === flow
  }

  /** The pod whose share is counted under this address is gone, and what is counted with it. */
  forgetShare(address: string): void {
    for (const flow of [...this.#table.values()]) if (flow.countedTo === address) this.remove(flow)
  }
}

function lifeOf({ client, established, closing }: Flow): number {
  if (!established) return lifeMs.unanswered
  if (closing) return lifeMs.closing
  switch (client.protocol) {
    case protocols.tcp:
    case protocols.sctp:
      return lifeMs.connected
    case protocols.icmp:
    case protocols.icmp6:
      return lifeMs.icmp
    default:
      return lifeMs.datagrams
  }
}

const tcpBits = flag.syn | flag.ack | flag.rst | flag.fin

/** By its looks it does not answer anything. What carries no such sign may begin a flow. */
export function beginsFlow(packet: Packet, tuple: Tuple): boolean {
  const { layer4, fragment } = packet
  const isLater = fragment !== undefined && fragment.offset > 0
  switch (tuple.protocol) {
    case protocols.tcp:
      return !isLater && layer4.kind === 'tcp' && (layer4.flags & tcpBits) === flag.syn
    case protocols.sctp:
      return !isLater && layer4.kind === 'sctp' && layer4.chunk === chunks.init
    case protocols.icmp:
    case protocols.icmp6:
      return isLater || tuple.destinationPort === 0
    default:
      return true
  }
}

export const isReset = ({ layer4 }: Packet): boolean => layer4.kind === 'tcp' && (layer4.flags & flag.rst) !== 0

/** Modulo 2^32 (RFC 9293, 3.4). */
export const after = (a: number, b: number): boolean => ((a - b) | 0) > 0

/** Behind its last number; 0 of what is not TCP. */
export const endOf = (packet: Packet): number => {
  const { layer4 } = packet
  if (layer4.kind !== 'tcp') return 0
  const { flags, sequence, payload } = layer4
  const bytes = Math.min(payload, (packet.short ?? Number.POSITIVE_INFINITY) - 20)
  return (sequence + bytes + ((flags & flag.syn) === 0 ? 0 : 1) + ((flags & flag.fin) === 0 ? 0 : 1)) >>> 0
}

/** The tag that an INIT asks for; 0 where the packet ends before it. */
const initiateOf = ({ layer4, short = Number.POSITIVE_INFINITY }: Packet): number =>
  layer4.kind === 'sctp' && short >= 20 ? layer4.initiate : 0

/** A flow of this packet, not yet known. `side` 1: the packet is the server's, whose client was not heard. */
export function flowOf(
  packet: Packet,
  client: Tuple,
  side: 0 | 1,
  known: Pick<Flow, 'adopted' | 'fromHost' | 'translated' | 'isLocal' | 'lastSeen' | 'epoch' | 'countedTo' | 'claim'>,
): Flow {
  const flow: Flow = {
    client,
    ...known,
    spoke: [side === 0, side === 1],
    established: false,
    closing: false,
    fin: [false, false],
    sent: [0, 0],
    acked: [0, 0],
  }
  const { layer4 } = packet
  if (layer4.kind === 'tcp') {
    const acks = (layer4.flags & flag.ack) !== 0
    flow.sent[side] = endOf(packet)
    if (acks) flow.acked[side] = layer4.acknowledgement
    if (known.adopted) {
      // What it acknowledges has been sent, and its own number is where the other side's acknowledgements must be.
      flow.sent[1 - side] = layer4.acknowledgement
      flow.acked[1 - side] = layer4.sequence
    }
    flow.fin[side] = (layer4.flags & flag.fin) !== 0
  } else if (layer4.kind === 'sctp' && layer4.chunk === chunks.init) flow.sent[side] = initiateOf(packet)
  return flow
}

function note(flow: Flow, packet: Packet, side: 0 | 1): void {
  const { layer4 } = packet
  if (layer4.kind !== 'tcp') return
  const end = endOf(packet)
  if (after(end, flow.sent[side])) flow.sent[side] = end
  if ((layer4.flags & flag.ack) !== 0 && after(layer4.acknowledgement, flow.acked[side]))
    flow.acked[side] = layer4.acknowledgement
  if ((layer4.flags & flag.fin) !== 0) flow.fin[side] = true
}

/** A packet of a flow that only one side has spoken in. */
export function followUnanswered(
  flows: Flows,
  flow: Flow,
  packet: Packet,
  side: 0 | 1,
  now: number,
): 'flows full' | 'flows share' | undefined {
  const { layer4, fragment } = packet
  const isLater = fragment !== undefined && fragment.offset > 0
  const tcp = layer4.kind === 'tcp' && !isLater ? layer4 : undefined
  const sctp = layer4.kind === 'sctp' && !isLater ? layer4 : undefined
  if (tcp !== undefined && (tcp.flags & flag.rst) !== 0) {
    // Given up by who asked; or refused, by an answer that names what it answers (RFC 9293, 3.10.7.3).
    if (side === 0 || flow.adopted || tcp.acknowledgement === flow.sent[0]) flows.remove(flow)
    return undefined
  }
  if (flow.spoke[side]) {
    flow.lastSeen = now
    if (tcp !== undefined && (tcp.flags & flag.syn) !== 0 && side === 0) {
      flow.sent[0] = endOf(packet)
      if ((tcp.flags & flag.fin) !== 0) flow.fin[0] = true
    } else note(flow, packet, side)
    if (sctp?.chunk === chunks.init && side === 0) flow.sent[0] = initiateOf(packet)
    return undefined
  }
  if (!flow.adopted && flow.client.protocol === protocols.tcp) {
    // Only a SYN answers a SYN, with an acknowledgement of it or at the same moment.
    if (tcp === undefined || (tcp.flags & flag.syn) === 0) return undefined
    if ((tcp.flags & flag.ack) !== 0 && (flow.sent[0] - tcp.acknowledgement) >>> 0 > 0xffff) return undefined
  }
  if (!flow.adopted && flow.client.protocol === protocols.sctp) {
    // By the tag that was asked for (RFC 9260, 8.5).
    const answers = sctp?.chunk === chunks.initAck ? sctp.tag === flow.sent[0] : sctp?.chunk === chunks.init
    if (!answers) return undefined
  }
  const refused = flows.establish(flow)
  if (refused !== undefined) return refused
  flow.spoke[side] = true
  flow.lastSeen = now
  if (tcp !== undefined && !flow.adopted) {
    flow.sent[1] = endOf(packet)
    // At the same moment: nothing is acknowledged yet, so what counts begins where the client began.
    flow.acked[1] = (tcp.flags & flag.ack) === 0 ? (flow.sent[0] - 1) >>> 0 : tcp.acknowledgement
    flow.acked[0] = tcp.sequence
    if ((tcp.flags & flag.fin) !== 0) flow.fin[1] = true
  } else if (tcp !== undefined) note(flow, packet, side)
  if (sctp !== undefined) flow.sent[1] = initiateOf(packet)
  flow.closing = flow.fin[0] && flow.fin[1]
  return undefined
}

/** Does this packet of an established flow begin another? */
export function beginsAnother({ client, closing }: Flow, packet: Packet): boolean {
  return (
    closing && (client.protocol === protocols.tcp || client.protocol === protocols.sctp) && beginsFlow(packet, client)
  )
}

/** A packet of an established flow. */
export function followEstablished(flows: Flows, flow: Flow, packet: Packet, side: 0 | 1, now: number): void {
  const { layer4, fragment } = packet
  flow.lastSeen = now
  const isLater = fragment !== undefined && fragment.offset > 0
  if (isLater && flow.client.protocol !== protocols.tcp) return
  if (layer4.kind === 'sctp') {
    const ends = layer4.chunk === chunks.abort || layer4.chunk === chunks.shutdownComplete
    // The receiver's tag, or, told so by bit T, the sender's own.
    if (ends && (flow.adopted || layer4.tag === flow.sent[0] || layer4.tag === flow.sent[1])) flow.closing = true
    return
  }
  if (isLater) {
    removeClosed(flows, flow)
    return
  }
  if (layer4.kind !== 'tcp') return
  if ((layer4.flags & flag.rst) !== 0) {
    const valid = !after(flow.acked[1 - side] ?? 0, layer4.sequence) && !after(layer4.sequence, flow.sent[side])
    if (valid) flows.remove(flow)
  } else if ((layer4.flags & tcpBits) !== flag.syn) note(flow, packet, side)
  removeClosed(flows, flow)
}

/** Both ends have closed: soon forgotten, and at once where both closings are acknowledged. */
function removeClosed(flows: Flows, flow: Flow): void {
  if (!flow.fin[0] || !flow.fin[1]) return
  flow.closing = true
  if (!after(flow.sent[1], flow.acked[0]) && !after(flow.sent[0], flow.acked[1])) flows.remove(flow)
}
