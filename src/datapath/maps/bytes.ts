/**
 * Keys and values of many entries, one after the other, as the kernel takes them in one call. Grows as needed. `next` makes room
 * for one entry, which begins at `keyAt` of `keys` and at `valueAt` of `values`: all of its bytes are then written there.
 */
export class Batch {
  readonly #keySize: number
  readonly #valueSize: number
  keys: Buffer
  values: Buffer
  keyAt = 0
  valueAt = 0
  count = 0

  constructor(keySize: number, valueSize: number) {
    this.#keySize = keySize
    this.#valueSize = valueSize
    this.keys = Buffer.allocUnsafe(keySize * 16)
    this.values = Buffer.allocUnsafe(valueSize * 16)
  }

  next(): void {
    this.keyAt = this.count * this.#keySize
    this.valueAt = this.count * this.#valueSize
    if (this.keyAt + this.#keySize > this.keys.length) {
      this.keys = grown(this.keys)
      this.values = grown(this.values)
    }
    this.count++
  }

  key(i: number): Buffer {
    return this.keys.subarray(i * this.#keySize, (i + 1) * this.#keySize)
  }
  value(i: number): Buffer {
    return this.values.subarray(i * this.#valueSize, (i + 1) * this.#valueSize)
  }
  allKeys(): Buffer {
    return this.keys.subarray(0, this.count * this.#keySize)
  }
  allValues(): Buffer {
    return this.values.subarray(0, this.count * this.#valueSize)
  }
}

function grown(old: Buffer): Buffer {
  const next = Buffer.allocUnsafe(old.length * 4)
  old.copy(next)
  return next
}

/** As `writeUInt32LE`, without its checks: half a million of them are written at a start. */
export function putU32(out: Buffer, at: number, value: number): void {
  out[at] = value
  out[at + 1] = value >>> 8
  out[at + 2] = value >>> 16
  out[at + 3] = value >>> 24
}
