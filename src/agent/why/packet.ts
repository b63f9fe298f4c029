import { type Address, formatAddress, parseAddress } from '#base/net/address.ts'

export const protocolNumbers = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1 } as const
export type AskedProtocol = keyof typeof protocolNumbers

export interface AskedPacket {
  readonly source: string
  readonly destination: string
  /** 0 for ICMP. */
  readonly port: number
  readonly protocol: AskedProtocol
}

/** A port that hardly anybody has a connection from: an answer about a new connection is what is wanted. */
export const sourcePort = 61_001
const hops = 64

/**
 * The first frame of such a connection: a SYN, a datagram, an INIT, an echo request; with its checksums. Throws a RangeError
 * for addresses of different families.
 */
export function firstFrame({ source, destination, port, protocol }: AskedPacket): Buffer {
  const from = parseAddress(source)
  const to = parseAddress(destination)
  if (from === undefined || to === undefined || from.family !== to.family)
    throw new RangeError(`${source} and ${destination} are not two addresses of one family`)
  const { family } = from
  const number = protocol === 'ICMP' && family === 6 ? 58 : protocolNumbers[protocol]
  const payload = transport(protocol, family, port)
  const pseudo = Buffer.concat([bytesOf(from), bytesOf(to), Buffer.from([0, 0, 0, payload.length, 0, 0, 0, number])])
  const sumAt = { TCP: 16, UDP: 6, ICMP: 2, SCTP: undefined }[protocol]
  if (sumAt !== undefined) {
    const covered = protocol === 'ICMP' && family === 4 ? payload : Buffer.concat([pseudo, payload])
    payload.writeUInt16BE(checksum(covered), sumAt)
  }
  return Buffer.concat([ethernet(family), network(from, to, number, payload.length), payload])
}

/** Between whom a frame is; ports are 0 where the protocol has none, or was not asked for. */
export interface Ends {
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly port: number
}

/** Of a frame as `firstFrame` makes them, whatever addresses and ports it has by now. */
export function endsOf(frame: Buffer, protocol: AskedProtocol): Ends {
  const is4 = frame.readUInt16BE(12) === 0x0800
  const [at, length, behind] = is4 ? [26, 4, 34] : [22, 16, 54]
  const address = (from: number): string =>
    formatAddress({ family: is4 ? 4 : 6, value: BigInt(`0x${frame.toString('hex', from, from + length)}`) })
  const ports = protocol === 'ICMP' ? [0, 0] : [frame.readUInt16BE(behind), frame.readUInt16BE(behind + 2)]
  const [asking = 0, port = 0] = ports
  return { source: address(at), sourcePort: asking, destination: address(at + length), port }
}

function ethernet(family: 4 | 6): Buffer {
  const header = Buffer.alloc(14)
  header.writeUInt16BE(family === 4 ? 0x0800 : 0x86dd, 12)
  return header
}

function network(from: Address, to: Address, protocol: number, length: number): Buffer {
  if (from.family === 6) {
    const header = Buffer.alloc(8)
    header[0] = 0x60
    header.writeUInt16BE(length, 4)
    header[6] = protocol
    header[7] = hops
    return Buffer.concat([header, bytesOf(from), bytesOf(to)])
  }
  const header = Buffer.alloc(12)
  header[0] = 0x45
  header.writeUInt16BE(20 + length, 2)
  header[8] = hops
  header[9] = protocol
  const whole = Buffer.concat([header, bytesOf(from), bytesOf(to)])
  whole.writeUInt16BE(checksum(whole), 10)
  return whole
}

function transport(protocol: AskedProtocol, family: 4 | 6, port: number): Buffer {
  const out = Buffer.alloc({ TCP: 20, UDP: 8, SCTP: 32, ICMP: 8 }[protocol])
  if (protocol === 'ICMP') {
    out[0] = family === 4 ? 8 : 128
    out.writeUInt16BE(sourcePort, 4)
    return out
  }
  out.writeUInt16BE(sourcePort, 0)
  out.writeUInt16BE(port, 2)
  if (protocol === 'TCP') {
    out[12] = 5 << 4
    out[13] = 0x02
    out.writeUInt16BE(65_535, 14)
  } else if (protocol === 'UDP') out.writeUInt16BE(8, 4)
  else {
    // INIT: type 1, 20 bytes, a tag of its own, a window, one stream each way.
    out[12] = 1
    out.writeUInt16BE(20, 14)
    out.writeUInt32BE(0x57656674, 16)
    out.writeUInt32BE(65_535, 20)
    out.writeUInt16BE(1, 24)
    out.writeUInt16BE(1, 26)
  }
  return out
}

const bytesOf = ({ family, value }: Address): Buffer =>
  Buffer.from(value.toString(16).padStart(family === 4 ? 8 : 32, '0'), 'hex')

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
