import type { BpfMap } from '#kernel/bpf/map.ts'
import type { ServiceMap } from './service-map.ts'

/** A map in memory that fills up. */
export class SmallMap implements ServiceMap {
  readonly entriesMax: number
  readonly #entries = new Map<string, Buffer>()

  constructor(entriesMax: number) {
    this.entriesMax = entriesMax
  }

  lookup(key: Uint8Array): Buffer | undefined {
    return this.#entries.get(Buffer.from(key).toString('hex'))
  }

  update(key: Uint8Array, value: Uint8Array): void {
    const name = Buffer.from(key).toString('hex')
    if (!this.#entries.has(name) && this.#entries.size >= this.entriesMax) throw new Error('E2BIG')
    this.#entries.set(name, Buffer.from(value))
  }

  updateBatch(keys: Uint8Array, values: Uint8Array, count: number): void {
    const [keySize, valueSize] = [keys.length / count, values.length / count]
    for (let i = 0; i < count; i++)
      this.update(keys.subarray(i * keySize, (i + 1) * keySize), values.subarray(i * valueSize, (i + 1) * valueSize))
  }

  delete(key: Uint8Array): boolean {
    return this.#entries.delete(Buffer.from(key).toString('hex'))
  }

  entries(): { readonly key: Buffer; readonly value: Buffer }[] {
    return [...this.#entries].map(([key, value]) => ({ key: Buffer.from(key, 'hex'), value }))
  }
}

/** A map in memory in the place of one of the kernel's. */
export const asMap = (map: SmallMap): BpfMap => map as unknown as BpfMap
