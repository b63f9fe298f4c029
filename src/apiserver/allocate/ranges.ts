import { type Cidr, cidrContains, cidrSize, formatAddress, formatCidr, parseAddress } from '#base/net/address.ts'
import { Ownership, Ring, staticBand } from './ownership.ts'

/** More of a range than this is never given out: enough for any node or cluster, and a Ring stays small. */
const positionsMax = 65_536

/** Addresses of one network. Position 0 is the network itself; IPv4's last is its broadcast. */
export class AddressRange {
  readonly cidr: Cidr
  readonly text: string
  readonly #owners: Ownership<string>
  readonly #bands: readonly Ring[]

  /** `reserved`: how many positions at the start are nobody's (network, gateway). */
  constructor(cidr: Cidr, owners: Ownership<string>, { reserved, banded }: { reserved: number; banded: boolean }) {
    this.cidr = cidr
    this.text = formatCidr(cidr)
    this.#owners = owners
    const size = Number(cidrSize(cidr) < BigInt(positionsMax) ? cidrSize(cidr) : BigInt(positionsMax))
    const last = cidr.family === 4 && BigInt(size) === cidrSize(cidr) ? size - 2 : size - 1
    const band = banded ? staticBand(size, 16, 256) : 0
    this.#bands = band === 0 ? [new Ring(reserved, last)] : [new Ring(band + 1, last), new Ring(reserved, band)]
  }

  /** Takes the next free address, or undefined when the range is full. */
  take(owner: string): string | undefined {
    for (const band of this.#bands) {
      const position = band.next((p) => !this.#owners.has(this.#at(p)))
      if (position === undefined) continue
      const address = this.#at(position)
      this.#owners.claim(address, owner)
      return address
    }
    return undefined
  }

  contains(address: string): boolean {
    const parsed = parseAddress(address)
    if (parsed === undefined || !cidrContains(this.cidr, parsed)) return false
    const position = parsed.value - this.cidr.base
    return position > 0n && !(this.cidr.family === 4 && position === cidrSize(this.cidr) - 1n)
  }

  #at(position: number): string {
    return formatAddress({ family: this.cidr.family, value: this.cidr.base + BigInt(position) })
  }
}

export interface PortRange {
  readonly first: number
  readonly last: number
}

/** Node ports, shared by TCP and UDP of one Service. */
export class Ports {
  readonly range: PortRange
  readonly owners = new Ownership<number>()
  readonly #bands: readonly Ring[]

  constructor(range: PortRange) {
    this.range = range
    const band = staticBand(range.last - range.first + 1, 32, 128)
    this.#bands = [new Ring(range.first + band, range.last), new Ring(range.first, range.first + band - 1)]
  }

  take(owner: string): number | undefined {
    for (const band of this.#bands) {
      const port = band.next((p) => !this.owners.has(p))
      if (port === undefined) continue
      this.owners.claim(port, owner)
      return port
    }
    return undefined
  }

  contains(port: number): boolean {
    return port >= this.range.first && port <= this.range.last
  }
}
