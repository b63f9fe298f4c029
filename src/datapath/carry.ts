import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Members } from '#kernel/bpf/btf.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { BpfObject } from '#kernel/bpf/object.ts'
import { Link, openPin, Program } from '#kernel/bpf/program.ts'
import { hasCode } from '#kernel/errno.ts'
import type { CompiledObject } from './compile.ts'
import { type OtherMaps, setIfUsed } from './load.ts'
import { endpointsMapV1 } from './maps/endpoints.ts'

/** A pinned map whose name says that the present programs have another layout of the same. */
interface Left {
  readonly base: string
  readonly oldName: string
  readonly name: string
  readonly map: BpfMap
}

/** Maps that programs of both versions write while links are exchanged, and what bpf/maps/before.h calls them. */
const shared = [
  { base: 'flows', struct: 'flow', map: 'before_flows', prefix: 'cfg_flow' },
  { base: 'translations', struct: 'rewrite', map: 'before_pairs', prefix: 'cfg_rewrite' },
] as const

/** BEFORE_SIZE and BEFORE_NOWHERE of bpf/maps/before.h. */
const tableSize = 256
const nowhere = 255

/** enum bpf_map_type: what has entries that can be read and written as bytes. */
const [hash, array, lru, trie] = [1, 2, 9, 11]

const versioned = /^(.+)_v(\d+)$/

/**
 * What another version of Weft has left in layouts of its own, later or earlier (a rollback): its maps, found by their names.
 * They are carried over member by member, by the names that the compiler left in them (BTF). A member of the same name means
 * the same; one that is new is 0.
 */
export class LeftMaps implements OtherMaps, Disposable {
  readonly #pinDir: string
  readonly #left: readonly Left[]
  /** Pins of maps that the present programs do not know at all. */
  readonly #unknown: readonly string[]

  private constructor(pinDir: string, left: readonly Left[], unknown: readonly string[]) {
    this.#pinDir = pinDir
    this.#left = left
    this.#unknown = unknown
  }

  /** Looks at pins; undefined where all are of this version. */
  static find(objects: readonly CompiledObject[], pinDir: string): LeftMaps | undefined {
    const pins = readdirSync(join(pinDir, 'maps')).filter((name) => versioned.test(name))
    const present = mapNamesOf(objects)
    const others = pins.filter((name) => !present.has(name))
    if (others.length === 0) return undefined
    const nameOf = new Map([...present].map((name) => [baseOf(name), name]))
    const left: Left[] = []
    const unknown: string[] = []
    for (const oldName of others.toSorted(byVersion)) {
      const name = nameOf.get(baseOf(oldName))
      const fd = name === undefined ? undefined : openPin(join(pinDir, 'maps', oldName))
      if (name === undefined || fd === undefined) unknown.push(oldName)
      else left.push({ base: baseOf(oldName), oldName, name, map: new BpfMap(fd) })
    }
    return new LeftMaps(pinDir, left, unknown)
  }

  /** What makes programs that know these maps others than those that do not. */
  get mark(): string {
    return this.#left.map(({ oldName, map }) => `${oldName} ${map.id}`).join()
  }

  /** The one of several that programs look into themselves: the latest. */
  #sharedOf(base: string): Left | undefined {
    return this.#left.find((one) => one.base === base && isConvertible(one.map))
  }

  /** One that has a way of its own to be carried over. Stays ours. */
  mapOf(oldName: string): BpfMap | undefined {
    return this.#left.find((one) => one.oldName === oldName)?.map
  }

  /** Before an object is loaded: its programs look there for what they do not find. */
  tell(object: BpfObject): void {
    const { types } = object
    const tuple = types.struct('tuple')
    for (const { base, struct, map, prefix } of shared) {
      const old = this.#sharedOf(base)?.map
      const now = types.struct(struct)
      const before = old?.types
      if (old === undefined || before === undefined || now === undefined || tuple === undefined) continue
      if (!isSame(before.key, tuple.members) || !types.mapNames.includes(map)) continue
      object.reuseMap(map, old)
      const size = Buffer.alloc(4)
      size.writeUInt32LE(old.valueSize)
      setIfUsed(object, `${prefix}_before`, size)
      setIfUsed(object, `${prefix}_from`, table(places(now.members, before.value, now.size)))
      setIfUsed(object, `${prefix}_back`, table(places(before.value, now.members, old.valueSize)))
    }
    const sharesAnew = this.#left.some(({ base }) => base === 'shares')
    setIfUsed(object, 'cfg_shares_anew', Buffer.from([sharesAnew ? 1 : 0, 0, 0, 0]))
  }

  /**
   * Everything else, entry by entry; what is there already stays. Before the first link is exchanged (`first`), and once more
   * after the last: packets went on writing. Returns how many entries were written, by the old map's name.
   */
  carry(when: 'first' | 'again'): Record<string, number> {
    const isFlowsAnew = this.#left.some(({ base }) => base === 'flows')
    const carried: Record<string, number> = {}
    for (const one of this.#left) {
      // Its numbers are of the flows that are counted when they come; those of pods are given anew (pod-side.ts).
      if ((one.base === 'shares' && isFlowsAnew) || one.oldName === endpointsMapV1) continue
      if (shared.some(({ base }) => this.#sharedOf(base) === one)) continue
      using now = this.#open(one.name)
      const count = now === undefined ? 0 : copy(one.map, now, when === 'first')
      if (count > 0) carried[one.oldName] = count
    }
    return carried
  }

  #open(name: string): BpfMap | undefined {
    const fd = openPin(join(this.#pinDir, 'maps', name))
    return fd === undefined ? undefined : new BpfMap(fd)
  }

  /** Pins go whose maps no attached program uses any more. Returns their names, and those that stay. */
  unpin(): { readonly removed: string[]; readonly kept: string[] } {
    const used = attachedMaps(this.#pinDir)
    const removed: string[] = []
    const kept: string[] = []
    for (const name of [...this.#left.map(({ oldName }) => oldName), ...this.#unknown]) {
      using map = this.#open(name)
      if (map !== undefined && used.has(map.id)) {
        kept.push(name)
        continue
      }
      rmSync(join(this.#pinDir, 'maps', name), { force: true })
      removed.push(name)
    }
    return { removed, kept }
  }

  [Symbol.dispose](): void {
    for (const { map } of this.#left) map[Symbol.dispose]()
  }
}

const baseOf = (name: string): string => versioned.exec(name)?.[1] ?? name
const byVersion = (a: string, b: string): number =>
  Number(versioned.exec(b)?.[2] ?? 0) - Number(versioned.exec(a)?.[2] ?? 0)

const namesByHash = new Map<string, readonly string[]>()

function mapNamesOf(objects: readonly CompiledObject[]): ReadonlySet<string> {
  return new Set(
    objects.flatMap((object) => {
      const known = namesByHash.get(object.hash)
      if (known !== undefined) return known
      using opened = BpfObject.open(object.name, object.elf, null)
      const names = opened.types.mapNames
      namesByHash.set(object.hash, names)
      return names
    }),
  )
}

/** A place is one byte. */
const isConvertible = (map: BpfMap): boolean => map.types !== undefined && map.valueSize < nowhere

const isSame = (a: Members, b: Members): boolean =>
  a.size === b.size &&
  [...a].every(([name, { offset, size }]) => {
    const other = b.get(name)
    return other?.offset === offset && other.size === size
  })

/** For each byte of a value of `to`, its place in one of `from`. Of a number that has become shorter the lower half is kept. */
function places(to: Members, from: Members, size: number): number[] {
  const out = new Array<number>(size).fill(nowhere)
  for (const [name, { offset, size: bytes }] of to) {
    const there = from.get(name)
    if (there === undefined) continue
    for (let i = 0; i < Math.min(bytes, there.size); i++) out[offset + i] = there.offset + i
  }
  return out
}

const table = (of: readonly number[]): Buffer => Buffer.concat([Buffer.from(of), Buffer.alloc(tableSize - of.length)])

/** Returns how many entries were written. */
function copy(old: BpfMap, now: BpfMap, isFirst: boolean): number {
  const [before, after] = [old.types, now.types]
  if (before === undefined || after === undefined || old.type !== now.type || !isSame(before.key, after.key)) return 0
  const from = places(after.value, before.value, now.valueSize)
  const moved = (value: Buffer): Buffer =>
    Buffer.from(from.map((place) => (place === nowhere ? 0 : (value[place] ?? 0))))
  if (old.type === array) {
    // Every element of an array is there from the start: only what nobody has written yet is carried over.
    if (!isFirst) return 0
    const all = old.entries().slice(0, now.entriesMax)
    const keys = Buffer.concat(all.map(({ key }) => key))
    now.updateBatch(keys, Buffer.concat(all.map(({ value }) => moved(value))), all.length)
    return all.length
  }
  if (![hash, lru, trie].includes(old.type)) return 0
  return old.entries().filter(({ key, value }) => now.add(key, moved(value))).length
}

/** Maps of the programs that are attached by links of ours. */
function attachedMaps(pinDir: string): ReadonlySet<number> {
  const used = new Set<number>()
  for (const dir of ['links', 'gateway-links'].map((name) => join(pinDir, name))) {
    for (const name of namesIn(dir)) {
      using link = Link.openPin(join(dir, name))
      if (link === undefined) continue
      const { programId, isAttached } = link.info
      using program = isAttached ? Program.openId(programId) : undefined
      for (const id of program?.mapIds ?? []) used.add(id)
    }
  }
  return used
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  }
}
