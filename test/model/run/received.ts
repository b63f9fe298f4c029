import { etherBytes, sctpSum, sum } from '../frame.ts'
import { protocols } from '../packet.ts'
import type { Taken } from './wire.ts'

/** What a receiver does with a frame: ends what its sender left to a device, and checks every sum. */

const fragmentHeader = 44
const extensionHeaders: ReadonlySet<number> = new Set([0, 43, 51, 60])
/** Where in its header a protocol has its sum. */
const sumAt: ReadonlyMap<number, number> = new Map([
  [protocols.tcp, 16],
  [protocols.udp, 6],
  [protocols.icmp, 2],
  [protocols.icmp6, 2],
  [protocols.sctp, 8],
])

export interface Layout {
  readonly six: boolean
  readonly protocol: number
  /** Of the upper layer. */
  readonly start: number
  /** By the header's own word. */
  readonly end: number
  readonly isFragment: boolean
}

/** Where things are in an IP packet that begins at `at`; undefined: it is none. */
export function layoutOf(frame: Buffer, at = etherBytes): Layout | undefined {
  const version = (frame[at] ?? 0) >> 4
  if (version === 4) {
    const isFragment = (frame.readUInt16BE(at + 6) & 0x3fff) !== 0
    const start = at + ((frame[at] ?? 0) & 15) * 4
    return { six: false, protocol: frame[at + 9] ?? 0, start, end: at + frame.readUInt16BE(at + 2), isFragment }
  }
  if (version !== 6) return undefined
  let [protocol, start, isFragment] = [frame[at + 6] ?? 0, at + 40, false]
  while (extensionHeaders.has(protocol) || protocol === fragmentHeader) {
    const length: number = frame[start + 1] ?? 0
    if (protocol === fragmentHeader) isFragment = true
    const bytes: number = protocol === fragmentHeader ? 8 : protocol === 51 ? (length + 2) * 4 : (length + 1) * 8
    protocol = frame[start] ?? 0
    start += bytes
  }
  return { six: true, protocol, start, end: at + 40 + frame.readUInt16BE(at + 4), isFragment }
}

function pseudo(frame: Buffer, at: number, { six, protocol, start, end }: Layout): number {
  if (protocol === protocols.icmp) return 0
  return sum(frame, at + (six ? 8 : 12), at + (six ? 40 : 20), protocol + end - start)
}

/** The sum of a packet's pseudo header: what stands in for a checksum that a device shall make. */
export const unmadeSum = (frame: Buffer, layout: Layout): number => pseudo(frame, etherBytes, layout)

/** What is wrong with the sums of the IP packet at `at`; undefined: nothing. */
export function wrongSum(frame: Buffer, at = etherBytes): string | undefined {
  const layout = layoutOf(frame, at)
  if (layout === undefined) return 'it is no IP packet'
  const { six, protocol, start, end, isFragment } = layout
  if (end > frame.length) return `it says that it has ${end - at} bytes, and has ${frame.length - at}`
  if (!six && sum(frame, at, start, 0) !== 0xffff) return 'the IP header has a wrong checksum'
  const offset = sumAt.get(protocol)
  if (offset === undefined || isFragment) return undefined
  if (protocol === protocols.sctp)
    return sctpSum(frame.subarray(start, end)) === frame.readUInt32LE(start + offset)
      ? undefined
      : 'SCTP: a wrong CRC32c'
  // UDP over IPv4 may go without.
  if (protocol === protocols.udp && !six && frame.readUInt16BE(start + offset) === 0) return undefined
  return sum(frame, start, end, pseudo(frame, at, layout)) === 0xffff
    ? undefined
    : `protocol ${protocol}: a wrong checksum`
}

/** Writes the sums that belong there, in place; SCTP's is always its sender's. */
export function makeSums(frame: Buffer, at = etherBytes): void {
  const layout = layoutOf(frame, at)
  if (layout === undefined) return
  const { six, protocol, start, end } = layout
  if (!six) {
    frame.writeUInt16BE(0, at + 10)
    frame.writeUInt16BE(~sum(frame, at, start, 0) & 0xffff, at + 10)
  }
  const offset = sumAt.get(protocol)
  if (offset === undefined || protocol === protocols.sctp) return
  // Made without (RFC 768), it stays so.
  if (protocol === protocols.udp && frame.readUInt16BE(start + offset) === 0) return
  frame.writeUInt16BE(0, start + offset)
  const made = ~sum(frame, start, end, pseudo(frame, at, layout)) & 0xffff
  frame.writeUInt16BE(made === 0 && protocol === protocols.udp ? 0xffff : made, start + offset)
}

/**
 * The frame as its receiver sees it in the end. A sum that was left to a device is held against that of the pseudo header
 * first: a device makes the right one of nothing else.
 */
export function finished({ frame, left }: Taken, at = etherBytes): Buffer | string {
  if (left === undefined) return frame
  const layout = layoutOf(frame, at)
  if (layout === undefined || layout.start !== left.start)
    return 'a checksum is left to be made, and not where its packet begins'
  if (frame.readUInt16BE(left.at) !== pseudo(frame, at, layout))
    return 'a checksum is left to be made, and its beginning is wrong'
  const whole = Buffer.from(frame)
  makeSums(whole, at)
  return whole
}
