import type { Outside, Service } from '../datapath.ts'
import type { Backend, Frontend } from '../frontend.ts'
import { Batch, putU32 } from './bytes.ts'
import { decodePeer, encodePeer, peerSize, writePeer } from './peer.ts'
import { PeerTable } from './peer-table.ts'
import { Affinities, SourceRanges } from './service-extras.ts'
import { type ServiceMap, writeBatch } from './service-map.ts'
import { RunAllocator } from './slots.ts'

export const frontendsMap = 'frontends_v2'
export const slotsMap = 'slots_v1'
export const backendsMap = 'backends_v1'

/** No hook runs for a second: a slot or backend that rested this long is read by nobody. */
const restMs = 1_000

const frontendSize = 32

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

/** A run of slots and the numbers of the backends in it. */
interface Run {
  readonly first: number
  readonly backends: readonly number[]
}

interface Placed {
  readonly service: Service
  readonly inside: Run
  /** The inside run itself where both are the same backends. */
  readonly outside: Run | undefined
}

const noRun: Run = { first: 0, backends: [] }

/** The number that these digits say: 32 bits of it. */
function hexOf(text: string, from: number, to: number): number {
  let value = 0
  for (let i = Math.max(0, from); i < to; i++) {
    const c = text.charCodeAt(i)
    value = (value << 4) | (c > 57 ? c - 87 : c - 48)
  }
  return value
}

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
  const middle = number.length - 8
  putU32(out, at, hexOf(number, middle, number.length))
  putU32(out, at + 4, hexOf(number, 0, middle))
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
  readonly #placed = new PeerTable<Placed>()
  /** Numbers of backends. */
  readonly #known = new PeerTable<number>()
  /** By number: the backend, and how many runs have it. */
  readonly #backends: (Backend | undefined)[] = []
  readonly #uses: number[] = []
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
      this.#placed.set(frontend, place)
      this.#countOutside(place, 1)
      this.#ranges.note(service)
      this.#affinities.note(service)
    }
    this.#slotRuns.restore([...runs.values()].map((run) => ({ first: run.first, count: run.backends.length })))
    this.#numbers.restore(this.#uses.flatMap((uses, first) => (uses > 0 ? [{ first, count: 1 }] : [])))
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
    const uses = this.#uses[number] ?? 0
    if (uses > 0) this.#uses[number] = uses + 1
    else this.#learn(number, decodePeer(this.#maps.backends.lookup(u32(number)) ?? Buffer.alloc(peerSize)))
  }

  #learn(number: number, backend: Backend): void {
    // Without holes: numbers are given out from below.
    while (this.#uses.length < number) {
      this.#backends.push(undefined)
      this.#uses.push(0)
    }
    this.#known.set(backend, number)
    this.#backends[number] = backend
    this.#uses[number] = 1
  }

  #backendsOf({ backends }: Run): Backend[] {
    return backends.flatMap((number) => this.#backends[number] ?? [])
  }

  /** What the kernel has now. */
  list(): Service[] {
    const services: Service[] = []
    for (const { service } of this.#placed.values()) services.push(service)
    return services
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
    return this.#known.get(backend)
  }

  /** Throws where a map is full, with nothing of the change in force. */
  change(upserts: readonly Service[], removals: readonly Frontend[]): void {
    const placed: Placed[] = []
    try {
      const writes = new Writes()
      for (const service of upserts) {
        const old = this.#placed.get(service.frontend)
        if (old === undefined || !sameService(old.service, service)) placed.push(this.#place(service, writes))
      }
      writeBatch(this.#maps.backends, writes.backends)
      writeBatch(this.#maps.slots, writes.slots)
      for (const { service } of placed) this.#before(service)
      writeBatch(this.#maps.frontends, writes.frontends)
    } catch (error) {
      for (const place of placed) this.#undo(place)
      throw error
    }
    for (const place of placed) this.#settle(place.service.frontend, place)
    if (removals.length === 0) return
    // What the same change writes it does not mean to remove.
    const stays = new PeerTable<boolean>()
    for (const { frontend } of upserts) stays.set(frontend, true)
    for (const frontend of removals) {
      if (stays.get(frontend) || this.#placed.get(frontend) === undefined) continue
      this.#maps.frontends.delete(encodePeer(frontend))
      this.#settle(frontend, undefined)
    }
  }

  /** What must be there before the frontend says so: who may ask, and whom a client may come back to. */
  #before(service: Service): void {
    if (service.outside?.ranges !== undefined) this.#ranges.add(service)
    if (service.affinitySeconds !== undefined) this.#affinities.add(service, (b) => this.numberOfBackend(b) ?? 0)
  }

  /** The frontend is now this, or nothing; what it was before rests. */
  #settle(frontend: Frontend, next: Placed | undefined): void {
    const old = next === undefined ? this.#placed.delete(frontend) : this.#placed.set(frontend, next)
    if (next !== undefined) this.#countOutside(next, 1)
    if (old === undefined) return
    this.#countOutside(old, -1)
    if (old.service.outside?.ranges !== undefined) this.#ranges.remove(old.service)
    if (old.service.affinitySeconds !== undefined) this.#affinities.remove(old.service)
    this.#free(old)
  }

  /** A change that did not fit: some of its frontends may have been written. */
  #undo(place: Placed): void {
    const old = this.#placed.get(place.service.frontend)
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
    const used = new Array<number>(backends.length)
    const { slots } = writes
    for (let i = 0; i < used.length; i++) {
      const backend = backends[i]
      const number = backend === undefined ? undefined : this.#use(backend, writes)
      if (number === undefined) {
        this.#freeRun({ first, backends: used.slice(0, i) }, used.length)
        throw new Error(
          `Cannot add backend ${backend?.address}:${backend?.port}: all ${this.#maps.backends.entriesMax} are in use`,
        )
      }
      used[i] = number
      slots.next()
      putU32(slots.keys, slots.keyAt, first + i)
      putU32(slots.values, slots.valueAt, number)
    }
    return { first, backends: used }
  }

  /** Undefined where there is no room for another. */
  #use(backend: Backend, writes: Writes): number | undefined {
    const known = this.#known.get(backend)
    if (known !== undefined) {
      this.#uses[known] = (this.#uses[known] ?? 0) + 1
      return known
    }
    const number = this.#numbers.take(1)
    if (number === undefined) return undefined
    this.#learn(number, backend)
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
      const backend = this.#backends[number]
      if (backend === undefined) continue
      const left = (this.#uses[number] ?? 0) - 1
      this.#uses[number] = left
      if (left > 0) continue
      this.#known.delete(backend)
      this.#backends[number] = undefined
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
