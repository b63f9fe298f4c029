import { formatAddress, parseCidr } from '#base/net/address.ts'

/** The network's n-th address (1: the first after the network's own). Throws a RangeError for what is no network. */
export function nthAddress(cidr: string, n: bigint): string {
  const network = parseCidr(cidr)
  if (network === undefined) throw new RangeError(`${JSON.stringify(cidr)} is not a network: write it as 10.96.0.0/16`)
  return formatAddress({ family: network.family, value: network.base + n })
}

export const firstAddress = (cidr: string): string => nthAddress(cidr, 1n)
