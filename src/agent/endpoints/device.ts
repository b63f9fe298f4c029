import { createHash } from 'node:crypto'
import { gateway4, gateway6, gatewayMac, routeProtocol } from '#datapath/object.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'

/** A sandbox's cable: one end on the node, the other in the pod. */
export interface DevicePlan {
  /** Name on the node. */
  readonly hostDevice: string
  /** Name in the pod: `eth0`. */
  readonly podDevice: string
  /** Of the pod's end. */
  readonly mac: string
  readonly mtu: number
  /** Without prefix length. */
  readonly addresses: readonly string[]
}

export interface ConnectOptions {
  /** On the node's namespace. */
  readonly netlink: Netlink
  /** The node's namespace; absent: our own. */
  readonly nodeNamespace?: Namespace | undefined
  readonly sandbox: Namespace
  /** Called with the host end's index before either end is up: programs go on before the first packet. */
  readonly beforeUp: (ifindex: number) => Promise<void>
}

/** The same sandbox has the same names, whichever agent asks. At most 15 characters. */
export function planDevice(
  sandboxId: string,
  podDevice: string,
  mtu: number,
  addresses: readonly string[],
): DevicePlan {
  const hash = createHash('sha256').update(`${sandboxId} ${podDevice}`).digest()
  return {
    hostDevice: `lxc${hash.toString('hex', 0, 6)}`,
    podDevice,
    // Locally administered, unicast.
    mac: ['02', ...[...hash.subarray(6, 11)].map((b) => b.toString(16).padStart(2, '0'))].join(':'),
    mtu,
    addresses,
  }
}

/**
 * Makes the pair, addresses and routes of a sandbox. Both sides know each other's MAC address for good, so nobody ever
 * asks. What was half made by an earlier attempt is taken away first; after a failure nothing is left.
 */
export async function connectSandbox(plan: DevicePlan, options: ConnectOptions): Promise<{ readonly ifindex: number }> {
  const { netlink, nodeNamespace, sandbox, beforeUp } = options
  const { hostDevice, podDevice, mac, mtu, addresses } = plan
  await netlink.removeLink(hostDevice)
  // Before the device is made: it starts with the defaults. Our addresses are unique by construction, and routes are ours.
  sandbox.setSysctl('net/ipv6/conf/default/disable_ipv6', 0)
  sandbox.setSysctl('net/ipv6/conf/default/accept_dad', 0)
  sandbox.setSysctl('net/ipv6/conf/default/accept_ra', 0)
  await netlink.addVeth({ name: hostDevice, mac: gatewayMac, mtu }, { name: podDevice, mac, mtu, namespace: sandbox })
  try {
    using own = Namespace.own()
    const node = nodeNamespace ?? own
    const ifindex = node.ifindex(hostDevice)
    // The host end needs no address of its own, nor the chatter that comes with one.
    node.setSysctl(`net/ipv6/conf/${hostDevice}/addr_gen_mode`, 1)
    await beforeUp(ifindex)
    using inside = Netlink.open(sandbox)
    await Promise.all([
      ...connectHost(netlink, ifindex, mac, addresses),
      ...connectPod(inside, sandbox.ifindex(podDevice), addresses),
    ])
    return { ifindex }
  } catch (error) {
    await netlink.removeLink(hostDevice)
    throw error
  }
}

/** The node's own processes reach the pod by these; its programs do not need them. */
function connectHost(netlink: Netlink, ifindex: number, mac: string, addresses: readonly string[]): Promise<void>[] {
  return [
    netlink.setLinkUp(ifindex),
    ...addresses.flatMap((address) => [
      netlink.setNeighbour({ address, mac, deviceIndex: ifindex }),
      netlink.setRoute({ destination: full(address), deviceIndex: ifindex, scope: 'link', protocol: routeProtocol }),
    ]),
  ]
}

function connectPod(netlink: Netlink, index: number, addresses: readonly string[]): Promise<void>[] {
  const has4 = addresses.some((a) => !a.includes(':'))
  const has6 = addresses.some((a) => a.includes(':'))
  return [
    netlink.setLinkUp(index),
    ...addresses.map((address) => netlink.addAddress(index, full(address))),
    ...(has4 ? connectFamily(netlink, index, gateway4, '0.0.0.0/0') : []),
    ...(has6 ? connectFamily(netlink, index, gateway6, '::/0') : []),
  ]
}

function connectFamily(netlink: Netlink, index: number, gateway: string, destination: string): Promise<void>[] {
  return [
    netlink.setNeighbour({ address: gateway, mac: gatewayMac, deviceIndex: index }),
    netlink.setRoute({ destination: full(gateway), deviceIndex: index, scope: 'link' }),
    netlink.setRoute({ destination, gateway, deviceIndex: index, onlink: true }),
  ]
}

const full = (address: string): string => `${address}/${address.includes(':') ? 128 : 32}`
