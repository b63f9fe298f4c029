import type { Node } from '#api/gen/core-v1.ts'
import { type Cidr, formatCidr, parseCidr } from '#base/net/address.ts'

/** Where the networks of nodes come from: one range per family, and the length of a node's prefix in it. */
export interface NodeRange {
  readonly cluster: Cidr
  readonly nodePrefix: number
}

/** More than 65,536 networks would make a range nobody can look through; upstream has the same limit. */
const networkBitsMax = 16

/** `10.244.0.0/16` in pieces of /24. Throws for what is no range or cannot be cut so. */
export function parseNodeRange(cluster: string, nodePrefix: number): NodeRange {
  const cidr = parseCidr(cluster)
  if (cidr === undefined) throw new Error(`Cannot use "${cluster}" as the cluster's pod network: not a CIDR`)
  const most = cidr.family === 4 ? 32 : 128
  const longest = Math.min(most, cidr.prefix + networkBitsMax)
  if (nodePrefix < cidr.prefix || nodePrefix > longest)
    throw new Error(
      `Cannot cut ${cluster} into node networks of /${nodePrefix}: use a length from ${cidr.prefix} to ${longest}`,
    )
  return { cluster: cidr, nodePrefix }
}

export type Action =
  | { readonly do: 'nothing' }
  | { readonly do: 'assign'; readonly podCidrs: readonly string[] }
  /** A range has no free network left. */
  | { readonly do: 'exhausted'; readonly range: string }

/**
 * What network a node gets: the lowest one of each range that no other node has. What is taken is read from the nodes
 * themselves, so a restart changes nothing; a node that has networks keeps them. Pure.
 */
export function planPodCidrs(node: Node | undefined, all: readonly Node[], ranges: readonly NodeRange[]): Action {
  if (node === undefined || node.metadata.deletionTimestamp !== undefined) return { do: 'nothing' }
  if ((node.spec.podCIDRs ?? []).length > 0 || node.spec.podCIDR) return { do: 'nothing' }
  const taken = all.flatMap(cidrsOf)
  const podCidrs: string[] = []
  for (const range of ranges) {
    const free = lowestFree(range, taken)
    if (free === undefined) return { do: 'exhausted', range: formatCidr(range.cluster) }
    podCidrs.push(formatCidr(free))
  }
  return { do: 'assign', podCidrs }
}

function cidrsOf({ spec }: Node): Cidr[] {
  const texts = spec.podCIDRs ?? (spec.podCIDR ? [spec.podCIDR] : [])
  return texts.flatMap((text) => parseCidr(text) ?? [])
}

function lowestFree({ cluster, nodePrefix }: NodeRange, taken: readonly Cidr[]): Cidr | undefined {
  const width = BigInt((cluster.family === 4 ? 32 : 128) - nodePrefix)
  const count = 1n << BigInt(nodePrefix - cluster.prefix)
  const used = new Set<bigint>()
  for (const cidr of taken) {
    if (cidr.family !== cluster.family) continue
    // Usually one piece of ours; a node that brought its own network may cover several, or ours may cover it.
    const last = cidr.base + (1n << BigInt((cidr.family === 4 ? 32 : 128) - cidr.prefix)) - 1n
    const from = (cidr.base - cluster.base) >> width
    const to = (last - cluster.base) >> width
    for (let i = from < 0n ? 0n : from; i <= to && i < count; i++) used.add(i)
  }
  for (let i = 0n; i < count; i++) {
    if (used.has(i)) continue
    return { family: cluster.family, base: cluster.base + (i << width), prefix: nodePrefix }
  }
  return undefined
}
