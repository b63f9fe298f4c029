import { flag, type Packet, protocols, reversed, type Tcp, type Tuple } from './packet.ts'
import { after, beginsFlow, endOf, sameTuple } from './tracking.ts'

/**
 * Addresses that are exchanged for the length of a connection (RFC 4787, 5382, 5508, 7857): a question's packets get one
 * pair of ends, the answers the other way round.
 */

/** Source ports under a node's own address: what IANA leaves to whoever wants it (RFC 6335). */
export const natPorts = { first: 49_152, count: 16_384 } as const

/** A pod that asks itself hears itself under these, so that its answers come back to be translated. */
export const hairpin = { 4: '169.254.42.1', 6: 'fd00:169:254:42::1' } as const

export interface Pair {
  /** As it comes. */
  readonly question: Tuple
  /** As it goes on. */
  readonly to: Tuple
  readonly kind: 'service' | 'masquerade'
  /** Neither end is on this node: it goes on by the node's routes. */
  readonly isOut: boolean
  readonly isHairpin: boolean
  /** TCP: behind the last byte of the question's side and the answers'; undefined: it has not spoken. */
  readonly sent: [number | undefined, number | undefined]
  fin: [boolean, boolean]
  reset: boolean
  answered: boolean
  lastSeen: number
}

/** How long a silent pair lives once somebody looks; as flows do (tracking.ts). Seconds, for nobody notes less. */
const lifeSeconds = { closing: 10, unanswered: 60, connected: 8_000, icmp: 60, datagrams: 180 } as const

function lifeOf({ question: { protocol }, fin, reset, answered }: Pair): number {
  if (reset || (fin[0] && fin[1])) return lifeSeconds.closing
  if (!answered) return lifeSeconds.unanswered
  if (protocol === protocols.tcp || protocol === protocols.sctp) return lifeSeconds.connected
  return protocol === protocols.icmp || protocol === protocols.icmp6 ? lifeSeconds.icmp : lifeSeconds.datagrams
}

/** Which of a pair a packet is: 0 a question, 1 an answer. */
export interface PairSide {
  readonly pair: Pair
  readonly side: 0 | 1
}

const text = (t: Tuple): string => `${t.source} ${t.sourcePort} ${t.destination} ${t.destinationPort} ${t.protocol}`

export class Pairs {
  readonly #byPacket = new Map<string, PairSide>()
  readonly #entriesMax: number

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax
  }

  /** The pair of a packet that comes with this tuple. */
  get(tuple: Tuple): PairSide | undefined {
    return this.#byPacket.get(text(tuple))
  }

  /** Notes what the packet says of its connection. A beginning on one that is over finds nothing: the pair goes. */
  find(tuple: Tuple, packet: Packet, now: number): PairSide | undefined {
    const found = this.get(tuple)
    if (found === undefined) return undefined
    const { pair, side } = found
    const isSyn = tuple.protocol === protocols.tcp && beginsFlow(packet, tuple)
    if (isSyn && side === 0 && (pair.reset || (pair.fin[0] && pair.fin[1]))) {
      this.remove(pair)
      return undefined
    }
    pair.lastSeen = now
    noteSegment(found, packet, isSyn)
    if (side === 1) pair.answered = true
    return found
  }

  /** Would the answers of `question`, sent on as `to`, be told from all others? */
  isFree(question: Tuple, to: Tuple): boolean {
    const there = this.get(reversed(to))
    return there === undefined || (there.side === 1 && sameTuple(there.pair.question, question))
  }

  /** Room for one more? Each takes two entries. */
  get isFull(): boolean {
    return this.#byPacket.size + 2 > this.#entriesMax
  }

  /** Takes away what nobody has used for as long as its connection may be silent. */
  sweep(now: number): void {
    for (const { pair, side } of [...this.#byPacket.values()])
      if (side === 0 && Math.floor(now / 1_000) - Math.floor(pair.lastSeen / 1_000) > lifeOf(pair)) this.remove(pair)
  }

  add(pair: Pair): void {
    this.#byPacket.set(text(pair.question), { pair, side: 0 })
    this.#byPacket.set(text(reversed(pair.to)), { pair, side: 1 })
  }

  remove({ question, to }: Pair): void {
    this.#byPacket.delete(text(question))
    this.#byPacket.delete(text(reversed(to)))
  }
}

/** TCP's window where none is scaled (RFC 9293, 3.1). */
const windowMax = 0xffff

/**
 * Whether a reset ends a translation. What its receiver has acknowledged is the ends' affair: here it counts by what its sender
 * has sent, and one that has sent nothing must name the SYN that it refuses (RFC 9293, 3.10.7.3; RFC 7857, 2.2: to be verified).
 */
function resetCounts({ pair, side }: PairSide, layer4: Tcp): boolean {
  const sent = pair.sent[side]
  if (sent !== undefined) return (sent - layer4.sequence) >>> 0 <= windowMax
  return (layer4.flags & flag.ack) !== 0 && layer4.acknowledgement === pair.sent[1 - side]
}

function noteSegment(one: PairSide, packet: Packet, isSyn: boolean): void {
  const { pair, side } = one
  const { layer4, fragment } = packet
  if (layer4.kind !== 'tcp' || (fragment !== undefined && fragment.offset > 0)) return
  if ((layer4.flags & flag.rst) !== 0) {
    if (resetCounts(one, layer4)) pair.reset = true
    return
  }
  if ((layer4.flags & flag.fin) !== 0) pair.fin[side] = true
  const sent = pair.sent[side]
  const end = endOf(packet)
  // A SYN in the middle of a connection says nothing of it; asked once more, the question begins there.
  const begins = isSyn && side === 0 && !pair.answered
  if (sent === undefined || begins || (!isSyn && after(end, sent))) pair.sent[side] = end
}

/** What a packet of the pair is sent on as. */
export const onward = ({ pair, side }: PairSide): Tuple => (side === 0 ? pair.to : reversed(pair.question))

/** Ports, or an identifier, that can be exchanged. */
export const hasExchangeablePort = ({ protocol, sourcePort }: Tuple): boolean =>
  protocol === protocols.tcp ||
  protocol === protocols.udp ||
  ((protocol === protocols.icmp || protocol === protocols.icmp6) && sourcePort !== 0)

/** The place of a port in the range: its own where it is there already. */
export const portInRange = (port: number): number =>
  port >= natPorts.first ? port : natPorts.first + (port % natPorts.count)

/** May the translation of a connection begin with this packet? */
export function beginsPair(packet: Packet, tuple: Tuple): boolean {
  const { fragment } = packet
  if (fragment !== undefined && fragment.offset > 0) return false
  return tuple.protocol === protocols.tcp || tuple.protocol === protocols.sctp ? beginsFlow(packet, tuple) : true
}
