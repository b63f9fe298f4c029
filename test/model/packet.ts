/** A packet as a person would describe it. frame.ts makes bytes of it and reads bytes back. */

export const protocols = { icmp: 1, tcp: 6, udp: 17, gre: 47, icmp6: 58, sctp: 132 } as const

/** Bits of the TCP header (RFC 9293, 3.1). */
export const flag = { fin: 1, syn: 2, rst: 4, push: 8, ack: 16 } as const

export interface Tcp {
  readonly kind: 'tcp'
  readonly sourcePort: number
  readonly destinationPort: number
  readonly sequence: number
  readonly acknowledgement: number
  readonly flags: number
  readonly window: number
  /** Bytes of data. */
  readonly payload: number
}

export interface Udp {
  readonly kind: 'udp'
  readonly sourcePort: number
  readonly destinationPort: number
  readonly payload: number
  /** IPv4 only: the sender made no checksum (RFC 768). It must stay so. */
  readonly unsummed?: boolean
}

export interface Sctp {
  readonly kind: 'sctp'
  readonly sourcePort: number
  readonly destinationPort: number
  /** Type of the first chunk (RFC 9260, 3.2): `chunks`. */
  readonly chunk: number
  /** Verification tag: what the receiver has asked for; 0 in an INIT. */
  readonly tag: number
  /** INIT and INIT ACK: the tag that the sender asks for. */
  readonly initiate: number
}

export const chunks = { data: 0, init: 1, initAck: 2, abort: 6, shutdown: 7, shutdownComplete: 14 } as const

export interface Echo {
  readonly kind: 'echo'
  readonly reply: boolean
  readonly identifier: number
  readonly sequence: number
  readonly payload: number
}

/** Errors of RFC 792 and RFC 4443 that carry the packet which they are about. */
export const errors = ['unreachable', 'too-big', 'time-exceeded', 'parameter-problem'] as const
export type ErrorName = (typeof errors)[number]

export interface IcmpError {
  readonly kind: 'error'
  readonly error: ErrorName
  readonly code: number
  /** Of too-big. */
  readonly mtu: number
  readonly inner: Packet
  /** Of the inner packet's bytes, how many are quoted: at least its header and eight more (RFC 792). */
  readonly quoted: number
  /** The inner packet had these ends when its upper layer's checksum was made; that one nobody makes again (RFC 5508). */
  readonly summedAs?: Packet
}

/** An ICMP message that is neither echo nor an error. */
export interface Message {
  readonly kind: 'message'
  readonly type: number
  readonly code: number
  /** Where its type has one and somebody exchanged it; otherwise `messageIdentifier`. */
  readonly identifier?: number
}

/** A protocol without ports that we know of, or what comes behind the first fragment. */
export interface Opaque {
  readonly kind: 'opaque'
  readonly protocol: number
  readonly payload: number
}

export type Layer4 = Tcp | Udp | Sctp | Echo | IcmpError | Message | Opaque

/** IPv6 extension headers (RFC 8200, 4) before the upper layer; fragmentation is `fragment`. */
export type Extension = 'hop-by-hop' | 'destination' | 'routing' | 'authentication'

export interface Fragment {
  readonly id: number
  /** In bytes, a multiple of eight. */
  readonly offset: number
  readonly more: boolean
}

export interface Packet {
  readonly source: string
  readonly destination: string
  /** TTL or hop limit. */
  readonly hops: number
  readonly layer4: Layer4
  /** IPv4: bytes of options, 0 to 40, a multiple of four. */
  readonly options?: number
  readonly extensions?: readonly Extension[]
  readonly fragment?: Fragment
  /** The frame ends after so many bytes, whatever its headers say. */
  readonly cut?: number
  /** The packet says itself that it ends so many bytes into its upper layer. */
  readonly short?: number
  /** What its first header says that is not so. */
  readonly lie?: Lie
}

/**
 * `version`: not that of the frame's type; `header`: IPv4, shorter than a header can be; `ethertype`: neither IP nor ARP;
 * `offset`: TCP, data begins within the header's fixed part; `far-offset`: TCP, it begins behind the packet's end;
 * `segments`: a routing header, if there is one, has segments left.
 */
export const lies = ['version', 'header', 'ethertype', 'offset', 'far-offset', 'segments'] as const
export type Lie = (typeof lies)[number]

/** The protocol number of the upper layer. */
export function protocolOf(packet: Packet): number {
  const six = packet.source.includes(':')
  switch (packet.layer4.kind) {
    case 'tcp':
      return protocols.tcp
    case 'udp':
      return protocols.udp
    case 'sctp':
      return protocols.sctp
    case 'echo':
    case 'error':
    case 'message':
      return six ? protocols.icmp6 : protocols.icmp
    case 'opaque':
      return packet.layer4.protocol
    default:
      return packet.layer4 satisfies never
  }
}

/**
 * What a flow is known by: after DNAT, before SNAT. ICMP echo has its identifier in the port of who asks, 0 in the other:
 * an answer is then known from a question.
 */
export interface Tuple {
  readonly source: string
  readonly destination: string
  readonly sourcePort: number
  readonly destinationPort: number
  readonly protocol: number
}

export const reversed = (t: Tuple): Tuple => ({
  source: t.destination,
  destination: t.source,
  sourcePort: t.destinationPort,
  destinationPort: t.sourcePort,
  protocol: t.protocol,
})

/** The tuple of a packet that begins something; undefined where it has no ports to know it by. */
export function tupleOf(packet: Packet): Tuple | undefined {
  const { source, destination, layer4 } = packet
  const protocol = protocolOf(packet)
  switch (layer4.kind) {
    case 'tcp':
    case 'udp':
    case 'sctp':
      return {
        source,
        destination,
        sourcePort: layer4.sourcePort,
        destinationPort: layer4.destinationPort,
        protocol,
      }
    case 'echo':
      return { source, destination, ...asking(layer4.reply, layer4.identifier), protocol }
    case 'message':
      // Timestamps, information and masks have an identifier where an echo has it (RFC 792, 950); odd types ask.
      if (protocol !== protocols.icmp || layer4.type < 13 || layer4.type > 18) return undefined
      return { source, destination, ...asking(layer4.type % 2 === 0, layer4.identifier ?? messageIdentifier), protocol }
    case 'error':
    case 'opaque':
      return undefined
    default:
      return layer4 satisfies never
  }
}

/** Its protocol has ports (RFC 9293, 768, 9260). */
export const hasPorts = ({ protocol }: Tuple): boolean =>
  protocol === protocols.tcp || protocol === protocols.udp || protocol === protocols.sctp

const asking = (reply: boolean, identifier: number): Pick<Tuple, 'sourcePort' | 'destinationPort'> =>
  reply ? { sourcePort: 0, destinationPort: identifier } : { sourcePort: identifier, destinationPort: 0 }

/** What the first bytes of a message's body happen to be. */
export const messageIdentifier = 0x0b30

/** Upper layer of so many bytes, when nothing shortens it. */
export function layer4Bytes(layer4: Layer4): number {
  switch (layer4.kind) {
    case 'tcp':
      return 20 + layer4.payload
    case 'udp':
    case 'echo':
      return 8 + layer4.payload
    case 'sctp':
      return 32
    case 'message':
      return 20
    case 'error':
      return 8 + Math.min(layer4.quoted, packetBytes(layer4.inner))
    case 'opaque':
      return layer4.payload
    default:
      return layer4 satisfies never
  }
}

/** From the first network header to the end, as the packet says it. */
export function packetBytes(packet: Packet): number {
  const { extensions = [], fragment, options = 0, layer4, short = Number.POSITIVE_INFINITY } = packet
  const header = packet.source.includes(':')
    ? extensions.reduce((n, e) => n + (e === 'authentication' ? 16 : 8), fragment === undefined ? 40 : 48)
    : 20 + options
  return header + Math.min(short, layer4Bytes(layer4))
}

/** The packet with other ends; ports where it has them, the identifier of an echo where the source's port is new. */
export function withEnds(packet: Packet, ends: Partial<Omit<Tuple, 'protocol'>>): Packet {
  const { source = packet.source, destination = packet.destination } = ends
  return { ...packet, source, destination, layer4: withPorts(packet.layer4, ends.sourcePort, ends.destinationPort) }
}

function withPorts(layer4: Layer4, sourcePort: number | undefined, destinationPort: number | undefined): Layer4 {
  switch (layer4.kind) {
    case 'tcp':
    case 'udp':
    case 'sctp':
      return {
        ...layer4,
        sourcePort: sourcePort ?? layer4.sourcePort,
        destinationPort: destinationPort ?? layer4.destinationPort,
      }
    case 'echo':
      return { ...layer4, identifier: (layer4.reply ? destinationPort : sourcePort) ?? layer4.identifier }
    case 'message': {
      const own = layer4.identifier ?? messageIdentifier
      const identifier = (layer4.type % 2 === 0 ? destinationPort : sourcePort) ?? own
      return identifier === own || layer4.type < 13 || layer4.type > 18 ? layer4 : { ...layer4, identifier }
    }
    case 'error':
    case 'opaque':
      return layer4
    default:
      return layer4 satisfies never
  }
}
