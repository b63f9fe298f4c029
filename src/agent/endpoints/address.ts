import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { type Address, cidrSize, formatAddress, parseAddress, parseCidr } from '#base/net/address.ts'

/** How far into a network a free address is looked for: more pods than any node runs. */
const searchMax = 65_536n

/** Addresses that the control plane chose; undefined where it chose none. Throws for an annotation that is not ours. */
export function assignedAddresses(pod: Pod): string[] | undefined {
  const text = pod.metadata.annotations?.[podAddressesAnnotation]
  if (text === undefined || text === '') return undefined
  const addresses = text.split(',').map((part) => parseAddress(part.trim()))
  const wrong = addresses.includes(undefined) || new Set(addresses.map((a) => a?.family)).size !== addresses.length
  if (wrong)
    throw new RangeError(
      `Cannot use annotation ${podAddressesAnnotation}=${JSON.stringify(text)} of the pod: it takes one address of a family at most`,
    )
  return addresses.flatMap((address) => (address === undefined ? [] : [formatAddress(address)]))
}

/**
 * One free address of each of the node's networks, where the control plane chose none (another than ours). The first
 * and the last of a network stay free, and so does the one after the first, which others take for a gateway.
 */
export function freeAddresses(podCidrs: readonly string[], used: ReadonlySet<string>): string[] {
  return podCidrs.map((text) => {
    const cidr = parseCidr(text)
    if (cidr === undefined) throw new RangeError(`Cannot take an address from ${JSON.stringify(text)}: not a network`)
    const end = cidr.base + (cidrSize(cidr) < searchMax ? cidrSize(cidr) : searchMax) - 1n
    for (let value = cidr.base + 2n; value < end; value++) {
      const address = formatAddress({ family: cidr.family, value } satisfies Address)
      if (!used.has(address)) return address
    }
    throw new Error(`Cannot give the pod an address: no address is free in ${text}`)
  })
}
