import type { BpfMap } from '#kernel/bpf/map.ts'
import { decodeAddress, encodeAddress } from './address.ts'

export const flowsMap = 'flows_v1'
export const embryonicMap = 'embryonic_v1'
export const sharesMap = 'shares_v1'

/** struct tuple of bpf/abi/tuple.h. */
export interface Tuple {
  readonly source: string
  readonly destination: string
  /** ICMP echo: its identifier, on the asker's side, 0 on the other. Without ports: 0. */
  readonly sourcePort: number
  readonly destinationPort: number
  /** IP protocol number. */
  readonly protocol: number
}

const tupleSize = 40

export function encodeTuple(tuple: Tuple): Buffer {
  const out = Buffer.alloc(tupleSize)
  encodeAddress(tuple.source).copy(out, 0)
  encodeAddress(tuple.destination).copy(out, 16)
  out.writeUInt16BE(tuple.sourcePort, 32)
  out.writeUInt16BE(tuple.destinationPort, 34)
  out.writeUInt8(tuple.protocol, 36)
  return out
}

export function decodeTuple(bytes: Buffer, offset = 0): Tuple {
  return {
    source: decodeAddress(bytes, offset),
    destination: decodeAddress(bytes, offset + 16),
    sourcePort: bytes.readUInt16BE(offset + 32),
    destinationPort: bytes.readUInt16BE(offset + 34),
    protocol: bytes.readUInt8(offset + 36),
  }
}

/** enum flow_flag of bpf/maps/flows.h. */
export const flowFlags = {
  clientLower: 1,
  answered: 2,
  finClient: 4,
  finServer: 8,
  closed: 16,
  nated: 32,
  host: 64,
  adopted: 128,
  established: 256,
  local: 512,
  turned: 1024,
} as const

export interface Side {
  readonly identity: number
  readonly packets: number
  readonly bytes: number
}

/** A connection as this node sees it. */
export interface Flow {
  /** From client to server. */
  readonly tuple: Tuple
  readonly client: Side
  readonly server: Side
  /** Rules that allowed it; 0: not isolated. */
  readonly egressRule: number
  readonly ingressRule: number
  /** Of `flowFlags`. */
  readonly flags: number
  /** ns of CLOCK_MONOTONIC. */
  readonly born: bigint
  readonly seen: bigint
  /** ns without a packet after which it is over. */
  readonly timeout: bigint
  readonly epoch: number
  /** Endpoint whose share it counts to; 0: nobody's. */
  readonly number: number
}

/** struct flow, with the key that it was found under. */
function decodeFlow(key: Buffer, value: Buffer): Flow {
  const flags = value.readUInt16LE(28)
  const stored = decodeTuple(key)
  const { source, destination, sourcePort, destinationPort, protocol } = stored
  const side = (identity: number, packets: number, bytes: number): Side => ({
    identity: value.readUInt32LE(identity),
    packets: Number(value.readBigUInt64LE(packets)),
    bytes: Number(value.readBigUInt64LE(bytes)),
  })
  return {
    tuple:
      (flags & flowFlags.clientLower) !== 0
        ? stored
        : {
            source: destination,
            destination: source,
            sourcePort: destinationPort,
            destinationPort: sourcePort,
            protocol,
          },
    client: side(32, 64, 80),
    server: side(36, 72, 88),
    egressRule: value.readUInt32LE(40),
    ingressRule: value.readUInt32LE(44),
    flags,
    seen: value.readBigUInt64LE(0),
    timeout: value.readBigUInt64LE(8),
    born: value.readBigUInt64LE(16),
    epoch: value.readUInt32LE(24),
    number: value.readUInt16LE(30),
  }
}

/** Established and embryonic flows. */
export function readFlows(established: BpfMap, embryonic: BpfMap): Flow[] {
  const flows = established.entries().map(({ key, value }) => decodeFlow(key, value))
  // An entry that has moved on to the established ones is still here until its room is needed.
  const others = embryonic.entries().map(({ key, value }) => decodeFlow(key, value))
  return [...flows, ...others.filter((flow) => (flow.flags & flowFlags.established) === 0)]
}

/** Counts a pod's flows from nothing: the number was another's. */
export function clearShare(shares: BpfMap, number: number): void {
  const key = Buffer.alloc(4)
  key.writeUInt32LE(number)
  shares.update(key, Buffer.alloc(4))
}

/** What a sweep found: flows that are there, flows that were over. */
export interface Swept {
  readonly kept: number
  readonly removed: number
}

/** struct sweep of bpf/programs/sweep.bpf.c. `endpoint`: all flows that count to it go, too. */
export function encodeSweep(endpoint = 0): Buffer {
  const out = Buffer.alloc(24)
  out.writeUInt32LE(endpoint, 8)
  return out
}

export const decodeSweep = (bytes: Buffer): Swept => ({
  kept: bytes.readUInt32LE(12),
  removed: bytes.readUInt32LE(16),
})
