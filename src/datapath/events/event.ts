import { decodeAddress } from '../maps/address.ts'
import { type Direction, directions, type Reason, reasons } from '../maps/counters.ts'

/** struct event of bpf/abi/event.h, bytes. */
export const eventSize = 96

export const eventsMap = 'events_v1'
export const eventsLostMap = 'events_lost_v1'

/** Offsets of the members that are read without the rest; `maps/maps.test.ts` holds them against the compiler's. */
export const at = {
  time: 0,
  source: 8,
  destination: 24,
  sourcePort: 40,
  destinationPort: 42,
  protocol: 44,
  frontend: 48,
  frontendPort: 64,
  kind: 66,
  direction: 67,
  ifindex: 68,
  sourceIdentity: 72,
  destinationIdentity: 76,
  rule: 80,
  reason: 84,
  tcpFlags: 85,
  isReply: 86,
  length: 88,
  set: 92,
} as const

/** enum event_kind. */
export const eventKinds = { connection: 1, drop: 2 } as const

/** A connection or a drop, as a program saw it. */
export interface Event {
  /** ns of CLOCK_MONOTONIC, since the machine started. */
  readonly time: bigint
  readonly kind: keyof typeof eventKinds
  readonly source: string
  readonly destination: string
  /** 0 where the protocol has none; ICMP echo: the identifier. */
  readonly sourcePort: number
  readonly destinationPort: number
  /** IPPROTO_*. */
  readonly protocol: number
  /** The Service address that was asked for. */
  readonly frontend: { readonly address: string; readonly port: number } | undefined
  readonly direction: Direction
  readonly ifindex: number
  readonly sourceIdentity: number
  readonly destinationIdentity: number
  /** Of the policy that allowed it, for the agent's table of rules; 0: none had to. */
  readonly rule: number
  /** The policy set that refused it; 0: none did. */
  readonly set: number
  readonly reason: Reason
  /** ICMP: its type. */
  readonly tcpFlags: number
  readonly isReply: boolean
  /** Of the packet, bytes. */
  readonly length: number
}

const unset = (bytes: Buffer, from: number): boolean => {
  for (let i = from; i < from + 16; i++) if (bytes[i] !== 0) return false
  return true
}

/** One record. A reason that is newer than this agent shows as its number. */
export function decodeEvent(bytes: Buffer, offset = 0): Event {
  const o = offset
  const kind = bytes[o + at.kind] === eventKinds.drop ? 'drop' : 'connection'
  const reason = bytes[o + at.reason] ?? 0
  return {
    time: bytes.readBigUInt64LE(o + at.time),
    kind,
    source: decodeAddress(bytes, o + at.source),
    destination: decodeAddress(bytes, o + at.destination),
    sourcePort: bytes.readUInt16BE(o + at.sourcePort),
    destinationPort: bytes.readUInt16BE(o + at.destinationPort),
    protocol: bytes[o + at.protocol] ?? 0,
    frontend: unset(bytes, o + at.frontend)
      ? undefined
      : { address: decodeAddress(bytes, o + at.frontend), port: bytes.readUInt16BE(o + at.frontendPort) },
    direction: directions[bytes[o + at.direction] ?? 0] ?? 'EGRESS',
    ifindex: bytes.readUInt32LE(o + at.ifindex),
    sourceIdentity: bytes.readUInt32LE(o + at.sourceIdentity),
    destinationIdentity: bytes.readUInt32LE(o + at.destinationIdentity),
    rule: bytes.readUInt32LE(o + at.rule),
    set: bytes.readUInt32LE(o + at.set),
    reason: reasons[reason] ?? (`Reason ${reason}` as Reason),
    tcpFlags: bytes[o + at.tcpFlags] ?? 0,
    isReply: bytes[o + at.isReply] === 1,
    length: bytes.readUInt32LE(o + at.length),
  }
}
