import { type Cidr, formatCidr, parseCidr } from '#base/net/address.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import type { Backend } from '../frontend.ts'
import { addressSize, decodeAddress, encodeAddress, writeAddress } from './address.ts'
import { decodeTuple, type Tuple } from './flows.ts'
import { protocolNumber } from './peer.ts'

export const translationsMap = 'translations_v1'
export const staleMap = 'stale_v1'
export const exclusionsMap = 'exclusions_v1'

/** A backend to which no packet shall be translated any more: of all Services, or of one. */
export interface StaleBackend extends Backend {
  /** `serviceNumber`; absent: the backend is gone. */
  readonly service?: string
}

/** struct stale_key of bpf/maps/translations.h. */
export function encodeStale({ address, port, protocol, service = '0' }: StaleBackend): Buffer {
  const out = Buffer.alloc(32)
  out.writeBigUInt64LE(BigInt(`0x${service}`))
  writeAddress(out, 8, address)
  out.writeUInt16BE(port, 24)
  out[26] = protocolNumber(protocol)
  return out
}

/** struct translation_sweep of bpf/programs/sweep_translations.bpf.c. */
export function encodeTranslationSweep(hasStale: boolean): Buffer {
  const out = Buffer.alloc(16)
  out.writeUInt32LE(hasStale ? 1 : 0, 4)
  return out
}

/** Connections whose addresses are exchanged: those that are there, those that were taken away. */
export interface SweptTranslations {
  readonly kept: number
  readonly removed: number
}

export const decodeTranslationSweep = (bytes: Buffer): SweptTranslations => ({
  kept: bytes.readUInt32LE(8),
  removed: bytes.readUInt32LE(12),
})

/** enum rewrite_flag of bpf/maps/translations.h. */
export const rewriteFlags = {
  answer: 1,
  out: 2,
  hairpin: 4,
  masquerade: 8,
  fin: 16,
  reset: 32,
  answered: 64,
  spoke: 128,
} as const

/** One direction of a connection whose addresses are exchanged: what its packets come with, and what they get. */
export interface Translation {
  readonly from: Tuple
  readonly to: Tuple
  readonly flags: number
  /** `serviceNumber`; `0`: none. */
  readonly service: string
  /** Seconds, CLOCK_MONOTONIC. */
  readonly seen: number
}

/** struct rewrite, with the key that it was found under. */
export const decodeTranslation = (key: Buffer, value: Buffer): Translation => ({
  from: decodeTuple(key),
  to: decodeTuple(value),
  service: value.readBigUInt64LE(40).toString(16),
  seen: value.readUInt32LE(48),
  flags: value.readUInt32LE(52),
})

/** struct exclusion_key: prefix of 128, address. */
function encodeExclusion({ family, base, prefix }: Cidr): Buffer {
  const out = Buffer.alloc(4 + addressSize)
  out.writeUInt32LE(family === 4 ? 96 + prefix : prefix)
  encodeAddress({ family, value: base }).copy(out, 4)
  return out
}

function decodeExclusion(key: Buffer): string {
  const address = decodeAddress(key, 4)
  const prefix = key.readUInt32LE(0)
  return `${address}/${address.includes(':') ? prefix : prefix - 96}`
}

/** Networks that pods talk to under their own addresses. Throws a RangeError for what is none. */
export function writeExclusions(map: BpfMap, texts: readonly string[]): void {
  const cidrs = texts.map((text) => {
    const cidr = parseCidr(text)
    if (cidr === undefined) throw new RangeError(`${JSON.stringify(text)} is not a network: use 10.0.0.0/8`)
    return cidr
  })
  const wanted = new Set(cidrs.map(formatCidr))
  for (const cidr of cidrs) map.update(encodeExclusion(cidr), Buffer.from([1, 0, 0, 0]))
  for (const { key } of map.entries()) if (!wanted.has(decodeExclusion(key))) map.delete(key)
}
