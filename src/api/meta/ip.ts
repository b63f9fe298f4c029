import { isIPv4, isIPv6 } from 'node:net'
import { type FieldError, fieldError } from './status.ts'

const addressWords = 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
const mappedWords = 'must not be an IPv4-mapped IPv6 address'
const prefixWords = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'

/** As Kubernetes since 1.36: `::ffff:10.0.0.1` is refused, for it means one thing here and another there. */
export function validateAddress(value: string, path: string): FieldError[] {
  if (isIPv4(value)) return []
  if (!isIPv6(value) || value.includes('%')) return [fieldError.invalid(path, value, addressWords)]
  return isMapped(number6(value)) ? [fieldError.invalid(path, value, mappedWords)] : []
}

export function addressFamily(value: string): 'IPv4' | 'IPv6' | undefined {
  return isIPv4(value) ? 'IPv4' : isIPv6(value) ? 'IPv6' : undefined
}

/** `10.9.8.0/24`; bits beyond the prefix must be zero. */
export function validatePrefix(value: string, path: string): FieldError[] {
  const parsed = parsePrefix(value)
  if (parsed === undefined) return [fieldError.invalid(path, value, prefixWords)]
  if (parsed.isMapped) return [fieldError.invalid(path, value, 'must not have an IPv4-mapped IPv6 address')]
  return parsed.hasHostBits ? [fieldError.invalid(path, value, 'must not have bits set beyond the prefix length')] : []
}

export interface Prefix {
  readonly family: 'IPv4' | 'IPv6'
  readonly base: bigint
  readonly bits: number
  readonly hasHostBits: boolean
  /** `::ffff:10.0.0.0/104`. */
  readonly isMapped: boolean
}

export function parsePrefix(value: string): Prefix | undefined {
  const slash = value.lastIndexOf('/')
  const address = value.slice(0, slash)
  const family = slash < 0 ? undefined : addressFamily(address)
  const text = value.slice(slash + 1)
  if (family === undefined || !/^(0|[1-9]\d{0,2})$/.test(text)) return undefined
  const width = family === 'IPv4' ? 32 : 128
  const bits = Number(text)
  if (bits > width) return undefined
  const number = family === 'IPv4' ? number4(address) : number6(address)
  const hostMask = (1n << BigInt(width - bits)) - 1n
  const base = number & ~hostMask
  return { family, base, bits, hasHostBits: base !== number, isMapped: family === 'IPv6' && isMapped(number) }
}

/** Of an IPv6 address as a number. */
const isMapped = (number: bigint): boolean => number >> 32n === 0xffffn

/** Whether `inner` lies in `outer` and is smaller. */
export function isStrictlyInside(inner: Prefix, outer: Prefix): boolean {
  if (inner.family !== outer.family || inner.bits <= outer.bits) return false
  const width = outer.family === 'IPv4' ? 32 : 128
  return inner.base >> BigInt(width - outer.bits) === outer.base >> BigInt(width - outer.bits)
}

const number4 = (address: string): bigint =>
  BigInt(address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0))

function number6(address: string): bigint {
  const [, head = address, tail] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address) ?? []
  const text = tail === undefined ? address : `${head}${hex4(number4(tail))}`
  const [left = '', right] = text.split('::')
  const before = left === '' ? [] : left.split(':')
  const after = right === undefined || right === '' ? [] : right.split(':')
  const zeros = right === undefined ? 0 : 8 - before.length - after.length
  const groups = [...before, ...Array.from({ length: zeros }, () => '0'), ...after]
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n)
}

const hex4 = (number: bigint): string => `${(number >> 16n).toString(16)}:${(number & 0xffffn).toString(16)}`
