import { flag, type Packet, protocols, reversed, type Tuple } from './packet.ts'

/**
 * Connections as a stateful middlebox sees them. A flow begins with a packet that policy allows, is established once it is
 * answered, and ends by silence. Times are milliseconds of the clock that the test passes in.
 */

/** How long a silent flow lives. */
export const lifeMs = {
  /** One side only has spoken, whatever the protocol. */
  unanswered: 60_000,
  /** RFC 5382, REQ-5: at least two hours and four minutes. */
  tcp: 8_000_000,
  /** Both sides have closed, or one has reset: the last acknowledgement and what was under way may still pass. */
  closing: 10_000,
  /** RFC 4787, REQ-5: at least two minutes. */
  udp: 180_000,
  /** RFC 5508, REQ-2: at least sixty seconds. */
  icmp: 60_000,
} as const

/** A reset counts if its sequence is at most this far past what the other side has acknowledged (RFC 9293, 3.10.7.4). */
export const resetWindow = 0x10000

export type Phase = 'unanswered' | 'established' | 'closing'

export interface Flow {
  /** As the side that began it sends. */
  readonly client: Tuple
  phase: Phase
  /** FIN seen from the client, from the server. */
  readonly fin: [boolean, boolean]
  /** Highest acknowledgement that the client, the server has sent. */
  readonly acked: [number | undefined, number | undefined]
  lastSeen: number
  /** The number of the policy change before which it was last judged. */
  epoch: number
}

const keyOf = (t: Tuple): string =>
  t.source < t.destination || (t.source === t.destination && t.sourcePort <= t.destinationPort)
    ? `${t.source} ${t.sourcePort} ${t.destination} ${t.destinationPort} ${t.protocol}`
    : `${t.destination} ${t.destinationPort} ${t.source} ${t.sourcePort} ${t.protocol}`

export const sameTuple = (a: Tuple, b: Tuple): boolean =>
  a.source === b.source &&
  a.destination === b.destination &&
  a.sourcePort === b.sourcePort &&
  a.destinationPort === b.destinationPort &&
  a.protocol === b.protocol

export class Flows {
  readonly #flows = new Map<string, Flow>()

  /** The live flow that a packet of this tuple belongs to, in either direction. */
  find(tuple: Tuple, now: number): Flow | undefined {
    const flow = this.#flows.get(keyOf(tuple))
    return flow !== undefined && now - flow.lastSeen <= lifeOf(flow) ? flow : undefined
  }

  begin(client: Tuple, now: number, epoch: number): Flow {
    const flow: Flow = {
      client,
      phase: 'unanswered',
      fin: [false, false],
      acked: [undefined, undefined],
      lastSeen: now,
      epoch,
    }
    this.#flows.set(keyOf(client), flow)
    return flow
  }

  remove(flow: Flow): void {
    this.#flows.delete(keyOf(flow.client))
  }

  /** Flows in the order in which they began. */
  values(): IterableIterator<Flow> {
    return this.#flows.values()
  }

  /** Flows that have an end at this address: they must not be met by whoever has the address next. */
  forget(address: string): void {
    for (const [key, { client }] of this.#flows)
      if (client.source === address || client.destination === address) this.#flows.delete(key)
  }
}

function lifeOf({ client, phase }: Flow): number {
  if (phase === 'closing') return lifeMs.closing
  if (phase === 'unanswered') return lifeMs.unanswered
  switch (client.protocol) {
    case protocols.tcp:
    case protocols.sctp:
      return lifeMs.tcp
    case protocols.icmp:
    case protocols.icmp6:
      return lifeMs.icmp
    default:
      return lifeMs.udp
  }
}

/** A bare SYN begins a connection; nothing else of TCP does. */
export const isSyn = (packet: Packet): boolean =>
  packet.layer4.kind === 'tcp' && (packet.layer4.flags & (flag.syn | flag.ack | flag.rst | flag.fin)) === flag.syn

/** What a packet of `tuple` does to its flow. The packet has been allowed. */
export function advance(flow: Flow, packet: Packet, tuple: Tuple, now: number): void {
  const side = sameTuple(tuple, flow.client) ? 0 : 1
  flow.lastSeen = now
  if (side === 1 && flow.phase === 'unanswered') flow.phase = 'established'
  if (packet.layer4.kind !== 'tcp') return
  const { flags, sequence, acknowledgement } = packet.layer4
  if ((flags & flag.rst) !== 0) {
    const acked = flow.acked[1 - side]
    if (acked === undefined || (sequence - acked) >>> 0 < resetWindow) flow.phase = 'closing'
    return
  }
  if ((flags & flag.ack) !== 0) {
    const before = flow.acked[side]
    if (before === undefined || ((acknowledgement - before) | 0) > 0) flow.acked[side] = acknowledgement >>> 0
  }
  if ((flags & flag.fin) !== 0) {
    flow.fin[side] = true
    if (flow.fin[0] && flow.fin[1]) flow.phase = 'closing'
  }
}

/** The packet that would answer this tuple. */
export const answerOf = reversed
