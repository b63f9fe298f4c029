import { isIP } from 'node:net'

/** An IP address as a number with its family, so that ranges are arithmetic. */
export interface Address {
  readonly family: 4 | 6
  readonly value: bigint
}

/** A network: its first address and the length of its prefix in bits. */
export interface Cidr {
  readonly family: 4 | 6
  readonly base: bigint
  readonly prefix: number
}

const bits = (family: 4 | 6): number => (family === 4 ? 32 : 128)

/** Undefined where the text is not an address. IPv4-mapped IPv6 stays IPv6; zones are refused. */
export function parseAddress(text: string): Address | undefined {
  switch (isIP(text)) {
    case 4:
      return { family: 4, value: parse4(text) }
    case 6:
      return text.includes('%') ? undefined : { family: 6, value: parse6(text) }
    default:
      return undefined
  }
}

function parse4(text: string): bigint {
  return text.split('.').reduce((value, part) => (value << 8n) | BigInt(part), 0n)
}

function parse6(text: string): bigint {
  // A dotted tail stands for the last two groups.
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const tail = dotted?.[2] === undefined ? undefined : parse4(dotted[2])
  const plain =
    tail === undefined ? text : `${dotted?.[1]}${(tail >> 16n).toString(16)}:${(tail & 0xffffn).toString(16)}`
  const [left = '', right] = plain.split('::')
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'))
  const before = groups(left)
  const after = right === undefined ? [] : groups(right)
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0')
  return [...before, ...zeros, ...after].reduce((value, group) => (value << 16n) | BigInt(`0x${group}`), 0n)
}

/** The canonical text: RFC 5952 for IPv6. */
export function formatAddress({ family, value }: Address): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn))
  // The longest run of two zero groups or more is written as `::`, the first of equals.
  let best = { start: -1, length: 1 }
  for (let start = 0; start < 8; start++) {
    let length = 0
    while (start + length < 8 && groups[start + length] === 0) length++
    if (length > best.length) best = { start, length }
  }
  const text = (part: number[]): string => part.map((g) => g.toString(16)).join(':')
  if (best.start < 0) return text(groups)
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`
}

/** Undefined where the text is not a network; host bits are dropped. */
export function parseCidr(text: string): Cidr | undefined {
  const [, ip = '', length = ''] = /^(.+)\/(\d{1,3})$/.exec(text) ?? []
  const address = parseAddress(ip)
  const prefix = Number(length)
  if (address === undefined || length === '' || prefix > bits(address.family)) return undefined
  const shift = BigInt(bits(address.family) - prefix)
  return { family: address.family, base: (address.value >> shift) << shift, prefix }
}

export const formatCidr = ({ family, base, prefix }: Cidr): string =>
  `${formatAddress({ family, value: base })}/${prefix}`

/** `::ffff:10.0.0.1`, or a network of such: IPv6 by its text, IPv4 by what it means. */
export function isMapped(one: Address | Cidr): boolean {
  const first = 'base' in one ? one.base : one.value
  return one.family === 6 && first >> 32n === 0xffffn
}

/** How many addresses the network has. */
export const cidrSize = ({ family, prefix }: Cidr): bigint => 1n << BigInt(bits(family) - prefix)

export const cidrContains = (cidr: Cidr, { family, value }: Address): boolean =>
  family === cidr.family && value >= cidr.base && value < cidr.base + cidrSize(cidr)
