import type { BpfMap } from '#kernel/bpf/map.ts'

export const countersMap = 'counters_v2'

/** enum reason of bpf/abi/drop.h: the words that metrics and status show, Cilium's where it has one. Index = number. */
export const reasons = [
  'Forwarded',
  'Invalid packet',
  'Unsupported protocol',
  'Invalid source ip',
  'Multicast or link-local destination',
  'Service not found',
  'Packet could not be changed',
  'Policy denied',
  'Unknown sender',
  'CT: Map insertion failed',
  'CT: Pod holds its share of flows',
  'Unknown connection tracking state',
  'CT: Truncated or invalid header',
  'CT: Unknown L4 protocol',
  'First logical datagram fragment not found',
  'Invalid IPv6 extension header',
  'Service backend not found',
  'Denied by LB src range check',
  'No port left for NAT masquerade',
  'No mapping for NAT masquerade',
  'No tunnel/encapsulation endpoint',
  'FIB lookup failed',
  'Fragmentation needed',
  'TTL exceeded',
  'Rate limited',
  'No local backend',
  'Invalid identity',
  'Unsupported protocol for NAT masquerade',
  'Forbidden ICMP message',
  'Host datapath not ready',
  'Map write failed',
] as const
export type Reason = (typeof reasons)[number]

/** enum direction, as a pod sees it. */
export const directions = ['EGRESS', 'INGRESS'] as const
export type Direction = (typeof directions)[number]

export interface Counter {
  readonly reason: Reason
  readonly direction: Direction
  readonly packets: number
  readonly bytes: number
}

/** struct counter: packets, bytes. */
const valueSize = 16

/** Sums over the CPUs, all reasons and directions. */
export function readCounters(map: BpfMap): Counter[] {
  const key = Buffer.alloc(4)
  return reasons.flatMap((reason, number) =>
    directions.map((direction, side) => {
      key.writeUInt32LE(number * directions.length + side)
      const perCpu = map.lookup(key) ?? Buffer.alloc(0)
      let packets = 0n
      let bytes = 0n
      for (let at = 0; at < perCpu.length; at += valueSize) {
        packets += perCpu.readBigUInt64LE(at)
        bytes += perCpu.readBigUInt64LE(at + 8)
      }
      return { reason, direction, packets: Number(packets), bytes: Number(bytes) }
    }),
  )
}
