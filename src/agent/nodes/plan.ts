import type { Node } from '#api/gen/core-v1.ts'
import type { NodeNetwork } from '#datapath/datapath.ts'

/** Where each node's pods are. A node without pod networks, or another without an address, has no part in it yet. Pure. */
export function planNodes(nodes: readonly Node[], self: string): NodeNetwork[] {
  return nodes.flatMap((node): NodeNetwork[] => {
    const { name = '' } = node.metadata
    const podCidrs = node.spec.podCIDRs ?? (node.spec.podCIDR === undefined ? [] : [node.spec.podCIDR])
    if (podCidrs.length === 0 || podCidrs[0] === '') return []
    if (name === self) return [{ name, podCidrs, via: undefined }]
    const via = (node.status?.addresses ?? []).filter((a) => a.type === 'InternalIP').map((a) => a.address)
    return via.length === 0 ? [] : [{ name, podCidrs, via }]
  })
}

/** Networks of a node's pods that cannot be reached: it has no address of their family. */
export function unreachableNetworks({ name, podCidrs, via }: NodeNetwork): string[] {
  const isV6 = (text: string): boolean => text.includes(':')
  if (via === undefined) return []
  return podCidrs
    .filter((cidr) => !via.some((address) => isV6(address) === isV6(cidr)))
    .map((cidr) => `${name} ${cidr}`)
}
