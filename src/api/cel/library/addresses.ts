import { type Address, formatAddress, parseAddress } from '#base/net/address.ts'
import { add, fixed, scale, traversal } from '../cost.ts'
import { type Costs, type Overload, overload } from '../functions.ts'
import { sizeOfNode } from '../operators.ts'
import { EvaluationError, type Opaque, sizeOf } from '../values.ts'
import { overText } from './standard.ts'

class Ip implements Opaque {
  readonly typeName = 'net.IP'
  readonly address: Address
  constructor(address: Address) {
    this.address = address
  }
  get text(): string {
    return formatAddress(this.address)
  }
  equals(other: Opaque): boolean {
    return other instanceof Ip && isSame(this.address, other.address)
  }
}

class Cidr implements Opaque {
  readonly typeName = 'net.CIDR'
  /** With the bits beyond the prefix. */
  readonly address: Address
  readonly prefix: number
  constructor(address: Address, prefix: number) {
    this.address = address
    this.prefix = prefix
  }
  get text(): string {
    return `${formatAddress(this.address)}/${this.prefix}`
  }
  equals(other: Opaque): boolean {
    return other instanceof Cidr && this.prefix === other.prefix && isSame(this.address, other.address)
  }
}

const isSame = (a: Address, b: Address): boolean => a.family === b.family && a.value === b.value
const bitsOf = ({ family }: Address): number => (family === 4 ? 32 : 128)
const isMapped = ({ family, value }: Address): boolean => family === 6 && value >> 32n === 0xffffn

function parseIp(text: string): Ip | string {
  const address = parseAddress(text)
  const quoted = JSON.stringify(text)
  if (address === undefined) {
    return text.includes('%')
      ? `IP address ${quoted} with zone value is not allowed`
      : `IP Address ${quoted} parse error during conversion from string: ParseAddr(${quoted})`
  }
  return isMapped(address) ? `IPv4-mapped IPv6 address ${quoted} is not allowed` : new Ip(address)
}

function parseCidr(text: string): Cidr | string {
  const quoted = JSON.stringify(text)
  const found = /^([^/]*)\/(0|[1-9]\d{0,2})$/.exec(text)
  const address = found === null ? undefined : parseAddress(found[1] ?? '')
  const prefix = Number(found?.[2])
  if (address === undefined || prefix > bitsOf(address))
    return `network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix(${quoted})`
  return isMapped(address) ? `IPv4-mapped IPv6 address ${quoted} is not allowed` : new Cidr(address, prefix)
}

function orFail<T>(value: T | string): T {
  if (typeof value === 'string') throw new EvaluationError(value)
  return value
}
const ipOf = (text: string): Ip => orFail(parseIp(text))
const cidrOf = (text: string): Cidr => orFail(parseCidr(text))

const shifted = (address: Address, prefix: number): bigint => address.value >> BigInt(bitsOf(address) - prefix)
const holds = (outer: Cidr, address: Address, prefix: number): boolean =>
  outer.address.family === address.family &&
  prefix >= outer.prefix &&
  shifted(outer.address, outer.prefix) === shifted(address, outer.prefix)

function masked({ address, prefix }: Cidr): Cidr {
  const rest = BigInt(bitsOf(address) - prefix)
  return new Cidr({ family: address.family, value: (address.value >> rest) << rest }, prefix)
}

const top = ({ address: { family, value } }: Ip, bits: number): bigint =>
  value >> BigInt((family === 4 ? 32 : 128) - bits)
const isUnspecified = (ip: Ip): boolean => ip.address.value === 0n
const isLoopback = (ip: Ip): boolean => (ip.address.family === 4 ? top(ip, 8) === 127n : ip.address.value === 1n)
const isLinkLocalUnicast = (ip: Ip): boolean =>
  ip.address.family === 4 ? top(ip, 16) === 0xa9fen : top(ip, 10) === 0x3fan
const isMulticast = (ip: Ip): boolean => (ip.address.family === 4 ? top(ip, 4) === 0xen : top(ip, 8) === 0xffn)
const isLinkLocalMulticast = (ip: Ip): boolean =>
  ip.address.family === 4 ? top(ip, 24) === 0xe00000n : top(ip, 16) === 0xff02n
const isBroadcast = (ip: Ip): boolean => ip.address.family === 4 && ip.address.value === 0xffffffffn
/** Go's notion: everything that is one host's, private networks included. */
const isGlobalUnicast = (ip: Ip): boolean =>
  !isUnspecified(ip) && !isLoopback(ip) && !isMulticast(ip) && !isLinkLocalUnicast(ip) && !isBroadcast(ip)

/** Addresses have 4 to 16 bytes. */
const bytesRange = { min: 4, max: 16 }
const insideCosts = (isNetwork: boolean, isText: boolean): Costs => ({
  estimate: ([, other]) => {
    const base = scale(add(bytesRange, bytesRange), traversal)
    const network = isNetwork ? add(scale(bytesRange, traversal), fixed(1)) : fixed(0)
    const parsing = isText ? scale(sizeOfNode(other), traversal) : fixed(0)
    return { cost: add(base, network, parsing) }
  },
  spend: ([cidr, other]) => {
    const size = cidr instanceof Cidr ? Math.ceil((cidr.prefix + 7) / 8) : 16
    const network = isNetwork ? Math.ceil(size * traversal) + 1 : 0
    return Math.ceil(2 * size * traversal) + network + (isText ? Math.ceil(sizeOf(other) * traversal) : 0)
  },
})

/** Kubernetes' `ip` and `cidr` functions. */
export const addresses: readonly Overload[] = [
  overload('ip(string): net.IP', ipOf, overText()),
  overload('isIP(string): bool', (text: string) => typeof parseIp(text) !== 'string', overText()),
  overload('ip.isCanonical(string): bool', (text: string) => ipOf(text).text === text, overText(2)),
  overload('net.IP.family(): int', (ip: Ip) => BigInt(ip.address.family)),
  overload('net.IP.isUnspecified(): bool', isUnspecified),
  overload('net.IP.isLoopback(): bool', isLoopback),
  overload('net.IP.isLinkLocalMulticast(): bool', isLinkLocalMulticast),
  overload('net.IP.isLinkLocalUnicast(): bool', isLinkLocalUnicast),
  overload('net.IP.isGlobalUnicast(): bool', isGlobalUnicast),
  overload('string(net.IP): string', (ip: Ip) => ip.text),
  overload('cidr(string): net.CIDR', cidrOf, overText()),
  overload('isCIDR(string): bool', (text: string) => typeof parseCidr(text) !== 'string', overText()),
  overload(
    'net.CIDR.containsIP(string): bool',
    (cidr: Cidr, text: string) => {
      const { address } = ipOf(text)
      return holds(cidr, address, bitsOf(address))
    },
    insideCosts(false, true),
  ),
  overload(
    'net.CIDR.containsIP(net.IP): bool',
    (cidr: Cidr, { address }: Ip) => holds(cidr, address, bitsOf(address)),
    insideCosts(false, false),
  ),
  overload(
    'net.CIDR.containsCIDR(string): bool',
    (cidr: Cidr, text: string) => {
      const other = cidrOf(text)
      return holds(cidr, other.address, other.prefix)
    },
    insideCosts(true, true),
  ),
  overload(
    'net.CIDR.containsCIDR(net.CIDR): bool',
    (cidr: Cidr, other: Cidr) => holds(cidr, other.address, other.prefix),
    insideCosts(true, false),
  ),
  overload('net.CIDR.ip(): net.IP', (cidr: Cidr) => new Ip(cidr.address)),
  overload('net.CIDR.masked(): net.CIDR', masked),
  overload('net.CIDR.prefixLength(): int', (cidr: Cidr) => BigInt(cidr.prefix)),
  overload('string(net.CIDR): string', (cidr: Cidr) => cidr.text),
]
