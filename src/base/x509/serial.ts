import { randomBytes } from 'node:crypto'

/** A certificate's number, in hexadecimal: positive and never zero, as RFC 5280 wants it; 126 bits of chance. */
export function serialNumber(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}
