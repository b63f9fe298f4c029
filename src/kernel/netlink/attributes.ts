/** rtnetlink attributes that npm `netlink` leaves as bytes: `struct nlattr`, native byte order, padded to four. */
export function attribute(type: number, payload: Uint8Array | string | number): Buffer {
  const body =
    typeof payload === 'number'
      ? uint32(payload)
      : typeof payload === 'string'
        ? Buffer.from(`${payload}\0`)
        : Buffer.from(payload)
  const out = Buffer.alloc(4 + Math.ceil(body.length / 4) * 4)
  out.writeUInt16LE(4 + body.length, 0)
  out.writeUInt16LE(type, 2)
  body.copy(out, 4)
  return out
}

function uint32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(value)
  return out
}

/** The payloads by type; a later one of the same type wins. */
export function parseAttributes(bytes: Uint8Array): Map<number, Buffer> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const found = new Map<number, Buffer>()
  for (let at = 0; at + 4 <= buffer.length; ) {
    const length = buffer.readUInt16LE(at)
    if (length < 4) break
    // The two top bits say "nested" and "network byte order".
    found.set(buffer.readUInt16LE(at + 2) & 0x3fff, buffer.subarray(at + 4, at + length))
    at += Math.ceil(length / 4) * 4
  }
  return found
}
