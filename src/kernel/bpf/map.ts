import { checkResult, hasCode, KernelError } from '../errno.ts'
import { Fd } from '../fd.ts'
import * as ffi from '../ffi.ts'

/** enum bpf_map_type of linux/bpf.h, as far as we tell them apart. */
const perCpuTypes: ReadonlySet<number> = new Set([5, 6, 10])

/** A map as bytes. Typed maps are src/datapath/maps. */
export class BpfMap extends Fd {
  readonly keySize: number
  readonly valueSize: number
  readonly entriesMax: number
  /** What a look-up returns: one value per possible CPU, each on eight bytes, for per-CPU maps. */
  readonly readSize: number
  readonly name: string

  constructor(fd: number) {
    super(fd)
    const out = {} as ffi.MapInfoOut
    checkResult(ffi.mapInfoOf(fd, out), 'read about a BPF map')
    this.keySize = out.key_size
    this.valueSize = out.value_size
    this.entriesMax = out.entries_max
    this.name = out.name
    this.readSize = perCpuTypes.has(out.type) ? Math.ceil(out.value_size / 8) * 8 * ffi.possibleCpus() : out.value_size
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
    checkResult(ffi.mapUpdate(this.number, key, value, 0), `write an entry of map ${this.name}`)
  }

  /** False where there was none. */
  delete(key: Uint8Array): boolean {
    this.#check('the key', key, this.keySize)
    try {
      checkResult(ffi.mapDelete(this.number, key), `delete an entry of map ${this.name}`)
      return true
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return false
      throw error
    }
  }

  /** Keys and values one after the other in their buffers. Throws E2BIG where they do not all fit. */
  updateBatch(keys: Uint8Array, values: Uint8Array, count: number): void {
    if (count === 0) return
    this.#check('the batch of keys', keys, this.keySize * count)
    this.#check('the batch of values', values, this.valueSize * count)
    const done = checkResult(
      ffi.mapUpdateBatch(this.number, keys, values, count),
      `write ${count} entries of map ${this.name}`,
    )
    if (done < count)
      throw new KernelError(`write ${count} entries of map ${this.name}`, 'E2BIG', {
        details: `the map holds ${this.entriesMax}; ${done} were written`,
      })
  }

  deleteBatch(keys: Uint8Array, count: number): void {
    if (count === 0) return
    this.#check('the batch of keys', keys, this.keySize * count)
    checkResult(ffi.mapDeleteBatch(this.number, keys, count), `delete ${count} entries of map ${this.name}`)
  }

  /** All entries of a hash, as they were at some moment during the call. */
  entries(): { readonly key: Buffer; readonly value: Buffer }[] {
    // Most maps are far from full: the room grows only where it has to.
    for (let room = Math.min(this.entriesMax, 1024); ; room = Math.min(this.entriesMax, room * 4)) {
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
        if (!hasCode(error, 'ENOSPC') || room >= this.entriesMax) throw error
      }
    }
  }
}
