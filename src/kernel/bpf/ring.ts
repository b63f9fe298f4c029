import { checkResult } from '../errno.ts'
import * as ffi from '../ffi.ts'
import type { BpfMap } from './map.ts'

/** A BPF ring buffer whose records all have one size, read without being woken: whoever wants records asks for them. */
export class Ring implements Disposable {
  readonly recordSize: number
  #ring: ffi.RingPointer | undefined

  /** The map may be closed afterwards; the mapping keeps it. Only one reader at a time may have a ring. */
  constructor(map: BpfMap, recordSize: number) {
    const out: [ffi.RingPointer | null] = [null]
    checkResult(ffi.ringOpen(map.number, map.entriesMax, out), `map ring buffer ${map.name}`)
    if (out[0] === null) throw new Error(`Cannot map ring buffer ${map.name}: nothing came back`)
    this.recordSize = recordSize
    this.#ring = out[0]
  }

  /** Copies what is there, at most as many records as `into` has room for, and returns how many. Oldest first. Never waits. */
  drain(into: Uint8Array): number {
    if (this.#ring === undefined) throw new Error('Cannot read a ring buffer that is closed')
    const room = Math.floor(into.length / this.recordSize)
    return checkResult(ffi.ringDrain(this.#ring, this.recordSize, into, room), 'read a ring buffer')
  }

  [Symbol.dispose](): void {
    if (this.#ring !== undefined) ffi.ringClose(this.#ring)
    this.#ring = undefined
  }
}
