import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace, namespaceExists } from '#kernel/netns.ts'
import type { FabricLayout, NodeLayout } from './layout.ts'

/**
 * The fabric is a namespace with a bridge; every node is a namespace with one device on it. No route leads out of any of
 * them, so no packet of a cluster leaves the machine.
 */
export async function createFabric(
  { netns, bridge, addresses }: FabricLayout,
  podCidrs: readonly string[],
): Promise<void> {
  remake(netns)
  using namespace = Namespace.open(netns)
  using netlink = Netlink.open(namespace)
  // Router solicitations and duplicate address detection would only delay what we address by hand.
  for (const scope of ['all', 'default']) namespace.setSysctl(`net/ipv6/conf/${scope}/accept_dad`, 0)
  await bringLoopbackUp(netlink)
  await netlink.addBridge({ name: bridge })
  const index = await indexOf(netlink, bridge, netns)
  await Promise.all(addresses.map((address) => netlink.addAddress(index, address)))
  await netlink.setLinkUp(index)
  // Nodes answer for the addresses of their pods, so the server and an outside client find them on the link.
  await Promise.all(podCidrs.map((destination) => netlink.setRoute({ destination, deviceIndex: index, scope: 'link' })))
}

/** A node's namespace with its device on the fabric's bridge, addresses and default routes. */
export async function connectNode(fabric: FabricLayout, node: NodeLayout): Promise<void> {
  remake(node.netns)
  using inner = Namespace.open(node.netns)
  using outer = Namespace.open(fabric.netns)
  using inside = Netlink.open(inner)
  using outside = Netlink.open(outer)
  for (const scope of ['all', 'default']) inner.setSysctl(`net/ipv6/conf/${scope}/accept_dad`, 0)
  for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) inner.setSysctl(path, 1)
  await bringLoopbackUp(inside)
  await outside.removeLink(node.port)
  await outside.addVeth({ name: node.port }, { name: node.device, namespace: inner })
  const port = await indexOf(outside, node.port, fabric.netns)
  await outside.setLinkMaster(port, await indexOf(outside, fabric.bridge, fabric.netns))
  await outside.setLinkUp(port)
  const device = await indexOf(inside, node.device, node.netns)
  await Promise.all(node.addresses.map((address) => inside.addAddress(device, address)))
  await inside.setLinkUp(device)
  await Promise.all(
    node.gateways.map((gateway) =>
      inside.setRoute({ destination: gateway.includes(':') ? '::/0' : '0.0.0.0/0', gateway, deviceIndex: device }),
    ),
  )
}

/** What a crash left half-made is made anew: its marker was never written. */
function remake(netns: string): void {
  if (namespaceExists(netns)) deleteNamespace(netns)
  createNamespace(netns)
}

async function bringLoopbackUp(netlink: Netlink): Promise<void> {
  await netlink.setLinkUp(1)
}

async function indexOf(netlink: Netlink, device: string, netns: string): Promise<number> {
  const link = await netlink.link(device)
  if (link === undefined) throw new Error(`Cannot set up ${netns}: it has no device ${device}`)
  return link.index
}
