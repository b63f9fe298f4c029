import type { BpfMap } from '#kernel/bpf/map.ts'
import type { KnownAddress } from '../datapath.ts'
import { decodeAddress, encodeAddress } from './address.ts'

export const addressesMap = 'addresses_v1'

/** enum address_flag of bpf/maps/services.h. */
export const addressFlags = { own: 1, node: 2, virtual: 4, announced: 8, resolver: 16, external: 32 } as const

function encodeAddressFlags({ kind, isAnnounced }: KnownAddress): Buffer {
  const out = Buffer.alloc(4)
  const ofKind = kind === 'own' ? addressFlags.own | addressFlags.node : addressFlags[kind]
  out.writeUInt32LE(ofKind | (isAnnounced ? addressFlags.announced : 0))
  return out
}

function decodeAddressFlags(address: string, bytes: Buffer): KnownAddress {
  const value = bytes.readUInt32LE(0)
  const has = (flag: number): boolean => (value & flag) !== 0
  const kinds = ['own', 'node', 'virtual', 'external', 'resolver'] as const
  const kind = kinds.find((name) => has(addressFlags[name])) ?? 'external'
  return { address, kind, ...(has(addressFlags.announced) ? { isAnnounced: true } : {}) }
}

/** Addresses that mean something though they are neither pods' nor cluster addresses. */
export class AddressMap {
  readonly #map: BpfMap

  constructor(map: BpfMap) {
    this.#map = map
  }

  entries(): KnownAddress[] {
    return this.#map.entries().map(({ key, value }) => decodeAddressFlags(decodeAddress(key), value))
  }

  /** Returns the addresses that this node answers for since now. */
  set(addresses: readonly KnownAddress[]): string[] {
    const present = new Map(this.entries().map((known) => [known.address, known]))
    const begun: string[] = []
    for (const known of addresses) {
      const old = present.get(known.address)
      present.delete(known.address)
      if (old?.kind === known.kind && (old.isAnnounced ?? false) === (known.isAnnounced ?? false)) continue
      this.#map.update(encodeAddress(known.address), encodeAddressFlags(known))
      if (known.isAnnounced) begun.push(known.address)
    }
    for (const address of present.keys()) this.#map.delete(encodeAddress(address))
    return begun
  }
}
