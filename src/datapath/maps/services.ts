import type { Outside, Service } from '../datapath.ts'
import type { Backend, Frontend } from '../frontend.ts'
import { Batch, putU32 } from './bytes.ts'
import { decodePeer, encodePeer, peerSize, writePeer } from './peer.ts'
import { Affinities, SourceRanges } from './service-extras.ts'
import { type ServiceMap, writeBatch } from './service-map.ts'
import { RunAllocator } from './slots.ts'

export const frontendsMap = 'frontends_v2'
export const slotsMap = 'slots_v1'
export const backendsMap = 'backends_v1'

/** No hook runs for a second: a slot or backend that rested this long is read by nobody. */
const restMs = 1_000

export const frontendSize = 32

/** enum frontend_flag of bpf/maps/services.h. */
export const frontendFlags = {
  outside: 1,
  local: 2,
  ranges: 4,
  stack: 8,
  equal: 16,
  outsideOnly: 32,
  insideLocal: 64,
} as const

const u32 = (value: number): Buffer => {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

const nameOf = ({ address, port, protocol }: Frontend): string => `${address}|${port}|${protocol}`

/** A run of slots and the numbers of the backends in it. */
interface Run {
  readonly first: number
  readonly backends: readonly number[]
}

interface KnownBackend {
  readonly name: string
  readonly number: number
  readonly backend: Backend
  uses: number
}

interface Placed {
  readonly service: Service
  readonly inside: Run
  /** The inside run itself where both are the same backends. */
  readonly outside: Run | undefined
}

const noRun: Run = { first: 0, backends: [] }

/** struct frontend: what a value of the map says, as numbers. */
function writeFrontend(out: Buffer, at: number, { service, inside, outside }: Placed): void {
  const { outside: o } = service
  const flags =
    (o === undefined ? 0 : frontendFlags.outside) |
    (o?.isLocal ? frontendFlags.local : 0) |
    (o?.ranges === undefined ? 0 : frontendFlags.ranges) |
    (service.toStack ? frontendFlags.stack : 0) |
    (service.isOutsideOnly ? frontendFlags.outsideOnly : 0) |
    (service.isInsideLocal ? frontendFlags.insideLocal : 0) |
    (outside === inside ? frontendFlags.equal : 0)
  const { number = '0', port = 0 } = service
  putU32(out, at, Number.parseInt(number.slice(-8), 16))
  putU32(out, at + 4, number.length > 8 ? Number.parseInt(number.slice(0, -8), 16) : 0)
  putU32(out, at + 8, inside.first)
  putU32(out, at + 12, inside.backends.length)
  putU32(out, at + 16, outside?.first ?? 0)
  putU32(out, at + 20, outside?.backends.length ?? 0)
  putU32(out, at + 24, service.affinitySeconds ?? 0)
  out[at + 28] = port >> 8
  out[at + 29] = port
  out[at + 30] = flags
  out[at + 31] = flags >> 8
}

export interface ServiceMapSet {
  readonly frontends: ServiceMap
  readonly slots: ServiceMap
  readonly backends: ServiceMap
  readonly sourceRanges?: ServiceMap
  readonly members?: ServiceMap
}

/** What a change writes, in the order in which it is written. */
class Writes {
  readonly backends = new Batch(4, peerSize)
  readonly slots = new Batch(4, 4)
  readonly frontends = new Batch(peerSize, frontendSize)
}

/**
 * Frontends, slots and backends kept in step. A change is: backends, then runs of slots, then the frontend's one value;
 * a removal is the reverse, and what it frees rests before it is used again. So a connection sees all of the old set of
 * backends or all of the new one, whatever else happens meanwhile.
 */
export class ServiceMaps {
  readonly #maps: ServiceMapSet
  readonly #slotRuns: RunAllocator
  readonly #numbers: RunAllocator
  readonly #placed = new Map<string, Placed>()
  readonly #known = new Map<string, KnownBackend>()
  /** By number. */
  readonly #byNumber: (KnownBackend | undefined)[] = []
  /** By address of a backend: how many frontends lead those outside to it. */
  readonly #outsideUses = new Map<string, number>()
  readonly #ranges: SourceRanges
  readonly #affinities: Affinities

  constructor(maps: ServiceMapSet, now: () => number) {
    this.#maps = maps
    this.#slotRuns = new RunAllocator({ limit: maps.slots.entriesMax, restMs, now })
    this.#numbers = new RunAllocator({ limit: maps.backends.entriesMax, restMs, now })
    this.#ranges = new SourceRanges(maps.sourceRanges)
    this.#affinities = new Affinities(maps.members)
    this.#restore()
  }

  /** The maps are the truth: what an earlier agent wrote is taken over as it is. */
  #restore(): void {
    const { frontends } = this.#maps
    const runs = new Map<number, Run>()
    for (const { key, value } of frontends.entries()) {
      const frontend = decodePeer(key)
      const flags = value.readUInt16LE(30)
      const inside = this.#restoreRun(value.readUInt32LE(8), value.readUInt32LE(12), runs)
      const isEqual = (flags & frontendFlags.equal) !== 0
      const outside =
        (flags & frontendFlags.outside) === 0
          ? undefined
          : isEqual
            ? inside
            : this.#restoreRun(value.readUInt32LE(16), value.readUInt32LE(20), runs)
      const number = value.readBigUInt64LE(0).toString(16)
      const affinitySeconds = value.readUInt32LE(24)
      const port = value.readUInt16BE(28)
      const service: Service = {
        frontend,
        backends: this.#backendsOf(inside),
        ...(number === '0' ? {} : { number }),
        ...(port === 0 ? {} : { port }),
        ...(affinitySeconds === 0 ? {} : { affinitySeconds }),
        ...((flags & frontendFlags.stack) === 0 ? {} : { toStack: true }),
        ...((flags & frontendFlags.outsideOnly) === 0 ? {} : { isOutsideOnly: true }),
        ...((flags & frontendFlags.insideLocal) === 0 ? {} : { isInsideLocal: true }),
        ...(outside === undefined ? {} : { outside: this.#restoreOutside(number, flags, outside) }),
      }
      const place = { service, inside, outside }
      this.#placed.set(nameOf(frontend), place)
      this.#countOutside(place, 1)
      this.#ranges.note(service)
      this.#affinities.note(service)
    }
    this.#slotRuns.restore([...runs.values()].map((run) => ({ first: run.first, count: run.backends.length })))
    this.#numbers.restore([...this.#known.values()].map(({ number }) => ({ first: number, count: 1 })))
  }

  #restoreRun(first: number, count: number, runs: Map<number, Run>): Run {
    if (count === 0) return noRun
    const { slots } = this.#maps
    const backends = Array.from({ length: count }, (_, i) => slots.lookup(u32(first + i))?.readUInt32LE(0) ?? 0)
    for (const number of backends) this.#restoreBackend(number)
    const run = { first, backends }
    runs.set(first, run)
    return run
  }

  #restoreOutside(number: string, flags: number, run: Run): Outside {
    return {
      backends: this.#backendsOf(run),
      ...((flags & frontendFlags.local) === 0 ? {} : { isLocal: true }),
      ...((flags & frontendFlags.ranges) === 0 ? {} : { ranges: this.#ranges.of(number) }),
    }
  }

  #restoreBackend(number: number): void {
    const known = this.#byNumber[number]
    if (known !== undefined) {
      known.uses++
      return
    }
    const backend = decodePeer(this.#maps.backends.lookup(u32(number)) ?? Buffer.alloc(peerSize))
    this.#learn({ name: nameOf(backend), number, backend, uses: 1 })
  }

  #learn(known: KnownBackend): void {
    this.#known.set(known.name, known)
    this.#byNumber[known.number] = known
  }

  #backendsOf({ backends }: Run): Backend[] {
    return backends.flatMap((number) => this.#byNumber[number]?.backend ?? [])
  }

  /** What the kernel has now. */
  list(): Service[] {
    return [...this.#placed.values()].map(({ service }) => service)
  }

  /** Whether somebody outside is led to one of these addresses. */
  leadsOutsideTo(addresses: ReadonlySet<string>): boolean {
    for (const address of addresses) if ((this.#outsideUses.get(address) ?? 0) > 0) return true
    return false
  }

  #countOutside({ service }: Placed, change: 1 | -1): void {
    for (const { address } of service.outside?.backends ?? [])
      this.#outsideUses.set(address, (this.#outsideUses.get(address) ?? 0) + change)
  }

  /** The number by which the kernel knows a backend; undefined where no Service has it. */
  numberOfBackend(backend: Backend): number | undefined {
    return this.#known.get(nameOf(backend))?.number
  }

  /** Throws where a map is full, with nothing of the change in force. */
  change(upserts: readonly Service[], removals: readonly Frontend[]): void {
    const placed = new Map<string, Placed>()
    try {
      const writes = new Writes()
      for (const service of upserts) {
        const name = nameOf(service.frontend)
        const old = placed.get(name) ?? this.#placed.get(name)
        if (old === undefined || !sameService(old.service, service)) placed.set(name, this.#place(service, writes))
      }
      writeBatch(this.#maps.backends, writes.backends)
      writeBatch(this.#maps.slots, writes.slots)
      for (const { service } of placed.values()) this.#before(service)
      writeBatch(this.#maps.frontends, writes.frontends)
    } catch (error) {
      for (const [name, place] of placed) this.#undo(name, place)
      throw error
    }
    for (const [name, place] of placed) this.#settle(name, place)
    for (const frontend of removals) {
      const name = nameOf(frontend)
      // What the same change writes it does not mean to remove.
      if (placed.has(name) || !this.#placed.has(name)) continue
      this.#maps.frontends.delete(encodePeer(frontend))
      this.#settle(name, undefined)
    }
  }

  /** What must be there before the frontend says so: who may ask, and whom a client may come back to. */
  #before(service: Service): void {
    if (service.outside?.ranges !== undefined) this.#ranges.add(service)
    if (service.affinitySeconds !== undefined) this.#affinities.add(service, (b) => this.numberOfBackend(b) ?? 0)
  }

  /** The frontend is now this, or nothing; what it was before rests. */
  #settle(name: string, next: Placed | undefined): void {
    const old = this.#placed.get(name)
    if (next === undefined) this.#placed.delete(name)
    else {
      this.#placed.set(name, next)
      this.#countOutside(next, 1)
    }
    if (old === undefined) return
    this.#countOutside(old, -1)
    if (old.service.outside?.ranges !== undefined) this.#ranges.remove(old.service)
    if (old.service.affinitySeconds !== undefined) this.#affinities.remove(old.service)
    this.#free(old)
  }

  /** A change that did not fit: some of its frontends may have been written. */
  #undo(name: string, place: Placed): void {
    const old = this.#placed.get(name)
    const key = encodePeer(place.service.frontend)
    if (old === undefined) this.#maps.frontends.delete(key)
    else {
      const value = Buffer.alloc(frontendSize)
      writeFrontend(value, 0, old)
      this.#maps.frontends.update(key, value)
    }
    this.#ranges.remove(place.service)
    this.#affinities.remove(place.service)
    this.#free(place)
  }

  #place(service: Service, writes: Writes): Placed {
    const inside = this.#placeRun(service.frontend, service.backends, writes)
    let outside: Run | undefined
    try {
      const { backends } = service.outside ?? {}
      if (backends !== undefined)
        outside = sameBackends(backends, service.backends) ? inside : this.#placeRun(service.frontend, backends, writes)
    } catch (error) {
      this.#freeRun(inside)
      throw error
    }
    const place = { service, inside, outside }
    const { frontends } = writes
    frontends.next()
    writePeer(frontends.keys, frontends.keyAt, service.frontend)
    writeFrontend(frontends.values, frontends.valueAt, place)
    return place
  }

  #placeRun({ address, port }: Frontend, backends: readonly Backend[], writes: Writes): Run {
    if (backends.length === 0) return noRun
    const first = this.#slotRuns.take(backends.length)
    if (first === undefined)
      throw new Error(`Cannot place Service ${address}:${port}: all ${this.#maps.slots.entriesMax} slots are in use`)
    const used: number[] = []
    try {
      for (const backend of backends) used.push(this.#use(backend, writes))
    } catch (error) {
      this.#freeRun({ first, backends: used }, backends.length)
      throw error
    }
    const { slots } = writes
    for (let i = 0; i < used.length; i++) {
      slots.next()
      putU32(slots.keys, slots.keyAt, first + i)
      putU32(slots.values, slots.valueAt, used[i] ?? 0)
    }
    return { first, backends: used }
  }

  #use(backend: Backend, writes: Writes): number {
    const name = nameOf(backend)
    const known = this.#known.get(name)
    if (known !== undefined) {
      known.uses++
      return known.number
    }
    const number = this.#numbers.take(1)
    if (number === undefined)
      throw new Error(
        `Cannot add backend ${backend.address}:${backend.port}: all ${this.#maps.backends.entriesMax} are in use`,
      )
    this.#learn({ name, number, backend, uses: 1 })
    const { backends } = writes
    backends.next()
    putU32(backends.keys, backends.keyAt, number)
    writePeer(backends.values, backends.valueAt, backend)
    return number
  }

  #free({ inside, outside }: Placed): void {
    this.#freeRun(inside)
    if (outside !== undefined && outside !== inside) this.#freeRun(outside)
  }

  #freeRun({ first, backends }: Run, slots = backends.length): void {
    this.#slotRuns.give(first, slots)
    for (const number of backends) {
      const known = this.#byNumber[number]
      if (known === undefined || --known.uses > 0) continue
      this.#known.delete(known.name)
      this.#byNumber[number] = undefined
      this.#numbers.give(number, 1)
    }
  }
}

/** Whether two say the same; backends are compared in order. */
export function sameService(a: Service, b: Service): boolean {
  return (
    a === b ||
    (a.number === b.number &&
      a.port === b.port &&
      a.affinitySeconds === b.affinitySeconds &&
      (a.toStack ?? false) === (b.toStack ?? false) &&
      (a.isOutsideOnly ?? false) === (b.isOutsideOnly ?? false) &&
      (a.isInsideLocal ?? false) === (b.isInsideLocal ?? false) &&
      sameBackends(a.backends, b.backends) &&
      sameOutside(a.outside, b.outside))
  )
}

function sameOutside(a: Outside | undefined, b: Outside | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  return (
    (a.isLocal ?? false) === (b.isLocal ?? false) &&
    a.ranges?.toSorted().join() === b.ranges?.toSorted().join() &&
    sameBackends(a.backends, b.backends)
  )
}

function sameBackends(a: readonly Backend[], b: readonly Backend[]): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i], b[i]]
    if (x?.address !== y?.address || x?.port !== y?.port || x?.protocol !== y?.protocol) return false
  }
  return true
}
