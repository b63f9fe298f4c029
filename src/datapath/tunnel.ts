import type { Netlink } from '#kernel/netlink/netlink.ts'
import type { Namespace } from '#kernel/netns.ts'
import { setSysctl } from '#kernel/sysctl.ts'

const device = 'weft-vxlan'
/** Not VXLAN's own 4789: who else makes tunnels on this machine takes that one. Linux's older default. */
const port = 8472
/** Ethernet, IPv4, UDP and VXLAN headers around a frame; and the frame's own. */
const overhead = 14 + 20 + 8 + 8

/** MTU of pods' devices on an uplink of that MTU. */
export const podMtu = (uplinkMtu: number, tunnel: 'vxlan' | undefined): number =>
  tunnel === undefined ? uplinkMtu : uplinkMtu - overhead

/** Has the tunnel's device there, or not. Returns its index; undefined without a tunnel. */
export async function setTunnel(
  tunnel: 'vxlan' | undefined,
  netlink: Netlink,
  uplinkMtu: number,
  namespace: Namespace | undefined,
): Promise<number | undefined> {
  const known = await netlink.link(device)
  if (tunnel === undefined) {
    if (known !== undefined) await netlink.removeLink(device)
    return undefined
  }
  const mtu = podMtu(uplinkMtu, tunnel)
  if (known === undefined) await netlink.addVxlan({ name: device, mtu }, port)
  const link = await netlink.link(device)
  if (link === undefined) throw new Error(`Cannot use the tunnel ${device}: it went away while it was being made`)
  if (link.mtu !== mtu) await netlink.setLinkMtu(link.index, mtu)
  // No addresses of its own: nobody is to be found by them.
  const quiet = `net/ipv6/conf/${device}/addr_gen_mode`
  namespace === undefined ? setSysctl(quiet, 1) : namespace.setSysctl(quiet, 1)
  await netlink.setLinkUpQuiet(link.index)
  return link.index
}
