import { isIPv4 } from 'node:net'
import { type Address, formatAddress, parseAddress } from '#base/net/address.ts'

/** struct address: 16 bytes, network order, IPv4 as ::ffff:a.b.c.d. */
export const addressSize = 16
const mapped = 0xffff_0000_0000n

/** Throws a RangeError for what is no address, and for a mapped one: it would pass for IPv4. */
export function encodeAddress(address: Address | string): Buffer {
  // Ten thousand Services are written at once at every start: the usual form takes the short way.
  if (typeof address === 'string' && isIPv4(address)) {
    const out = Buffer.alloc(addressSize)
    out.writeUInt16BE(0xffff, 10)
    for (const [i, part] of address.split('.').entries()) out[12 + i] = Number(part)
    return out
  }
  const parsed = typeof address === 'string' ? parseAddress(address) : address
  if (parsed === undefined) throw new RangeError(`${JSON.stringify(address)} is not an IP address`)
  const { family, value } = parsed
  if (family === 6 && value >> 32n === 0xffffn)
    throw new RangeError(`${formatAddress(parsed)} is an IPv4-mapped address: write it as IPv4`)
  const number = family === 4 ? mapped | value : value
  return Buffer.from(number.toString(16).padStart(32, '0'), 'hex')
}

/** As `encodeAddress`, into bytes that are there. */
export function writeAddress(out: Buffer, at: number, address: string): void {
  // Ten thousand Services are written at once at every start: the usual form is read digit by digit.
  const value = parse4(address)
  if (value < 0) {
    encodeAddress(address).copy(out, at)
    return
  }
  for (let i = 0; i < 10; i++) out[at + i] = 0
  out[at + 10] = 255
  out[at + 11] = 255
  out[at + 12] = value / 0x100_0000
  out[at + 13] = value >> 16
  out[at + 14] = value >> 8
  out[at + 15] = value
}

/** Four numbers up to 255, without leading zeros; -1 for anything else. */
function parse4(text: string): number {
  let value = 0
  let part = 0
  let digits = 0
  let dots = 0
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === 46) {
      if (digits === 0 || ++dots > 3) return -1
      value = value * 256 + part
      part = 0
      digits = 0
    } else {
      if (c < 48 || c > 57 || (digits > 0 && part === 0)) return -1
      part = part * 10 + c - 48
      digits++
      if (part > 255) return -1
    }
  }
  return dots === 3 && digits > 0 ? value * 256 + part : -1
}

export function decodeAddress(bytes: Uint8Array, offset = 0): string {
  const value = BigInt(`0x${Buffer.from(bytes.subarray(offset, offset + addressSize)).toString('hex')}`)
  return value >> 32n === 0xffffn
    ? formatAddress({ family: 4, value: value & 0xffff_ffffn })
    : formatAddress({ family: 6, value })
}
