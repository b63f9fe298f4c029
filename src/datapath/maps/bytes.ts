/** Keys and values of many entries, one after the other, as the kernel takes them in one call. Grows as needed. */
export class Batch {
  readonly #keySize: number
  readonly #valueSize: number
  #keys: Buffer
  #values: Buffer
  #count = 0

  constructor(keySize: number, valueSize: number) {
    this.#keySize = keySize
    this.#valueSize = valueSize
    this.#keys = Buffer.allocUnsafe(keySize * 16)
    this.#values = Buffer.allocUnsafe(valueSize * 16)
  }

  get count(): number {
    return this.#count
  }
  get keys(): Buffer {
    return this.#keys.subarray(0, this.#count * this.#keySize)
  }
  get values(): Buffer {
    return this.#values.subarray(0, this.#count * this.#valueSize)
  }

  key(i: number): Buffer {
    return this.#keys.subarray(i * this.#keySize, (i + 1) * this.#keySize)
  }
  value(i: number): Buffer {
    return this.#values.subarray(i * this.#valueSize, (i + 1) * this.#valueSize)
  }

  /** `fill` writes one entry at these places of these buffers, all of its bytes. */
  add(fill: (keys: Buffer, keyAt: number, values: Buffer, valueAt: number) => void): void {
    const keyAt = this.#count * this.#keySize
    const valueAt = this.#count * this.#valueSize
    if (keyAt + this.#keySize > this.#keys.length) {
      this.#keys = grown(this.#keys)
      this.#values = grown(this.#values)
    }
    fill(this.#keys, keyAt, this.#values, valueAt)
    this.#count++
  }
}

function grown(old: Buffer): Buffer {
  const next = Buffer.allocUnsafe(old.length * 4)
  old.copy(next)
  return next
}
