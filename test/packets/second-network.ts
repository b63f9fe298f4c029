import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import type { Place, TestNode, Topology } from './topology.ts'

/** The node gets a second way out, `eth1`, to a network of its own with somebody in it. */
export async function secondNetwork(
  topology: Topology,
  node: TestNode,
): Promise<{ readonly place: Place; readonly away: () => Promise<void> }> {
  const name = topology.name('second')
  createNamespace(name)
  using namespace = Namespace.open(name)
  using inside = Netlink.open(namespace)
  await node.netlink.addVeth({ name: 'eth1' }, { name: 'eth0', namespace })
  for (const [netlink, device, end] of [
    [node.netlink, node.namespace.ifindex('eth1'), 11],
    [inside, namespace.ifindex('eth0'), 1],
  ] as const) {
    await netlink.setLinkUp(device)
    for (const cidr of [`198.51.100.${end}/24`, `2001:db8:51::${end}/64`]) await netlink.addAddress(device, cidr)
  }
  // All that he sends goes to the node.
  const deviceIndex = namespace.ifindex('eth0')
  await inside.setRoute({ destination: '0.0.0.0/0', gateway: '198.51.100.11', deviceIndex })
  await inside.setRoute({ destination: '::/0', gateway: '2001:db8:51::11', deviceIndex })
  return {
    place: { namespace: name },
    away: async () => {
      await node.netlink.removeLink('eth1')
      deleteNamespace(name)
    },
  }
}
