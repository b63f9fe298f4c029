import type { BpfMap } from '#kernel/bpf/map.ts'
import type { Backend, Frontend, Protocol, Service } from '../datapath.ts'
import { decodeAddress, encodeAddress } from './address.ts'
import { RunAllocator } from './slots.ts'

export const frontendsMap = 'frontends_v1'
export const slotsMap = 'slots_v1'
export const backendsMap = 'backends_v1'

const numbers = { TCP: 6, UDP: 17 } as const satisfies Record<Protocol, number>
/** No hook runs for a second: a slot or backend that rested this long is read by nobody. */
const restMs = 1_000

/** struct frontend_key and struct backend have one layout: address, port, protocol. */
export const peerSize = 20

export function encodePeer({ address, port, protocol }: Frontend): Buffer {
  const out = Buffer.alloc(peerSize)
  encodeAddress(address).copy(out)
  out.writeUInt16BE(port, 16)
  out.writeUInt8(numbers[protocol], 18)
  return out
}

export function decodePeer(bytes: Buffer): Frontend {
  return {
    address: decodeAddress(bytes),
    port: bytes.readUInt16BE(16),
    protocol: bytes.readUInt8(18) === numbers.TCP ? 'TCP' : 'UDP',
  }
}

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

const nameOf = ({ address, port, protocol }: Frontend): string => `${address}|${port}|${protocol}`

/** As much of a map as is used here, so that a test can fill one up. */
export type ServiceMap = Pick<BpfMap, 'entriesMax' | 'lookup' | 'update' | 'updateBatch' | 'delete' | 'entries'>

interface Placed {
  readonly frontend: Frontend
  readonly first: number
  /** Numbers of its backends, in slot order. */
  readonly backends: readonly number[]
}

/** struct frontend. */
const frontendValue = ({ first, backends }: Placed): Buffer => Buffer.concat([u32(first), u32(backends.length)])

/** What a change writes, in the order in which it is written. */
class Writes {
  readonly backends: [Buffer, Buffer][] = []
  readonly slots: [Buffer, Buffer][] = []
  readonly frontends: [Buffer, Buffer][] = []
}

/**
 * Frontends, slots and backends kept in step. A change is: backends, then a run of slots, then the frontend's one value;
 * a removal is the reverse, and what it frees rests before it is used again. So a connection sees all of the old set of
 * backends or all of the new one, whatever else happens meanwhile.
 */
export class ServiceMaps {
  readonly #frontends: ServiceMap
  readonly #slots: ServiceMap
  readonly #backends: ServiceMap
  readonly #slotRuns: RunAllocator
  readonly #numbers: RunAllocator
  readonly #placed = new Map<string, Placed>()
  readonly #numberOf = new Map<string, { readonly number: number; readonly backend: Backend; uses: number }>()
  readonly #nameOfNumber = new Map<number, string>()

  constructor(
    maps: { readonly frontends: ServiceMap; readonly slots: ServiceMap; readonly backends: ServiceMap },
    now: () => number,
  ) {
    this.#frontends = maps.frontends
    this.#slots = maps.slots
    this.#backends = maps.backends
    this.#slotRuns = new RunAllocator({ limit: maps.slots.entriesMax, restMs, now })
    this.#numbers = new RunAllocator({ limit: maps.backends.entriesMax, restMs, now })
    this.#restore()
  }

  /** The maps are the truth: what an earlier agent wrote is taken over as it is. */
  #restore(): void {
    for (const { key, value } of this.#frontends.entries()) {
      const first = value.readUInt32LE(0)
      const count = value.readUInt32LE(4)
      const backends = Array.from({ length: count }, (_, i) => this.#slots.lookup(u32(first + i))?.readUInt32LE(0) ?? 0)
      for (const number of backends) this.#restoreBackend(number)
      this.#placed.set(nameOf(decodePeer(key)), { frontend: decodePeer(key), first, backends })
    }
    this.#slotRuns.restore([...this.#placed.values()].map((p) => ({ first: p.first, count: p.backends.length })))
    this.#numbers.restore([...this.#nameOfNumber.keys()].map((first) => ({ first, count: 1 })))
  }

  #restoreBackend(number: number): void {
    const name = this.#nameOfNumber.get(number)
    const known = name === undefined ? undefined : this.#numberOf.get(name)
    if (known !== undefined) {
      known.uses++
      return
    }
    const backend = decodePeer(this.#backends.lookup(u32(number)) ?? Buffer.alloc(peerSize))
    this.#numberOf.set(nameOf(backend), { number, backend, uses: 1 })
    this.#nameOfNumber.set(number, nameOf(backend))
  }

  /** What the kernel has now. */
  list(): Service[] {
    return [...this.#placed.values()].map(({ frontend, backends }) => ({
      frontend,
      backends: backends.flatMap((number) => this.#backendOf(number) ?? []),
    }))
  }

  #backendOf(number: number): Backend | undefined {
    const name = this.#nameOfNumber.get(number)
    return name === undefined ? undefined : this.#numberOf.get(name)?.backend
  }

  /** Throws where a map is full, with nothing of the change in force. */
  change(upserts: readonly Service[], removals: readonly Frontend[]): void {
    const placed = new Map<string, Placed>()
    try {
      const writes = new Writes()
      for (const service of upserts) {
        const name = nameOf(service.frontend)
        const old = placed.get(name) ?? this.#placed.get(name)
        if (old === undefined || !this.#same(old, service)) placed.set(name, this.#place(service, writes))
      }
      write(this.#backends, writes.backends)
      write(this.#slots, writes.slots)
      write(this.#frontends, writes.frontends)
    } catch (error) {
      for (const [name, place] of placed) this.#undo(name, place)
      throw error
    }
    for (const [name, place] of placed) this.#settle(name, place)
    for (const frontend of removals) {
      const name = nameOf(frontend)
      // What the same change writes it does not mean to remove.
      if (placed.has(name) || !this.#placed.has(name)) continue
      this.#frontends.delete(encodePeer(frontend))
      this.#settle(name, undefined)
    }
  }

  /** The frontend is now this, or nothing; what it was before rests. */
  #settle(name: string, next: Placed | undefined): void {
    const old = this.#placed.get(name)
    if (next === undefined) this.#placed.delete(name)
    else this.#placed.set(name, next)
    if (old !== undefined) this.#free(old)
  }

  /** A change that did not fit: some of its frontends may have been written. */
  #undo(name: string, place: Placed): void {
    const old = this.#placed.get(name)
    if (old === undefined) this.#frontends.delete(encodePeer(place.frontend))
    else this.#frontends.update(encodePeer(old.frontend), frontendValue(old))
    this.#free(place)
  }

  #same(old: Placed, { backends }: Service): boolean {
    return (
      old.backends.length === backends.length &&
      backends.every((backend, i) => this.#numberOf.get(nameOf(backend))?.number === old.backends[i])
    )
  }

  #place({ frontend, backends }: Service, writes: Writes): Placed {
    const first = backends.length === 0 ? 0 : this.#slotRuns.take(backends.length)
    if (first === undefined)
      throw new Error(
        `Cannot place Service ${frontend.address}:${frontend.port}: all ${this.#slots.entriesMax} slots are in use`,
      )
    const numbers: number[] = []
    try {
      for (const backend of backends) numbers.push(this.#use(backend, writes))
    } catch (error) {
      this.#free({ frontend, first, backends: numbers }, backends.length)
      throw error
    }
    for (const [i, number] of numbers.entries()) writes.slots.push([u32(first + i), u32(number)])
    const place = { frontend, first, backends: numbers }
    writes.frontends.push([encodePeer(frontend), frontendValue(place)])
    return place
  }

  #use(backend: Backend, writes: Writes): number {
    const name = nameOf(backend)
    const known = this.#numberOf.get(name)
    if (known !== undefined) {
      known.uses++
      return known.number
    }
    const number = this.#numbers.take(1)
    if (number === undefined)
      throw new Error(
        `Cannot add backend ${backend.address}:${backend.port}: all ${this.#backends.entriesMax} are in use`,
      )
    this.#numberOf.set(name, { number, backend, uses: 1 })
    this.#nameOfNumber.set(number, name)
    writes.backends.push([u32(number), encodePeer(backend)])
    return number
  }

  #free({ first, backends }: Placed, slots = backends.length): void {
    this.#slotRuns.give(first, slots)
    for (const number of backends) {
      const name = this.#nameOfNumber.get(number)
      const known = name === undefined ? undefined : this.#numberOf.get(name)
      if (name === undefined || known === undefined || --known.uses > 0) continue
      this.#numberOf.delete(name)
      this.#nameOfNumber.delete(number)
      this.#numbers.give(number, 1)
    }
  }
}

/** Below this a few calls are as quick as a batch. */
const singlesMax = 8

function write(map: ServiceMap, entries: readonly (readonly [Buffer, Buffer])[]): void {
  if (entries.length <= singlesMax) {
    for (const [key, value] of entries) map.update(key, value)
    return
  }
  map.updateBatch(Buffer.concat(entries.map(([k]) => k)), Buffer.concat(entries.map(([, v]) => v)), entries.length)
}
