import { podAddressesAnnotation } from '#api/core/pod/addresses.ts'
import type { Pod } from '#api/gen/core-v1.ts'
import { pods } from '#api/gen/resources.ts'
import { parseCidr } from '#base/net/address.ts'
import type { Registry } from '../step.ts'
import { Ownership } from './ownership.ts'
import { AddressRange } from './ranges.ts'

export const podAddresses = ({ metadata }: Pod): string[] =>
  metadata.annotations?.[podAddressesAnnotation]?.split(',').filter((text) => text !== '') ?? []

/** A pod that has ended needs its addresses no more, though it is still to be seen. */
const isLive = ({ status }: Pod): boolean => status?.phase !== 'Succeeded' && status?.phase !== 'Failed'

export class PodAddressesFull extends Error {
  constructor(cidr: string) {
    super(`no free address in ${cidr}`)
    this.name = 'PodAddressesFull'
  }
}

/**
 * Addresses of pods, one of each of the node's networks, next-fit. As with Services what is taken is what the pods in the
 * registry carry, plus reservations of writes on their way.
 */
export class PodAllocator {
  readonly #owners = new Ownership<string>()
  /** Keyed by the network's text; a few hundred bytes a node. */
  readonly #ranges = new Map<string, AddressRange>()

  constructor(registry: Registry) {
    for (const pod of registry.list(pods)) this.#take(pod)
    registry.onChange(pods, (next, old) => {
      const kept = new Set(next && isLive(next) ? podAddresses(next) : [])
      if (old)
        for (const address of podAddresses(old)) if (!kept.has(address)) this.#owners.release(address, ownerOf(old))
      if (next) this.#take(next)
    })
  }

  /** One address of each network, reserved for the pod. Throws `PodAddressesFull`, having kept nothing. */
  reserve(pod: Pod, cidrs: readonly string[]): { readonly addresses: readonly string[]; release(): void } {
    const owner = ownerOf(pod)
    const addresses: string[] = []
    const release = () => {
      for (const address of addresses) this.#owners.release(address, owner)
    }
    for (const cidr of cidrs) {
      const address = this.#range(cidr).take(owner)
      if (address === undefined) {
        release()
        throw new PodAddressesFull(cidr)
      }
      addresses.push(address)
    }
    return { addresses, release }
  }

  #range(text: string): AddressRange {
    const known = this.#ranges.get(text)
    if (known) return known
    const cidr = parseCidr(text)
    if (cidr === undefined) throw new Error(`Cannot use ${JSON.stringify(text)} as pod network: not a CIDR`)
    // The network itself and the node's own end, its first address.
    const made = new AddressRange(cidr, this.#owners, { reserved: 2, banded: false })
    this.#ranges.set(text, made)
    return made
  }

  #take(pod: Pod): void {
    if (isLive(pod)) for (const address of podAddresses(pod)) this.#owners.claim(address, ownerOf(pod))
  }
}

const ownerOf = ({ metadata }: Pod): string => metadata.uid
