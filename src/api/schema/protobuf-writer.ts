import { Buffer } from 'node:buffer'

/** Writes protobuf's wire format into pieces that are joined at the end. */
export class Writer {
  private readonly pieces: Uint8Array[] = []

  string(number: number, value: string): void {
    this.bytes(number, Buffer.from(value, 'utf8'))
  }

  bytes(number: number, value: Uint8Array): void {
    this.pieces.push(varint(BigInt(number) * 8n + 2n), varint(BigInt(value.length)), value)
  }

  message(number: number, write: (inner: Writer) => void): void {
    const inner = new Writer()
    write(inner)
    this.bytes(number, inner.finish())
  }

  int64(number: number, value: number): void {
    this.pieces.push(varint(BigInt(number) * 8n), varint(BigInt.asUintN(64, BigInt(value))))
  }

  double(number: number, value: number): void {
    const raw = Buffer.alloc(8)
    raw.writeDoubleLE(value)
    this.pieces.push(varint(BigInt(number) * 8n + 1n), raw)
  }

  finish(): Uint8Array {
    return Buffer.concat(this.pieces)
  }
}

function varint(value: bigint): Uint8Array {
  const out: number[] = []
  let rest = value
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80)
    rest >>= 7n
  }
  out.push(Number(rest))
  return Uint8Array.from(out)
}
