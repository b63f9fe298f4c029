import type { Node } from '#api/gen/core-v1.ts'
import { type Address, type Cidr, parseAddress, parseCidr } from '#base/net/address.ts'
import type { AddressIdentity } from '#datapath/datapath.ts'
import { identities } from '#datapath/maps/identities.ts'

interface KnownNode {
  readonly name: string
  /** 0: this node. */
  readonly index: number
  readonly tunnel: string | undefined
  readonly addresses: readonly string[]
}

/** Which node an address belongs to: its own addresses, and those of its pods by its networks. */
export class NodeDirectory {
  readonly #self: string
  readonly #isTunnelled: boolean
  readonly #indexes = new Map<string, number>()
  #nodes: readonly KnownNode[] = []
  #networks = new Map<string, KnownNode>()
  #lengths: readonly { readonly family: 4 | 6; readonly prefix: number }[] = []

  constructor(self: string, { isTunnelled }: { readonly isTunnelled: boolean }) {
    this.#self = self
    this.#isTunnelled = isTunnelled
  }

  /** Returns whether anything is different now. */
  set(nodes: readonly Node[]): boolean {
    const networks = new Map<string, KnownNode>()
    const lengths = new Map<string, { family: 4 | 6; prefix: number }>()
    const known = nodes.map((node): KnownNode => {
      const { name = '' } = node.metadata
      const addresses = (node.status?.addresses ?? [])
        .filter((a) => a.type === 'InternalIP' || a.type === 'ExternalIP')
        .map((a) => a.address)
        .filter((a) => parseAddress(a) !== undefined)
      const v4 = addresses.find((a) => !a.includes(':'))
      const isSelf = name === this.#self
      const found = {
        name,
        index: this.#indexOf(name),
        tunnel: isSelf || !this.#isTunnelled ? undefined : v4,
        addresses,
      }
      for (const text of node.spec?.podCIDRs ?? []) {
        const cidr = parseCidr(text)
        if (cidr === undefined) continue
        networks.set(keyOf(cidr), found)
        lengths.set(`${cidr.family}/${cidr.prefix}`, { family: cidr.family, prefix: cidr.prefix })
      }
      return found
    })
    const text = (of: readonly KnownNode[], by: ReadonlyMap<string, KnownNode>): string =>
      JSON.stringify([of, [...by].map(([key, node]) => [key, node.name])])
    if (text(known, networks) === text(this.#nodes, this.#networks)) return false
    this.#nodes = known
    this.#networks = networks
    this.#lengths = [...lengths.values()]
    return true
  }

  /** A pod's address with the node that has it; no node is known for one outside of all networks. */
  rowOf(address: string, identity: number, owner: string): AddressIdentity {
    const node = this.#nodeOf(parseAddress(address))
    return {
      address,
      identity,
      owner,
      ...(node === undefined || node.index === 0 ? {} : { node: node.index }),
      ...(node?.tunnel === undefined ? {} : { tunnel: node.tunnel }),
    }
  }

  /**
   * Nodes' own addresses. Policies know them as what they are, this node or another, and by their address. Pods reach other
   * nodes as they reach their pods: what is between the nodes need not know a pod's address.
   */
  rows(): AddressIdentity[] {
    return this.#nodes.flatMap(({ name, index, tunnel, addresses }) =>
      addresses.map((address) => ({
        address,
        identity: index === 0 ? identities.host : identities.remoteNode,
        owner: `node/${name}`,
        ...(index === 0 ? {} : { node: index }),
        ...(tunnel === undefined ? {} : { tunnel }),
      })),
    )
  }

  #nodeOf(address: Address | undefined): KnownNode | undefined {
    if (address === undefined) return undefined
    const bits = address.family === 4 ? 32 : 128
    for (const { family, prefix } of this.#lengths) {
      if (family !== address.family) continue
      const shift = BigInt(bits - prefix)
      const found = this.#networks.get(keyOf({ family, prefix, base: (address.value >> shift) << shift }))
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Numbers stay a node's own while the agent runs; they mean nothing elsewhere. */
  #indexOf(name: string): number {
    if (name === this.#self) return 0
    const known = this.#indexes.get(name) ?? this.#indexes.size + 1
    this.#indexes.set(name, known)
    return known
  }
}

const keyOf = ({ family, base, prefix }: Cidr): string => `${family}/${prefix}/${base.toString(36)}`
