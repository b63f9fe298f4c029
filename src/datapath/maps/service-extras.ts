import { parseCidr } from '#base/net/address.ts'
import type { Service } from '../datapath.ts'
import type { Backend } from '../frontend.ts'
import { addressSize, decodeAddress, encodeAddress, writeAddress } from './address.ts'
import { protocolNumber } from './peer.ts'
import type { ServiceMap } from './service-map.ts'

export const sourceRangesMap = 'source_ranges_v1'
export const membersMap = 'members_v1'

const one = Buffer.from([1, 0, 0, 0])
const numberBits = 64

/** struct source_range_key: prefix, number of the Service, address. */
function encodeSourceRange(number: string, text: string): Buffer | undefined {
  const cidr = parseCidr(text)
  if (cidr === undefined) return undefined
  const out = Buffer.alloc(12 + addressSize)
  out.writeUInt32LE(numberBits + (cidr.family === 4 ? 96 : 0) + cidr.prefix)
  out.writeBigUInt64LE(BigInt(`0x${number}`), 4)
  encodeAddress({ family: cidr.family, value: cidr.base }).copy(out, 12)
  return out
}

function decodeSourceRange(key: Buffer): { readonly number: string; readonly text: string } {
  const address = decodeAddress(key, 12)
  const prefix = key.readUInt32LE(0) - numberBits
  return {
    number: key.readBigUInt64LE(4).toString(16),
    text: `${address}/${address.includes(':') ? prefix : prefix - 96}`,
  }
}

/** Entries that several frontends want, taken away when the last of them is gone. */
class Shared {
  readonly #map: ServiceMap | undefined
  readonly #uses = new Map<string, number>()

  constructor(map: ServiceMap | undefined) {
    this.#map = map
  }

  note(key: Buffer): void {
    const name = key.toString('latin1')
    this.#uses.set(name, (this.#uses.get(name) ?? 0) + 1)
  }

  add(key: Buffer, value: Buffer): void {
    this.#map?.update(key, value)
    this.note(key)
  }

  remove(key: Buffer): void {
    const name = key.toString('latin1')
    const left = (this.#uses.get(name) ?? 0) - 1
    if (left > 0) this.#uses.set(name, left)
    else if (this.#uses.delete(name)) this.#map?.delete(key)
  }
}

/** Who may ask a Service from outside. */
export class SourceRanges {
  readonly #shared: Shared
  readonly #found = new Map<string, string[]>()

  constructor(map: ServiceMap | undefined) {
    this.#shared = new Shared(map)
    for (const { key } of map?.entries() ?? []) {
      const { number, text } = decodeSourceRange(key)
      this.#found.set(number, [...(this.#found.get(number) ?? []), text])
    }
  }

  /** What was there when we came. */
  of(number: string): readonly string[] {
    return this.#found.get(number) ?? []
  }

  #each(service: Service, act: (key: Buffer) => void): void {
    for (const text of new Set(service.outside?.ranges ?? [])) {
      const key = encodeSourceRange(service.number ?? '0', text)
      if (key !== undefined) act(key)
    }
  }

  note(service: Service): void {
    this.#each(service, (key) => this.#shared.note(key))
  }
  add(service: Service): void {
    this.#each(service, (key) => this.#shared.add(key, one))
  }
  remove(service: Service): void {
    this.#each(service, (key) => this.#shared.remove(key))
  }
}

/** struct member_key: number of the Service, backend's address, the Service's port and protocol, side. */
function encodeMember(service: Service, { address, protocol }: Backend, side: 'inside' | 'outside'): Buffer {
  const out = Buffer.alloc(32)
  out.writeBigUInt64LE(BigInt(`0x${service.number ?? '0'}`))
  writeAddress(out, 8, address)
  out.writeUInt16BE(service.port ?? 0, 24)
  out[26] = protocolNumber(protocol)
  out[27] = side === 'outside' ? 1 : service.isInsideLocal ? 2 : 0
  return out
}

/** Whom a client of a Service with session affinity may come back to. */
export class Affinities {
  readonly #shared: Shared

  constructor(map: ServiceMap | undefined) {
    this.#shared = new Shared(map)
  }

  #each(service: Service, act: (key: Buffer, backend: Backend) => void): void {
    if (service.affinitySeconds === undefined) return
    for (const backend of service.backends) act(encodeMember(service, backend, 'inside'), backend)
    for (const backend of service.outside?.backends ?? []) act(encodeMember(service, backend, 'outside'), backend)
  }

  note(service: Service): void {
    this.#each(service, (key) => this.#shared.note(key))
  }
  add(service: Service, numberOf: (backend: Backend) => number): void {
    this.#each(service, (key, backend) => {
      const value = Buffer.alloc(4)
      value.writeUInt32LE(numberOf(backend))
      this.#shared.add(key, value)
    })
  }
  remove(service: Service): void {
    this.#each(service, (key) => this.#shared.remove(key))
  }
}
