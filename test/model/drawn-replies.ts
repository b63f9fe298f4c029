import { familyOf } from './address.ts'
import type { Draw } from './draw.ts'
import { tcp } from './drawn-packets.ts'
import { frameLength } from './frame.ts'
import { chunks, errors, flag, type Layer4, type Packet, protocolOf, type Tcp } from './packet.ts'
import { outside } from './universe.ts'

/** Packets that refer to an earlier one: its sender going on, its receiver answering, somebody complaining of it. */

/** How far a segment moves the sequence: its data, and one each for SYN and FIN (RFC 9293, 3.4). */
const length = ({ flags, payload }: Tcp): number =>
  payload + ((flags & flag.syn) === 0 ? 0 : 1) + ((flags & flag.fin) === 0 ? 0 : 1)

export function next(layer4: Layer4, draw: Draw): Layer4 {
  if (layer4.kind !== 'tcp') return layer4
  const { sourcePort, destinationPort, sequence, acknowledgement } = layer4
  const flags = draw.of([
    flag.syn,
    flag.syn,
    flag.ack,
    flag.ack | flag.push,
    flag.fin | flag.ack,
    flag.rst,
    flag.rst | flag.ack,
  ])
  // In the window, at its edges, and far from it.
  const step = draw.of([length(layer4), length(layer4), 0, 0xffff, 0x10000, 0x7fffffff, 0x80000000, -1])
  return tcp(sourcePort, destinationPort, flags, sequence + step, acknowledgement, draw.next(3) * 10)
}

export function rest(packet: Packet, draw: Draw): Packet {
  const id = draw.oneIn(3) ? 1 + draw.next(3) : (packet.fragment?.id ?? 1)
  const fragment = { id, offset: 8 * (2 + draw.next(4)), more: draw.oneIn(2) }
  return { ...packet, fragment, layer4: { kind: 'opaque', protocol: protocolOf(packet), payload: 24 } }
}

export function anew(layer4: Layer4, draw: Draw): Layer4 {
  const sourcePort = 40_000 + draw.next(6)
  switch (layer4.kind) {
    case 'tcp':
      return tcp(sourcePort, layer4.destinationPort, flag.syn, draw.next(1 << 16) * 65_537, 0, 0)
    case 'udp':
    case 'sctp':
      return { ...layer4, sourcePort }
    case 'echo':
    case 'error':
    case 'message':
    case 'opaque':
      return layer4
    default:
      return layer4 satisfies never
  }
}

/** What whoever got this packet would send back, more or less. */
export function answer(packet: Packet, draw: Draw): Packet {
  const { source, destination, layer4, fragment } = packet
  const turned = { source: destination, destination: source, hops: 64 }
  // What has no header of its own is not answered by something else.
  if (fragment !== undefined && fragment.offset > 0) return { ...turned, fragment, layer4 }
  return { ...turned, layer4: answerLayer4(layer4, draw) }
}

function answerLayer4(layer4: Layer4, draw: Draw): Layer4 {
  switch (layer4.kind) {
    case 'tcp': {
      const { sourcePort, destinationPort, flags, sequence, acknowledgement } = layer4
      const acks = sequence + length(layer4)
      const fitting =
        (flags & (flag.syn | flag.ack)) === flag.syn
          ? draw.of([flag.syn | flag.ack, flag.syn | flag.ack, flag.syn | flag.ack, flag.rst | flag.ack, flag.syn])
          : draw.of([
              flag.ack,
              flag.ack,
              flag.ack | flag.push,
              flag.fin | flag.ack,
              flag.fin | flag.ack,
              flag.rst,
              flag.rst | flag.ack,
              flag.syn,
            ])
      const base = acknowledgement === 0 ? 5_000_000 : acknowledgement
      const drift = (fitting & flag.rst) === 0 ? 0 : draw.of([0, 0, 1, 0xffff, 0x10000, 0x10001, -1, 0x7fff0000])
      return tcp(destinationPort, sourcePort, fitting, base + drift, acks, draw.next(3) * 10)
    }
    case 'udp':
      return { ...layer4, sourcePort: layer4.destinationPort, destinationPort: layer4.sourcePort }
    case 'sctp': {
      const asked = layer4.chunk === chunks.init || layer4.chunk === chunks.initAck
      return {
        ...layer4,
        sourcePort: layer4.destinationPort,
        destinationPort: layer4.sourcePort,
        chunk:
          layer4.chunk === chunks.init
            ? draw.of([chunks.initAck, chunks.initAck, chunks.initAck, chunks.init, chunks.abort])
            : draw.of([chunks.data, chunks.data, chunks.abort, chunks.shutdownComplete, chunks.init]),
        tag: asked && !draw.oneIn(6) ? layer4.initiate : 1 + draw.next(3),
        initiate: 1 + draw.next(3),
      }
    }
    case 'echo':
      return draw.oneIn(5) ? layer4 : { ...layer4, reply: !layer4.reply }
    case 'error':
    case 'message':
    case 'opaque':
      return layer4
    default:
      return layer4 satisfies never
  }
}

/** A router or the receiver complains: now and then about something that was never sent. */
export function errorAbout(packet: Packet, draw: Draw): Packet {
  const inner: Packet = draw.oneIn(6) ? { ...packet, destination: packet.source, source: packet.destination } : packet
  const headers = 14 + (packet.source.includes(':') ? 40 : 20)
  const full = frameLength(inner) - 14
  const quoted = Math.min(full, draw.of([headers - 14 + 8, full, headers - 14 + 8, headers - 14 + 4]))
  const from = draw.oneIn(2) ? packet.destination : draw.of(outside[familyOf(packet.source)])
  return {
    source: from,
    destination: packet.source,
    hops: 64,
    layer4: { kind: 'error', error: draw.of(errors), code: draw.next(4), mtu: 0, inner, quoted },
  }
}
