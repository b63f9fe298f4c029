import { Buffer } from 'node:buffer'
import { DecodeError } from './conform.ts'

/** Reads protobuf's wire format. Every length is checked against what is there, so nothing grows beyond the body. */
export class Reader {
  private at = 0
  private readonly data: Uint8Array

  constructor(data: Uint8Array) {
    this.data = data
  }

  more(): boolean {
    return this.at < this.data.length
  }

  tag(): { number: number; wire: number } {
    const tag = this.unsigned()
    const number = Math.floor(tag / 8)
    if (number < 1 || number > 0x1fffffff) throw new DecodeError(`proto: illegal tag ${number} (wire type ${tag % 8})`)
    return { number, wire: tag % 8 }
  }

  expect(wire: number, wanted: number): this {
    if (wire !== wanted) throw new DecodeError(`proto: wrong wireType = ${wire}`)
    return this
  }

  /** A signed 64-bit number; beyond 2^53 the nearest one. */
  int64(): number {
    let low = 0
    let high = 0
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.byte()
      const bits = byte & 0x7f
      if (shift < 28) low |= bits << shift
      else if (shift === 28) {
        low |= bits << 28
        high |= bits >> 4
      } else high |= bits << (shift - 32)
      if (byte < 0x80) return (high | 0) * 4294967296 + (low >>> 0)
    }
    throw new DecodeError('proto: integer overflow')
  }

  double(): number {
    const raw = this.take(8)
    return new DataView(raw.buffer, raw.byteOffset, 8).getFloat64(0, true)
  }

  bytes(): Uint8Array {
    return this.take(this.unsigned())
  }

  string(): string {
    const raw = this.bytes()
    return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('utf8')
  }

  skip(wire: number): void {
    if (wire === 0) this.int64()
    else if (wire === 1) this.take(8)
    else if (wire === 2) this.bytes()
    else if (wire === 5) this.take(4)
    else throw new DecodeError(`proto: illegal wireType ${wire}`)
  }

  private unsigned(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 7; i++) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 128
    }
    throw new DecodeError('proto: integer overflow')
  }

  private byte(): number {
    const byte = this.data[this.at]
    if (byte === undefined) throw new DecodeError('unexpected EOF')
    this.at++
    return byte
  }

  private take(length: number): Uint8Array {
    if (length > this.data.length - this.at) throw new DecodeError('unexpected EOF')
    const piece = this.data.subarray(this.at, this.at + length)
    this.at += length
    return piece
  }
}
