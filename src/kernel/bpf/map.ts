import { checkResult, hasCode, KernelError } from '../errno.ts'
import { Fd } from '../fd.ts'
import * as ffi from '../ffi.ts'
import { Btf, type Members } from './btf.ts'

/** enum bpf_map_type of linux/bpf.h, as far as we tell them apart. */
const perCpuTypes: ReadonlySet<number> = new Set([5, 6, 10])
/** Hashes, LRU or not, for each CPU or not, and tries: those that fill up. */
const fillingTypes: ReadonlySet<number> = new Set([1, 5, 9, 10, 11])

/** How full a map is. */
export interface MapUse {
  readonly name: string
  readonly entries: number
  readonly entriesMax: number
}

export interface MapOperation {
  readonly map: string
  readonly operation: 'update' | 'delete'
  readonly outcome: 'success' | 'fail'
  readonly count: number
}

/** BPF_NOEXIST. */
const noExist = 1

const openMaps = new Set<BpfMap>()
const operations = new Map<string, { -readonly [K in keyof MapOperation]: MapOperation[K] }>()

/** Of all maps that this process has open; one that can never be full is left out. */
export async function mapUse(): Promise<MapUse[]> {
  return Promise.all(
    [...openMaps]
      .filter((map) => map.fills)
      .map(async (map) => {
        const { name, entriesMax } = map
        return { name, entriesMax, entries: await map.count() }
      }),
  )
}

/** Entries written and removed since the process began, by map. */
export const mapOperations = (): readonly MapOperation[] => [...operations.values()]

function counted<T>(map: string, operation: MapOperation['operation'], count: number, run: () => T): T {
  const add = (outcome: MapOperation['outcome'], amount: number): void => {
    const key = `${map} ${operation} ${outcome}`
    const known = operations.get(key)
    if (known === undefined) operations.set(key, { map, operation, outcome, count: amount })
    else known.count += amount
  }
  try {
    const result = run()
    add('success', count)
    return result
  } catch (error) {
    add('fail', 1)
    throw error
  }
}

/** A map as bytes. Typed maps are src/datapath/maps. */
export class BpfMap extends Fd {
  readonly keySize: number
  readonly valueSize: number
  readonly entriesMax: number
  /** What a look-up returns: one value per possible CPU, each on eight bytes, for per-CPU maps. */
  readonly readSize: number
  readonly name: string
  readonly id: number
  /** enum bpf_map_type. */
  readonly type: number
  /** It can be full. */
  readonly fills: boolean

  constructor(fd: number) {
    super(fd)
    const out = {} as ffi.MapInfoOut
    checkResult(ffi.mapInfoOf(fd, out), 'read about a BPF map')
    this.keySize = out.key_size
    this.valueSize = out.value_size
    this.entriesMax = out.entries_max
    this.name = out.name
    this.id = out.id
    this.type = out.type
    this.fills = fillingTypes.has(out.type)
    openMaps.add(this)
    this.readSize = perCpuTypes.has(out.type) ? Math.ceil(out.value_size / 8) * 8 * ffi.possibleCpus() : out.value_size
  }

  override [Symbol.dispose](): void {
    openMaps.delete(this)
    super[Symbol.dispose]()
  }

  /** How many entries there are; not on this thread, so that a large map holds up nobody. */
  async count(): Promise<number> {
    using own = new Fd(checkResult(ffi.dup(this.number), `open map ${this.name} once more`))
    return checkResult(await ffi.mapCount(own.number, this.keySize, this.entriesMax), `count map ${this.name}`)
  }

  #check(what: string, bytes: Uint8Array, size: number): void {
    if (bytes.length !== size)
      throw new RangeError(`${what} of map ${this.name} has ${bytes.length} bytes, the map's have ${size}`)
  }

  lookup(key: Uint8Array): Buffer | undefined {
    this.#check('the key', key, this.keySize)
    const value = Buffer.alloc(this.readSize)
    try {
      checkResult(ffi.mapLookup(this.number, key, value), `look up an entry of map ${this.name}`)
      return value
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    }
  }

  /** Throws E2BIG where a hash is full. */
  update(key: Uint8Array, value: Uint8Array): void {
    this.#check('the key', key, this.keySize)
    this.#check('the value', value, this.valueSize)
    counted(this.name, 'update', 1, () =>
      checkResult(ffi.mapUpdate(this.number, key, value, 0), `write an entry of map ${this.name}`),
    )
  }

  /** False where there was none. */
  delete(key: Uint8Array): boolean {
    this.#check('the key', key, this.keySize)
    try {
      counted(this.name, 'delete', 1, () =>
        checkResult(ffi.mapDelete(this.number, key), `delete an entry of map ${this.name}`),
      )
      return true
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return false
      throw error
    }
  }

  /** False where there is one already, or (`E2BIG`) no room for it. */
  add(key: Uint8Array, value: Uint8Array): boolean {
    this.#check('the key', key, this.keySize)
    this.#check('the value', value, this.valueSize)
    try {
      counted(this.name, 'update', 1, () =>
        checkResult(ffi.mapUpdate(this.number, key, value, noExist), `add an entry to map ${this.name}`),
      )
      return true
    } catch (error) {
      if (hasCode(error, 'EEXIST') || hasCode(error, 'E2BIG')) return false
      throw error
    }
  }

  /** What its keys and values are made of; undefined where nobody said so when it was made. */
  get types(): { readonly key: Members; readonly value: Members } | undefined {
    const ids = new Uint32Array(2)
    const action = `read the types of map ${this.name}`
    try {
      const size = checkResult(ffi.mapBtf(this.number, ids, null, 0), action)
      const out = Buffer.alloc(size)
      checkResult(ffi.mapBtf(this.number, ids, out, size), action)
      const btf = new Btf(out)
      const [key = 0, value = 0] = ids
      return key === 0 || value === 0 ? undefined : { key: btf.membersOf(key), value: btf.membersOf(value) }
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    }
  }

  /** Keys and values one after the other in their buffers. Throws E2BIG where they do not all fit. */
  updateBatch(keys: Uint8Array, values: Uint8Array, count: number): void {
    if (count === 0) return
    this.#check('the batch of keys', keys, this.keySize * count)
    this.#check('the batch of values', values, this.valueSize * count)
    const action = `write ${count} entries of map ${this.name}`
    counted(this.name, 'update', count, () => {
      const done = checkResult(ffi.mapUpdateBatch(this.number, keys, values, count), action)
      if (done < count)
        throw new KernelError(action, 'E2BIG', {
          details: `the map holds ${this.entriesMax}; ${done} were written`,
        })
    })
  }

  deleteBatch(keys: Uint8Array, count: number): void {
    if (count === 0) return
    this.#check('the batch of keys', keys, this.keySize * count)
    counted(this.name, 'delete', count, () =>
      checkResult(ffi.mapDeleteBatch(this.number, keys, count), `delete ${count} entries of map ${this.name}`),
    )
  }

  /** All entries, each once and as it was at some moment during the call, whatever programs write meanwhile. */
  entries(): { readonly key: Buffer; readonly value: Buffer }[] {
    // While it is read, a map may give up entries that were read already for others that are still to come.
    const roomMax = 2 * this.entriesMax + 1
    // Most maps are far from full: the room grows only where it has to.
    for (let room = Math.min(roomMax, 1024); ; room = Math.min(roomMax, room * 4)) {
      const keys = Buffer.alloc(room * this.keySize)
      const values = Buffer.alloc(room * this.readSize)
      try {
        const count = checkResult(
          ffi.mapDump(this.number, this.keySize, this.readSize, keys, values, room),
          `read map ${this.name}`,
        )
        return Array.from({ length: count }, (_, i) => ({
          key: keys.subarray(i * this.keySize, (i + 1) * this.keySize),
          value: values.subarray(i * this.readSize, (i + 1) * this.readSize),
        }))
      } catch (error) {
        if (hasCode(error, 'EAGAIN')) continue
        if (!hasCode(error, 'ENOSPC') || room >= roomMax) throw error
      }
    }
  }
}
