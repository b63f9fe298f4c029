import type { Frontend } from '../frontend.ts'
import { protocolNumber } from './peer.ts'

interface Entry<V> {
  code: number
  value: V
  /** Of further ports and protocols of the address. */
  others: Map<number, V> | undefined
}

const codeOf = ({ port, protocol }: Frontend): number => (port << 8) | protocolNumber(protocol)

/**
 * Values by address, port and protocol. Most addresses have one: it is found by the address alone, and no text is put together
 * for forty thousand of them at a start.
 */
export class PeerTable<V> {
  readonly #byAddress = new Map<string, Entry<V>>()

  get(peer: Frontend): V | undefined {
    const entry = this.#byAddress.get(peer.address)
    if (entry === undefined) return undefined
    const code = codeOf(peer)
    return entry.code === code ? entry.value : entry.others?.get(code)
  }

  /** Returns what was there before. */
  set(peer: Frontend, value: V): V | undefined {
    const code = codeOf(peer)
    const entry = this.#byAddress.get(peer.address)
    if (entry === undefined) {
      this.#byAddress.set(peer.address, { code, value, others: undefined })
      return undefined
    }
    if (entry.code === code) {
      const old = entry.value
      entry.value = value
      return old
    }
    entry.others ??= new Map()
    const old = entry.others.get(code)
    entry.others.set(code, value)
    return old
  }

  /** Returns what was there. */
  delete(peer: Frontend): V | undefined {
    const code = codeOf(peer)
    const entry = this.#byAddress.get(peer.address)
    if (entry === undefined) return undefined
    if (entry.code !== code) {
      const old = entry.others?.get(code)
      entry.others?.delete(code)
      return old
    }
    const old = entry.value
    for (const [other, value] of entry.others ?? []) {
      entry.others?.delete(other)
      entry.code = other
      entry.value = value
      return old
    }
    this.#byAddress.delete(peer.address)
    return old
  }

  *values(): Generator<V> {
    for (const { value, others } of this.#byAddress.values()) {
      yield value
      if (others !== undefined) yield* others.values()
    }
  }
}
