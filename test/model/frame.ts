import { addressBytes } from './address.ts'
import {
  type Extension,
  type IcmpError,
  layer4Bytes,
  type Packet,
  packetBytes,
  protocolOf,
  protocols,
} from './packet.ts'

/** Bytes of a packet with every checksum right, as its sender would have made them (RFC 791, 8200, 793, 768, 792, 4443). */

export const etherBytes = 14
const ethertypes = { 4: 0x0800, 6: 0x86dd } as const
const extensionNumbers = { 'hop-by-hop': 0, routing: 43, authentication: 51, destination: 60 } as const
const fragmentHeader = 44

/** Type numbers of ICMP errors. */
const errorTypes = {
  4: { unreachable: 3, 'too-big': 3, 'time-exceeded': 11, 'parameter-problem': 12 },
  6: { unreachable: 1, 'too-big': 2, 'time-exceeded': 3, 'parameter-problem': 4 },
} as const

/** Writes an Ethernet frame into `out`, which must be long enough, and returns its length. MACs are six bytes each. */
export function writeFrame(out: Buffer, packet: Packet, destinationMac: Uint8Array, sourceMac: Uint8Array): number {
  out.set(destinationMac, 0)
  out.set(sourceMac, 6)
  const six = packet.source.includes(':')
  out.writeUInt16BE(ethertypes[six ? 6 : 4], 12)
  const end = six ? writeIp6(out, etherBytes, packet) : writeIp4(out, etherBytes, packet)
  if (packet.lie === 'version') out[etherBytes] = ((out[etherBytes] ?? 0) & 0x0f) | 0x50
  if (packet.lie === 'header') out[etherBytes] = 0x44
  if (packet.lie === 'ethertype') out.writeUInt16BE(0x88cc, 12)
  return packet.cut === undefined ? end : Math.min(end, packet.cut)
}

/** Length of the frame that `writeFrame` makes when nothing cuts it. */
export function frameLength(packet: Packet): number {
  return etherBytes + packetBytes(packet)
}

function writeIp4(out: Buffer, at: number, packet: Packet): number {
  const { options = 0, fragment } = packet
  const start = at + 20 + options
  out[at] = 0x40 | (5 + options / 4)
  out[at + 1] = 0
  out.writeUInt16BE(fragment?.id ?? 0, at + 4)
  out.writeUInt16BE(fragment === undefined ? 0x4000 : (fragment.more ? 0x2000 : 0) | (fragment.offset / 8), at + 6)
  out[at + 8] = packet.hops
  out[at + 9] = protocolOf(packet)
  out.writeUInt16BE(0, at + 10)
  out.set(addressBytes(packet.source), at + 12)
  out.set(addressBytes(packet.destination), at + 16)
  // No operation, and the end of the list (RFC 791, 3.1): options that every host passes over.
  for (let i = 0; i < options; i++) out[at + 20 + i] = i === options - 1 ? 0 : 1
  const end = Math.min(writeLayer4(out, start, at + 12, 8, packet), start + (packet.short ?? 0xffff))
  out.writeUInt16BE(end - at, at + 2)
  out.writeUInt16BE(~sum(out, at, start, 0) & 0xffff, at + 10)
  return end
}

function writeIp6(out: Buffer, at: number, packet: Packet): number {
  const { extensions = [], fragment } = packet
  out.writeUInt32BE(0x60000000, at)
  out[at + 7] = packet.hops
  out.set(addressBytes(packet.source), at + 8)
  out.set(addressBytes(packet.destination), at + 24)
  let next = at + 6
  let start = at + 40
  for (const extension of extensions) {
    out[next] = extensionNumbers[extension]
    next = start
    start = writeExtension(out, start, extension, packet.lie === 'segments')
  }
  if (fragment !== undefined) {
    out[next] = fragmentHeader
    next = start
    out[start + 1] = 0
    out.writeUInt16BE(fragment.offset | (fragment.more ? 1 : 0), start + 2)
    out.writeUInt32BE(fragment.id, start + 4)
    start += 8
  }
  out[next] = protocolOf(packet)
  const end = Math.min(writeLayer4(out, start, at + 8, 32, packet), start + (packet.short ?? 0xffff))
  out.writeUInt16BE(end - at - 40, at + 4)
  return end
}

function writeExtension(out: Buffer, at: number, extension: Extension, segments: boolean): number {
  if (extension === 'authentication') {
    // Length in words of four bytes, less two (RFC 4302, 2.2): twelve bytes and a check value of four.
    out.fill(0, at, at + 16)
    out[at + 1] = 2
    return at + 16
  }
  out.fill(0, at, at + 8)
  // A padding option over the rest (PadN); a routing header of a type nobody uses, with no segment left.
  if (extension === 'routing') {
    out[at + 2] = 253
    out[at + 3] = segments ? 1 : 0
  } else {
    out[at + 2] = 1
    out[at + 3] = 4
  }
  return at + 8
}

/** `ends` is where the two addresses lie, `endsBytes` long together: the pseudo header. Returns where the packet ends. */
function writeLayer4(out: Buffer, at: number, ends: number, endsBytes: number, packet: Packet): number {
  const { layer4 } = packet
  const protocol = protocolOf(packet)
  const pseudo = (length: number): number => sum(out, ends, ends + endsBytes, protocol + length)
  switch (layer4.kind) {
    case 'tcp': {
      const end = fillPayload(out, at + 20, layer4.payload)
      out.writeUInt16BE(layer4.sourcePort, at)
      out.writeUInt16BE(layer4.destinationPort, at + 2)
      out.writeUInt32BE(layer4.sequence >>> 0, at + 4)
      out.writeUInt32BE(layer4.acknowledgement >>> 0, at + 8)
      out[at + 12] = packet.lie === 'offset' ? 0x40 : packet.lie === 'far-offset' ? 0xf0 : 0x50
      out[at + 13] = layer4.flags
      out.writeUInt16BE(layer4.window, at + 14)
      out.writeUInt32BE(0, at + 16)
      out.writeUInt16BE(~sum(out, at, end, pseudo(end - at)) & 0xffff, at + 16)
      return end
    }
    case 'udp': {
      const end = fillPayload(out, at + 8, layer4.payload)
      out.writeUInt16BE(layer4.sourcePort, at)
      out.writeUInt16BE(layer4.destinationPort, at + 2)
      out.writeUInt16BE(end - at, at + 4)
      out.writeUInt16BE(0, at + 6)
      // A sum of zero is sent as all ones, for zero says that there is none (RFC 768).
      if (layer4.unsummed !== true) out.writeUInt16BE(~sum(out, at, end, pseudo(end - at)) & 0xffff || 0xffff, at + 6)
      return end
    }
    case 'sctp': {
      const end = fillPayload(out, at + 16, 16)
      out.writeUInt16BE(layer4.sourcePort, at)
      out.writeUInt16BE(layer4.destinationPort, at + 2)
      out.writeUInt32BE(layer4.tag >>> 0, at + 4)
      out.writeUInt32BE(0, at + 8)
      out[at + 12] = layer4.chunk
      out[at + 13] = 0
      out.writeUInt16BE(20, at + 14)
      out.writeUInt32BE(layer4.initiate >>> 0, at + 16)
      out.writeUInt32LE(crc32c(out.subarray(at, end)), at + 8)
      return end
    }
    case 'echo': {
      const six = protocol === protocols.icmp6
      out[at] = six ? (layer4.reply ? 129 : 128) : layer4.reply ? 0 : 8
      out[at + 1] = 0
      out.writeUInt16BE(layer4.identifier, at + 4)
      out.writeUInt16BE(layer4.sequence, at + 6)
      return finishIcmp(out, at, fillPayload(out, at + 8, layer4.payload), six, pseudo)
    }
    case 'message': {
      out[at] = layer4.type
      out[at + 1] = layer4.code
      const end = fillPayload(out, at + 4, 16)
      if (layer4.identifier !== undefined) out.writeUInt16BE(layer4.identifier, at + 4)
      return finishIcmp(out, at, end, protocol === protocols.icmp6, pseudo)
    }
    case 'error':
      return finishIcmp(out, at, writeError(out, at, layer4), protocol === protocols.icmp6, pseudo)
    case 'opaque':
      return fillPayload(out, at, layer4.payload)
    default:
      return layer4 satisfies never
  }
}

function writeError(out: Buffer, at: number, error: IcmpError): number {
  const six = error.inner.source.includes(':')
  out[at] = errorTypes[six ? 6 : 4][error.error]
  out[at + 1] = error.error === 'too-big' && !six ? 4 : error.code
  out.writeUInt32BE(error.error === 'too-big' ? error.mtu : 0, at + 4)
  const write = six ? writeIp6 : writeIp4
  let end: number
  if (error.summedAs === undefined) end = write(out, at + 8, error.inner)
  else {
    write(out, at + 8, error.summedAs)
    const sumAt =
      at +
      8 +
      packetBytes(error.inner) -
      Math.min(layer4Bytes(error.inner.layer4), error.inner.short ?? 0xffff) +
      checksumAt(error.inner)
    const [high, low] = [out[sumAt] ?? 0, out[sumAt + 1] ?? 0]
    end = write(out, at + 8, error.inner)
    if (checksumAt(error.inner) > 0) out.set([high, low], sumAt)
  }
  return Math.min(end, at + 8 + error.quoted)
}

/** Where in the upper layer its checksum is; 0: it has none. */
function checksumAt({ layer4 }: Packet): number {
  switch (layer4.kind) {
    case 'tcp':
      return 16
    case 'udp':
      return 6
    case 'sctp':
      return 8
    case 'echo':
    case 'message':
    case 'error':
      return 2
    case 'opaque':
      return 0
    default:
      return layer4 satisfies never
  }
}

/** ICMPv6 sums the pseudo header too (RFC 4443, 2.3), ICMP only itself. */
function finishIcmp(out: Buffer, at: number, end: number, six: boolean, pseudo: (length: number) => number): number {
  out.writeUInt16BE(0, at + 2)
  out.writeUInt16BE(~sum(out, at, end, six ? pseudo(end - at) : 0) & 0xffff, at + 2)
  return end
}

/** Bytes that differ from their neighbours, so that a shifted copy shows; those that begin `from` bytes into the data. */
export function fillPayload(out: Buffer, at: number, length: number, from = 0): number {
  for (let i = 0; i < length; i++) out[at + i] = ((from + i) * 37 + 11) & 0xff
  return at + length
}

/** The sum of RFC 1071 over `from` to `to`, folded, started with `start`. */
export function sum(bytes: Uint8Array, from: number, to: number, start: number): number {
  let total = start
  let at = from
  for (; at + 1 < to; at += 2) total += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  if (at < to) total += (bytes[at] ?? 0) << 8
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return total
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1
  return c
})

/** What an SCTP packet's sum must be: of all its bytes, with nothing in the sum's place. */
export function sctpSum(bytes: Uint8Array): number {
  const blank = Uint8Array.from(bytes)
  blank.fill(0, 8, 12)
  return crc32c(blank)
}

/** CRC32c, which SCTP uses (RFC 9260, appendix A). */
function crc32c(bytes: Uint8Array): number {
  let c = 0xffffffff
  for (const b of bytes) c = (crcTable[(c ^ b) & 0xff] ?? 0) ^ (c >>> 8)
  return (c ^ 0xffffffff) >>> 0
}
