import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { contains, familyOf } from '../address.ts'
import { nodes, ownNode, slots } from '../universe.ts'

export const uplinkMac = '02:00:00:00:00:11'

/** Whom the node knows on its link. The third node it has to ask for first, which XDP leaves to others. */
const neighbours: ReadonlyMap<string, string> = new Map([
  ['172.30.0.1', '02:00:00:00:01:01'],
  ['fd00:172:30::1', '02:00:00:00:01:01'],
  ['172.30.0.12', '02:00:00:00:01:12'],
  ['fd00:172:30::12', '02:00:00:00:01:12'],
])

/** MAC address of the next hop to an address outside of the node; undefined: nobody has asked for it. */
export function nextHop(address: string): string | undefined {
  const six = familyOf(address) === 6
  const node = nodes.find((n) => n.podCidrs.some((cidr) => contains(cidr, address)))
  const onLink = contains(six ? 'fd00:172:30::/64' : '172.30.0.0/24', address)
  const gateway = six ? 'fd00:172:30::1' : '172.30.0.1'
  return neighbours.get(node === undefined ? (onLink ? address : gateway) : (node.addresses[six ? 1 : 0] ?? ''))
}

/**
 * A namespace that looks like the node under test: its devices and routes are there because bpf_fib_lookup asks the kernel
 * for them. Nothing is attached to them, and no packet moves.
 */
export class World implements AsyncDisposable {
  readonly namespace: Namespace
  /** On a bpffs of its own: programs that share maps find them here. */
  readonly pinDir: string
  /** Host ends of the pods' devices, by the pod's IPv4 address. */
  readonly devices: ReadonlyMap<string, number>
  readonly uplink: number
  /** Where what is wrapped goes. */
  readonly tunnel: number
  readonly #name: string

  private constructor(
    name: string,
    namespace: Namespace,
    pinDir: string,
    devices: ReadonlyMap<string, number>,
    uplink: number,
    tunnel: number,
  ) {
    this.#name = name
    this.namespace = namespace
    this.pinDir = pinDir
    this.devices = devices
    this.uplink = uplink
    this.tunnel = tunnel
  }

  static async create(label: string): Promise<World> {
    const name = `weft-model-${label}${process.pid}`
    const pinDir = `/run/${name}`
    createNamespace(name)
    const namespace = Namespace.open(name)
    mkdirSync(pinDir, { recursive: true })
    mountBpf(pinDir)
    namespace.setSysctl('net/ipv6/conf/default/accept_dad', 0)
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) namespace.setSysctl(path, 1)
    using netlink = Netlink.open(namespace)
    const add = async (device: string, mac?: string): Promise<number> => {
      await netlink.addVeth({ name: device, ...(mac === undefined ? {} : { mac }) }, { name: `${device}-far` })
      for (const end of [device, `${device}-far`]) await netlink.setLinkUp(namespace.ifindex(end))
      return namespace.ifindex(device)
    }
    await netlink.setLinkUp(namespace.ifindex('lo'))
    const uplink = await add('eth0', uplinkMac)
    // Only its MTU is looked at.
    const tunnel = await add('vxlan')
    await netlink.setLinkMtu(tunnel, 1_450)
    const devices = new Map<string, number>()
    for (const [i, slot] of slots.entries())
      if (slot.node === ownNode) devices.set(slot.addresses[0], await add(`pod${i}`))
    for (const node of nodes) {
      if (node.name === ownNode) {
        for (const address of node.addresses)
          await netlink.addAddress(uplink, `${address}/${familyOf(address) === 6 ? 64 : 24}`)
        for (const destination of node.podCidrs) await netlink.setRoute({ destination, type: 'unreachable' })
      }
    }
    for (const node of nodes.filter((n) => n.name !== ownNode))
      for (const [i, destination] of node.podCidrs.entries())
        await netlink.setRoute({ destination, gateway: node.addresses[i] ?? '', deviceIndex: uplink })
    for (const [destination, gateway] of [
      ['0.0.0.0/0', '172.30.0.1'],
      ['::/0', 'fd00:172:30::1'],
    ] as const)
      await netlink.setRoute({ destination, gateway, deviceIndex: uplink })
    for (const [address, mac] of neighbours) await netlink.setNeighbour({ address, mac, deviceIndex: uplink })
    return new World(name, namespace, pinDir, devices, uplink, tunnel)
  }

  /** Pins of an earlier load make way for those of the next. */
  clearPins(): void {
    rmSync(join(this.pinDir, 'maps'), { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.clearPins()
    this.namespace[Symbol.dispose]()
    deleteNamespace(this.#name)
    unmount(this.pinDir)
    rmSync(this.pinDir, { recursive: true, force: true })
  }
}
