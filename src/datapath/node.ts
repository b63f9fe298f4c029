import { isMac, type Link, type Netlink } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import { setSysctl } from '#kernel/sysctl.ts'
import { type DatapathConfig, routeProtocol } from './object.ts'

/** To other nodes' pods where the uplink is one end of a veth pair: past the queue between its ends, or through it. */
export type CableMode = 'straight' | 'queue'

/** What a node must be for the programs to work in it: forwarding, with their ports kept free. */
export function prepareNode(namespace: Namespace | undefined): void {
  keepForwarding(namespace)
  reservePorts(namespace)
}

/** bpf_fib_lookup answers only for a device that forwards. Whoever applies the machine's own sysctls again may turn that off. */
export function keepForwarding(namespace: Namespace | undefined): void {
  for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'])
    namespace === undefined ? setSysctl(path, 1) : namespace.setSysctl(path, 1)
}

/** What of bpf/config.h is the node's own, and may change while it runs. */
export type NodeDescription = Pick<DatapathConfig, 'uplinkMac' | 'nodeAddresses' | 'nodeCookie' | 'cableIndex'>

/** What the programs are told of the node that they are in. `usesCable`: whether they may reach past the near end of a veth pair. */
export async function describeNode(
  netlink: Netlink,
  uplink: Link,
  { namespace, usesCable }: { readonly namespace?: Namespace; readonly usesCable: boolean },
): Promise<NodeDescription> {
  using own = Namespace.own()
  return {
    uplinkMac: uplink.mac,
    nodeAddresses: ownAddresses(await netlink.addresses(uplink.index)),
    nodeCookie: (namespace ?? own).cookie,
    ...(usesCable && uplink.kind === 'veth' && uplink.leadsElsewhere ? { cableIndex: uplink.index } : {}),
  }
}

/** Devices made for something on this node, which lead to nobody elsewhere. */
const inner: ReadonlySet<string> = new Set(['bridge', 'dummy', 'vxlan'])

/**
 * Names of devices besides the uplink by which the node's routes lead out of it. Our programs see what comes by the uplink alone:
 * node ports are not served there, and an answer to a pod is not known for one.
 */
export async function otherWaysOut(netlink: Netlink, uplink: Link): Promise<string[]> {
  const [links, routes] = await Promise.all([netlink.links(), netlink.routes()])
  // Routes to pods are our own; a device that is up has a route to its own link, or for multicast, whatever it is for.
  const led = new Set(
    routes.filter((r) => r.protocol !== routeProtocol && !/^f[ef]/.test(r.destination)).map((r) => r.deviceIndex),
  )
  return links
    .filter((l) => l.index !== uplink.index && l.up && isMac(l.mac) && !inner.has(l.kind) && led.has(l.index))
    .map((l) => l.name)
}

/**
 * Ports that the node's own sockets are not given by chance: node ports, and those that pods' connections to the outside go
 * out under (bpf/lib/nat.h), so that no answer is ever taken for the other's. What somebody else reserved stays.
 */
function reservePorts(namespace: Namespace | undefined): void {
  const path = 'net/ipv4/ip_local_reserved_ports'
  using own = Namespace.own()
  const where = namespace ?? own
  const present = where.getSysctl(path)
  where.setSysctl(path, [present, '30000-32767,49152-65535'].filter((text) => text !== '').join())
}

/** The first of each family that is not link-local, without prefix length. */
function ownAddresses(cidrs: readonly string[]): string[] {
  const addresses = cidrs.map((cidr) => cidr.split('/')[0] ?? '').filter((a) => !/^fe[89ab]/.test(a))
  const first = (isV6: boolean): string[] => addresses.filter((a) => a.includes(':') === isV6).slice(0, 1)
  return [...first(false), ...first(true)]
}
