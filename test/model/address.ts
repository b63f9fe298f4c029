/** Addresses are texts in their canonical form (RFC 5952) everywhere in the model; bytes are made once per address. */

const known = new Map<string, Uint8Array>()
/** Spoofed addresses are drawn at random: the cache must not grow with the packets. */
const knownMax = 100_000

export const familyOf = (address: string): 4 | 6 => (address.includes(':') ? 6 : 4)

/** 4 or 16 bytes in network order. Throws a RangeError for what is no address. */
export function addressBytes(address: string): Uint8Array {
  const found = known.get(address)
  if (found !== undefined) return found
  const bytes = address.includes(':') ? bytes6(address) : bytes4(address)
  if (known.size >= knownMax) known.clear()
  known.set(address, bytes)
  return bytes
}

function bytes4(address: string): Uint8Array {
  const parts = address.split('.').map(Number)
  if (parts.length !== 4 || parts.some((p) => !Number.isInteger(p) || p < 0 || p > 255))
    throw new RangeError(`${JSON.stringify(address)} is not an IPv4 address`)
  return Uint8Array.from(parts)
}

function bytes6(address: string): Uint8Array {
  const [head = '', tail] = address.split('::')
  const words = (text: string): number[] => (text === '' ? [] : text.split(':').map((w) => Number.parseInt(w, 16)))
  const left = words(head)
  const right = tail === undefined ? [] : words(tail)
  const all = [...left, ...Array<number>(Math.max(0, 8 - left.length - right.length)).fill(0), ...right]
  if (all.length !== 8 || all.some((w) => !(w >= 0 && w <= 0xffff)))
    throw new RangeError(`${JSON.stringify(address)} is not an IPv6 address`)
  return Uint8Array.from(all.flatMap((w) => [w >> 8, w & 255]))
}

/** The canonical text: lower case, the longest run of zero words left out. */
export function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.')
  const words = Array.from({ length: 8 }, (_, i) => (((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0)).toString(16))
  let best = { at: -1, length: 1 }
  for (let at = 0; at < 8; at++) {
    let length = 0
    while (words[at + length] === '0') length++
    if (length > best.length) best = { at, length }
  }
  if (best.at < 0) return words.join(':')
  return `${words.slice(0, best.at).join(':')}::${words.slice(best.at + best.length).join(':')}`
}

/** Is the address in the network `10.0.0.0/8`? Never across families. */
export function contains(network: string, address: string): boolean {
  const [base = '', length = ''] = network.split('/')
  if (familyOf(base) !== familyOf(address)) return false
  const a = addressBytes(base)
  const b = addressBytes(address)
  let bits = Number(length)
  for (let i = 0; bits > 0; i++, bits -= 8) {
    const shift = bits >= 8 ? 0 : 8 - bits
    if ((a[i] ?? 0) >> shift !== (b[i] ?? 0) >> shift) return false
  }
  return true
}

/** Orders addresses as numbers, IPv4 before IPv6. */
export function compareAddresses(a: string, b: string): number {
  const [x, y] = [addressBytes(a), addressBytes(b)]
  if (x.length !== y.length) return x.length - y.length
  for (let i = 0; i < x.length; i++) {
    const difference = (x[i] ?? 0) - (y[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
