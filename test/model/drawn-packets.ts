import { familyOf } from './address.ts'
import type { ProtocolName } from './cluster.ts'
import type { Draw } from './draw.ts'
import { frameLength } from './frame.ts'
import { chunks, type Extension, flag, type Layer4, type Packet, protocols, type Tcp } from './packet.ts'
import { ports } from './universe.ts'

/** Packets that begin something: to a place, of any protocol, now and then odd in a way that a parser may trip over. */

export interface Destination {
  readonly address: string
  /** What a Service is asked for there. */
  readonly protocol?: ProtocolName
  readonly port?: number
}

/** Around what devices carry. */
const largePayload = (draw: Draw): number => (draw.oneIn(2) ? 1_350 + draw.next(100) : 1_490 + draw.next(80))

export function packetTo(source: string, { address, protocol, port }: Destination, draw: Draw): Packet {
  const hops = draw.oneIn(12) ? draw.of([1, 2, 255]) : 64
  const layer4 = layer4To(familyOf(source), draw, protocol, port)
  const packet: Packet = { source, destination: address, hops, layer4 }
  return draw.oneIn(8) ? odd(packet, draw) : packet
}

function layer4To(family: 4 | 6, draw: Draw, protocol: ProtocolName | undefined, port: number | undefined): Layer4 {
  const destinationPort = port ?? (draw.oneIn(15) ? draw.next(65536) : draw.of(ports))
  // Few source ports: tuples are met again.
  const sourcePort = draw.oneIn(10) ? draw.of(ports) : 40_000 + draw.next(6)
  const kind = protocol === undefined ? draw.next(20) : kindOf[protocol]
  if (kind < 10) {
    const flags = draw.oneIn(3)
      ? draw.of([flag.ack, flag.syn | flag.ack, flag.rst, flag.fin | flag.ack, flag.ack | flag.push])
      : flag.syn
    return tcp(sourcePort, destinationPort, flags, draw.next(1 << 16) * 65_537, 0, draw.next(4) * 7)
  }
  if (kind < 15)
    return {
      kind: 'udp',
      sourcePort,
      destinationPort,
      payload: draw.oneIn(30) ? largePayload(draw) : draw.next(5) * 5,
      ...(family === 4 && draw.oneIn(4) ? { unsummed: true } : {}),
    }
  if (kind < 17) {
    const tag = draw.oneIn(3) ? 1 + draw.next(2) : 0
    const chunk = tag === 0 ? chunks.init : draw.of([chunks.data, chunks.abort, chunks.initAck])
    return { kind: 'sctp', sourcePort, destinationPort, chunk, tag, initiate: 1 + draw.next(3) }
  }
  if (kind < 19)
    return { kind: 'echo', reply: draw.oneIn(4), identifier: 1 + draw.next(4), sequence: draw.next(9), payload: 8 }
  if (draw.oneIn(4))
    return { kind: 'message', type: family === 4 ? draw.of([13, 14, 17]) : draw.of([133, 139, 140]), code: 0 }
  return {
    kind: 'opaque',
    protocol: draw.of([protocols.gre, 50, 4, 99, family === 4 ? protocols.icmp6 : protocols.icmp]),
    payload: 24,
  }
}

/** Where a protocol lies in the draw of kinds. */
const kindOf = { TCP: 0, UDP: 10, SCTP: 15 } as const

export const tcp = (
  sourcePort: number,
  destinationPort: number,
  flags: number,
  sequence: number,
  acks: number,
  payload: number,
): Tcp => ({
  kind: 'tcp',
  sourcePort,
  destinationPort,
  flags,
  sequence: sequence >>> 0,
  acknowledgement: (flags & flag.ack) === 0 ? 0 : acks >>> 0,
  window: 1024,
  payload,
})

/** A packet that says something else of itself than it is. */
export function deceptive(packet: Packet, draw: Draw): Packet {
  const six = familyOf(packet.source) === 6
  // An address that stands for IPv4 must never be on the wire.
  if (six && draw.oneIn(2)) return { ...packet, source: '::ffff:102:304' }
  if (draw.oneIn(3)) return { ...packet, lie: draw.of(['offset', 'far-offset']) }
  return { ...packet, cut: frameLength(packet) - 1 - draw.next(3) }
}

/** Everything that a parser may trip over. */
function odd(packet: Packet, draw: Draw): Packet {
  const six = familyOf(packet.source) === 6
  const l4Start = 14 + (six ? 40 : 20)
  switch (draw.next(8)) {
    case 0: {
      if (draw.oneIn(3)) return { ...packet, cut: Math.max(l4Start, l4Start + draw.next(24)) }
      if (draw.oneIn(4)) return { ...packet, lie: draw.of(['offset', 'far-offset']) }
      return { ...packet, short: draw.next(22) }
    }
    case 1:
      return { ...packet, lie: draw.of(six ? ['version', 'ethertype'] : ['version', 'header', 'ethertype']) }
    case 2:
    case 3:
      return { ...packet, fragment: { id: 1 + draw.next(3), offset: 0, more: true } }
    case 4:
      return {
        ...packet,
        fragment: { id: 1 + draw.next(3), offset: 8 * (1 + draw.next(4)), more: draw.oneIn(2) },
        layer4: { kind: 'opaque', protocol: draw.of([6, 17, 17]), payload: 24 },
      }
    case 5:
      return six ? { ...packet, source: '::ffff:102:304' } : { ...packet, options: 4 * (1 + draw.next(10)) }
    default: {
      if (!six) return { ...packet, options: 4 * (1 + draw.next(10)) }
      const all: readonly Extension[] = ['hop-by-hop', 'destination', 'routing', 'authentication']
      const length = draw.oneIn(4) ? 6 + draw.next(4) : 1 + draw.next(4)
      const segments = draw.oneIn(6) ? { lie: 'segments' as const } : {}
      const first = length > 4 ? 'destination' : draw.of(all)
      return {
        ...packet,
        ...segments,
        extensions: [first, ...Array.from({ length: length - 1 }, () => draw.of(all.slice(1)))],
      }
    }
  }
}
