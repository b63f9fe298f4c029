import { type Address, formatAddress, parseAddress, parseCidr } from '#base/net/address.ts'

/** Addresses that Services of type LoadBalancer are given, first and last included. */
export interface Pool {
  readonly family: 4 | 6
  readonly first: bigint
  readonly last: bigint
  /** As it was written. */
  readonly text: string
}

/** `172.30.0.200-172.30.0.250` or `172.30.0.192/26`. Throws a RangeError that says what to write. */
export function parsePool(text: string): Pool {
  const cidr = parseCidr(text)
  if (cidr !== undefined) {
    const size = 1n << BigInt((cidr.family === 4 ? 32 : 128) - cidr.prefix)
    return { family: cidr.family, first: cidr.base, last: cidr.base + size - 1n, text }
  }
  const [from, to] = text.split('-').map(parseAddress)
  if (from === undefined || to === undefined || from.family !== to.family || from.value > to.value)
    throw new RangeError(
      `${JSON.stringify(text)} is not a range of addresses: write 172.30.0.200-172.30.0.250 or a network`,
    )
  return { family: from.family, first: from.value, last: to.value, text }
}

export const poolContains = ({ family, first, last }: Pool, address: Address): boolean =>
  address.family === family && address.value >= first && address.value <= last

/** More of a range than this is never looked through: nobody has as many Services. */
const positionsMax = 65_536n

/** The lowest address that nobody has; undefined where the pools of the family are full. */
export function lowestFree(
  pools: readonly Pool[],
  family: 4 | 6,
  isTaken: (address: string) => boolean,
): string | undefined {
  for (const pool of pools) {
    if (pool.family !== family) continue
    const end = pool.last - pool.first < positionsMax ? pool.last : pool.first + positionsMax - 1n
    for (let value = pool.first; value <= end; value++) {
      const address = formatAddress({ family, value })
      if (!isTaken(address)) return address
    }
  }
  return undefined
}
