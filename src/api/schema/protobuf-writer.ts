import { Buffer } from 'node:buffer'

/** Writes protobuf's wire format into one buffer that grows. Lengths are not known beforehand: messages are made inside out. */
export class Writer {
  private buffer = Buffer.allocUnsafe(64)
  private end = 0

  string(number: number, value: string): void {
    const length = Buffer.byteLength(value)
    this.head(number, 2, length)
    this.end += this.buffer.write(value, this.end)
  }

  bytes(number: number, value: Uint8Array): void {
    this.head(number, 2, value.length)
    this.buffer.set(value, this.end)
    this.end += value.length
  }

  message(number: number, write: (inner: Writer) => void): void {
    const inner = new Writer()
    write(inner)
    this.bytes(number, inner.finish())
  }

  /** A whole number; as upstream, negative ones take ten bytes. */
  int64(number: number, value: number): void {
    this.room(20)
    this.varint(number * 8)
    if (value >= 0 && value <= Number.MAX_SAFE_INTEGER) this.varint(value)
    else this.bigVarint(BigInt.asUintN(64, BigInt(value)))
  }

  double(number: number, value: number): void {
    this.room(18)
    this.varint(number * 8 + 1)
    this.end = this.buffer.writeDoubleLE(value, this.end)
  }

  /** The bytes so far; not to be written to afterwards. */
  finish(): Uint8Array {
    return this.buffer.subarray(0, this.end)
  }

  private head(number: number, wire: number, length: number): void {
    this.room(20 + length)
    this.varint(number * 8 + wire)
    this.varint(length)
  }

  private room(size: number): void {
    if (this.end + size <= this.buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.end + size))
    this.buffer.copy(larger, 0, 0, this.end)
    this.buffer = larger
  }

  private varint(value: number): void {
    let rest = value
    while (rest >= 0x80) {
      this.buffer[this.end++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.buffer[this.end++] = rest
  }

  private bigVarint(value: bigint): void {
    let rest = value
    while (rest >= 0x80n) {
      this.buffer[this.end++] = Number(rest & 0x7fn) | 0x80
      rest >>= 7n
    }
    this.buffer[this.end++] = Number(rest)
  }
}
