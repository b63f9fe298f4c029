import type { Frontend, Protocol } from '../frontend.ts'
import { decodeAddress, writeAddress } from './address.ts'

const numbers = { TCP: 6, UDP: 17, SCTP: 132 } as const satisfies Record<Protocol, number>
const protocols = new Map<number, Protocol>(Object.entries(numbers).map(([name, n]) => [n, name as Protocol]))

/** As in an IP header. */
export const protocolNumber = (protocol: Protocol): number => numbers[protocol]

/** struct frontend_key and struct backend have one layout: address, port, protocol. */
export const peerSize = 20

export function writePeer(out: Buffer, at: number, { address, port, protocol }: Frontend): void {
  writeAddress(out, at, address)
  out[at + 16] = port >> 8
  out[at + 17] = port & 255
  out[at + 18] = numbers[protocol]
  out[at + 19] = 0
}

export function encodePeer(peer: Frontend): Buffer {
  const out = Buffer.alloc(peerSize)
  writePeer(out, 0, peer)
  return out
}

export function decodePeer(bytes: Buffer): Frontend {
  return {
    address: decodeAddress(bytes),
    port: bytes.readUInt16BE(16),
    protocol: protocols.get(bytes.readUInt8(18)) ?? 'TCP',
  }
}
