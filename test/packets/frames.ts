import { parseMac } from '#kernel/netlink/netlink.ts'
import { addressBytes } from '#kernel/netns.ts'

/** Frames made and read byte by byte, with every checksum, by a second hand: nothing of src/datapath or bpf/. */
export interface Segment {
  readonly source: string
  readonly destination: string
  readonly protocol: 'TCP' | 'UDP' | 'ICMP' | 'SCTP'
  /** ICMP: the identifier, of questions. */
  readonly sourcePort: number
  readonly destinationPort: number
  /** TCP: S, A, F, R. ICMP: `question`, `answer`, `unreachable`. */
  readonly flags: string
  readonly payload: Buffer
  /** TCP's numbers; 1000, and 2000 where it acknowledges, unless said. */
  readonly sequence?: number
  readonly acknowledgement?: number
}

const tcpFlags = { F: 1, S: 2, R: 4, P: 8, A: 16 } as const
const isV6 = (address: string): boolean => address.includes(':')

export function sum16(...parts: readonly Buffer[]): number {
  let sum = 0
  const bytes = Buffer.concat(parts)
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i] ?? 0) * 256 + (bytes[i + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

const protocolNumber = ({ protocol, source }: Segment): number =>
  ({ TCP: 6, UDP: 17, SCTP: 132, ICMP: isV6(source) ? 58 : 1 })[protocol]

function pseudo(source: Buffer, destination: Buffer, protocol: number, length: number): Buffer {
  const tail = Buffer.alloc(8)
  tail.writeUInt32BE(length, 0)
  tail[7] = protocol
  return Buffer.concat([source, destination, tail])
}

function transport(s: Segment): Buffer {
  const { protocol, sourcePort, destinationPort, flags, payload, sequence = 1000, acknowledgement = 2000 } = s
  if (protocol === 'TCP') {
    const h = Buffer.alloc(20)
    h.writeUInt16BE(sourcePort, 0)
    h.writeUInt16BE(destinationPort, 2)
    h.writeUInt32BE(sequence, 4)
    h.writeUInt32BE(flags.includes('A') ? acknowledgement : 0, 8)
    h[12] = 0x50
    h[13] = [...flags].reduce((bits, f) => bits | tcpFlags[f as keyof typeof tcpFlags], 0)
    h.writeUInt16BE(0xffff, 14)
    return Buffer.concat([h, payload])
  }
  if (protocol === 'SCTP') {
    const h = Buffer.alloc(12 + 20)
    h.writeUInt16BE(sourcePort, 0)
    h.writeUInt16BE(destinationPort, 2)
    h[12] = flags === 'A' ? 2 : 1
    h.writeUInt16BE(20, 14)
    h.writeUInt32BE(7, 16)
    return h
  }
  const h = Buffer.alloc(8)
  if (protocol === 'UDP') {
    h.writeUInt16BE(sourcePort, 0)
    h.writeUInt16BE(destinationPort, 2)
    h.writeUInt16BE(8 + payload.length, 4)
    return Buffer.concat([h, payload])
  }
  const v6 = isV6(s.source)
  if (flags === 'unreachable') h[0] = v6 ? 1 : 3
  else if (flags === 'answer') h[0] = v6 ? 129 : 0
  else h[0] = v6 ? 128 : 8
  if (flags === 'unreachable') h[1] = v6 ? 4 : 3
  else h.writeUInt16BE(flags === 'answer' ? destinationPort : sourcePort, 4)
  return Buffer.concat([h, payload])
}

const checksumAt = { TCP: 16, UDP: 6, ICMP: 2, SCTP: 0 } as const

/** The IP packet alone, as an ICMP error quotes it. */
export function packet(s: Segment): Buffer {
  const [source, destination] = [addressBytes(s.source), addressBytes(s.destination)]
  const v6 = isV6(s.source)
  const l4 = transport(s)
  const at = checksumAt[s.protocol]
  const number = protocolNumber(s)
  if (at !== 0) {
    const covered = s.protocol === 'ICMP' && !v6 ? [l4] : [pseudo(source, destination, number, l4.length), l4]
    l4.writeUInt16BE(sum16(...covered), at)
  }
  if (v6) {
    const h = Buffer.alloc(8)
    h[0] = 0x60
    h.writeUInt16BE(l4.length, 4)
    h[6] = number
    h[7] = 64
    return Buffer.concat([h, source, destination, l4])
  }
  const h = Buffer.alloc(12)
  h[0] = 0x45
  h.writeUInt16BE(20 + l4.length, 2)
  h[8] = 64
  h[9] = number
  const header = Buffer.concat([h, source, destination])
  header.writeUInt16BE(sum16(header), 10)
  return Buffer.concat([header, l4])
}

/** What a test says of a packet; the rest is as of any. */
export type Sketch = Partial<Segment> & Pick<Segment, 'source' | 'destination'>

/** A whole frame. */
export function frame(s: Sketch): Buffer {
  const whole: Segment = {
    protocol: 'TCP',
    sourcePort: 40_000,
    destinationPort: 80,
    flags: 'S',
    payload: Buffer.from('payload.'),
    ...s,
  }
  const type = Buffer.from(isV6(s.source) ? '86dd' : '0800', 'hex')
  return Buffer.concat([parseMac('02:00:00:00:00:01'), parseMac('02:00:00:00:00:99'), type, packet(whole)])
}

/** What is around a frame in a tunnel: VXLAN over UDP over IPv4. */
export interface Around {
  /** Of the node that it comes to. */
  readonly mac: string
  readonly source: string
  readonly destination: string
  readonly sourcePort: number
  /** The sender's identity; 300 unless said. */
  readonly number?: number
  readonly flags?: number
  readonly udpChecksum?: number
  readonly fragment?: number
  /** Of the outer header: its last two bits are the mark of congestion (RFC 3168). */
  readonly serviceType?: number
  readonly hasWrongSum?: boolean
  readonly behind?: Buffer
}

/** A frame in a tunnel. */
export function wrap(inner: Buffer, { mac, source, destination, sourcePort, number = 300, ...rest }: Around): Buffer {
  const l4 = Buffer.alloc(16)
  l4.writeUInt16BE(sourcePort, 0)
  l4.writeUInt16BE(8472, 2)
  l4.writeUInt16BE(16 + inner.length, 4)
  l4.writeUInt16BE(rest.udpChecksum ?? 0, 6)
  l4.writeUInt32BE(rest.flags ?? 0x08000000, 8)
  l4.writeUInt32BE(number * 256, 12)
  const start = Buffer.alloc(12)
  start[0] = 0x45
  start[1] = rest.serviceType ?? 0
  start.writeUInt16BE(36 + inner.length, 2)
  start.writeUInt16BE(rest.fragment ?? 0, 6)
  start[8] = 64
  start[9] = 17
  const ip = Buffer.concat([start, addressBytes(source), addressBytes(destination)])
  ip.writeUInt16BE(sum16(ip) ^ (rest.hasWrongSum ? 1 : 0), 10)
  const ethernet = Buffer.concat([parseMac(mac), parseMac('02:00:00:00:00:99'), Buffer.from('0800', 'hex')])
  return Buffer.concat([ethernet, ip, l4, inner, rest.behind ?? Buffer.alloc(0)])
}

/** What a frame says, read back. Throws where a checksum is wrong. */
export interface Seen {
  readonly from: string
  readonly to: string
  readonly flags: string
  readonly payload: Buffer
}

const hex = (bytes: Buffer, v6: boolean): string =>
  v6 ? Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16)).join(':') : [...bytes].join('.')

/** Same address, same text, whatever way it was written. */
export const plain = (address: string): string => hex(addressBytes(address), isV6(address))

/** An end of a packet, as `Seen` has it. */
export const at = (address: string, port: number): string => `${plain(address)} ${port}`

/** The packet that answers one that was seen. */
export function answer({ from, to }: Seen, more: Partial<Segment> = {}): Sketch {
  const [source = '', sourcePort] = to.split(' ')
  const [destination = '', destinationPort] = from.split(' ')
  return {
    source,
    sourcePort: Number(sourcePort),
    destination,
    destinationPort: Number(destinationPort),
    flags: 'SA',
    ...more,
  }
}

export function read(bytes: Buffer): Seen {
  return readPacket(bytes.subarray(14), true)
}

export function readPacket(ip: Buffer, checked: boolean): Seen {
  const v6 = (ip[0] ?? 0) >> 4 === 6
  const header = v6 ? 40 : ((ip[0] ?? 0) & 15) * 4
  const [source, destination] = v6
    ? [ip.subarray(8, 24), ip.subarray(24, 40)]
    : [ip.subarray(12, 16), ip.subarray(16, 20)]
  const number = (v6 ? ip[6] : ip[9]) ?? 0
  const total = v6 ? 40 + ip.readUInt16BE(4) : ip.readUInt16BE(2)
  const l4 = ip.subarray(header, checked ? total : undefined)
  if (!v6 && sum16(ip.subarray(0, header)) !== 0) throw new Error('wrong header checksum')
  const isSummed = number === 6 || number === 17 || number === 1 || number === 58
  if (checked && isSummed && !(number === 17 && l4.readUInt16BE(6) === 0)) {
    const covered = number === 1 ? [l4] : [pseudo(source, destination, number, l4.length), l4]
    if (sum16(...covered) !== 0) throw new Error(`wrong checksum of protocol ${number}`)
  }
  const isIcmp = number === 1 || number === 58
  const id = isIcmp ? l4.readUInt16BE(4) : 0
  const type = l4[0] ?? 0
  const question = type === 8 || type === 128
  const [sourcePort, destinationPort] = isIcmp
    ? question
      ? [id, 0]
      : [0, type === 0 || type === 129 ? id : 0]
    : [l4.readUInt16BE(0), l4.readUInt16BE(2)]
  const size = number === 6 ? ((l4[12] ?? 0) >> 4) * 4 : number === 132 ? 32 : 8
  const flags =
    number === 6
      ? Object.entries(tcpFlags)
          .flatMap(([name, bit]) => ((l4[13] ?? 0) & bit ? [name] : []))
          .join('')
      : isIcmp
        ? `${type}/${l4[1]}`
        : ''
  return {
    from: `${hex(source, v6)} ${sourcePort}`,
    to: `${hex(destination, v6)} ${destinationPort}`,
    flags,
    payload: l4.subarray(size),
  }
}
