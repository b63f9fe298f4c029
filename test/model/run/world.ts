import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { gatewayMac } from '#datapath/object.ts'
import { setTunnel } from '#datapath/tunnel.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink, type Route } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { contains, familyOf } from '../address.ts'
import { nodes, ownNode, slots } from '../universe.ts'
import { mtu } from '../way.ts'

/** MAC addresses of the nodes' uplinks, as far as they are played. */
const uplinkMacs: Readonly<Record<string, string>> = { 'node-1': '02:00:00:00:00:11', 'node-2': '02:00:00:00:01:12' }
const gatewayOnLink = '02:00:00:00:01:01'
/** On wires that node is known as well: nobody would answer who asks. */
const knownOnWires = '02:00:00:00:01:13'

/** Whom a node knows on its link. The third node it has to ask for first, which XDP leaves to others. */
const neighboursOf = (own: string, isWired: boolean): ReadonlyMap<string, string> =>
  new Map([
    ['172.30.0.1', gatewayOnLink],
    ['fd00:172:30::1', gatewayOnLink],
    ...nodes.flatMap(({ name, addresses }) => {
      const mac = uplinkMacs[name] ?? (isWired ? knownOnWires : undefined)
      return name === own || mac === undefined ? [] : addresses.map((a) => [a, mac] as const)
    }),
  ])

/**
 * A namespace that looks like the node under test: its devices and routes are there because bpf_fib_lookup asks the kernel
 * for them. Nothing is attached to them, and no packet moves; unless it is wired: then their other ends are in a namespace
 * that has nothing else, `NAME-far` each, and the tunnel is one.
 */
export class World implements AsyncDisposable {
  /** Its name in the cluster. */
  readonly node: string
  readonly namespace: Namespace
  /** On a bpffs of its own: programs that share maps find them here. */
  readonly pinDir: string
  /** Host ends of the pods' devices, by the pod's IPv4 address. */
  readonly devices: ReadonlyMap<string, number>
  readonly uplink: number
  /** Where what is wrapped goes. */
  readonly tunnel: number
  /** Of a wired one: where the other ends of its devices are. */
  readonly far: Namespace | undefined
  readonly uplinkMac: string
  readonly #name: string
  readonly #neighbours: ReadonlyMap<string, string>

  private constructor(
    node: string,
    isWired: boolean,
    name: string,
    namespace: Namespace,
    pinDir: string,
    devices: ReadonlyMap<string, number>,
    uplink: number,
    tunnel: number,
    far: Namespace | undefined,
  ) {
    this.node = node
    this.uplinkMac = uplinkMacs[node] ?? ''
    this.#neighbours = neighboursOf(node, isWired)
    this.#name = name
    this.far = far
    this.namespace = namespace
    this.pinDir = pinDir
    this.devices = devices
    this.uplink = uplink
    this.tunnel = tunnel
  }

  static async create(label: string, { isWired = false, node: own = ownNode } = {}): Promise<World> {
    const name = `weft-model-${label}${process.pid}`
    const pinDir = `/run/${name}`
    createNamespace(name)
    const namespace = Namespace.open(name)
    const far = isWired ? openFar(name) : undefined
    mkdirSync(pinDir, { recursive: true })
    mountBpf(pinDir)
    namespace.setSysctl('net/ipv6/conf/default/accept_dad', 0)
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) namespace.setSysctl(path, 1)
    // What the kernel says of itself on its links has no place here.
    if (isWired) namespace.setSysctl('net/ipv6/conf/default/addr_gen_mode', 1)
    using netlink = Netlink.open(namespace)
    using farLink = Netlink.open(far ?? namespace)
    const add = async (device: string, mac?: string): Promise<number> => {
      const near = { name: device, ...(mac === undefined ? {} : { mac }) }
      await netlink.addVeth(near, { name: `${device}-far`, ...(far === undefined ? {} : { namespace: far }) })
      await netlink.setLinkUp(namespace.ifindex(device))
      await farLink.setLinkUp((far ?? namespace).ifindex(`${device}-far`))
      return namespace.ifindex(device)
    }
    await netlink.setLinkUp(namespace.ifindex('lo'))
    const uplink = await add('eth0', uplinkMacs[own])
    // Only its MTU is looked at.
    const tunnel = isWired ? await setTunnel('vxlan', netlink, mtu, namespace) : await add('vxlan')
    if (tunnel === undefined) throw new Error('there is no tunnel')
    await netlink.setLinkMtu(tunnel, 1_450)
    const devices = new Map<string, number>()
    for (const [i, slot] of slots.entries())
      if (slot.node === own) devices.set(slot.addresses[0], await add(`pod${i}`, isWired ? gatewayMac : undefined))
    for (const node of nodes) {
      if (node.name === own) {
        for (const address of node.addresses)
          await netlink.addAddress(uplink, `${address}/${familyOf(address) === 6 ? 64 : 24}`)
        for (const destination of node.podCidrs) await netlink.setRoute({ destination, type: 'unreachable' })
      }
    }
    for (const route of routesToOthers(own, uplink)) await netlink.setRoute(route)
    for (const [destination, gateway] of [
      ['0.0.0.0/0', '172.30.0.1'],
      ['::/0', 'fd00:172:30::1'],
    ] as const)
      await netlink.setRoute({ destination, gateway, deviceIndex: uplink })
    for (const [address, mac] of neighboursOf(own, isWired))
      await netlink.setNeighbour({ address, mac, deviceIndex: uplink })
    return new World(own, isWired, name, namespace, pinDir, devices, uplink, tunnel, far)
  }

  /** MAC address of the next hop to an address outside of the node; undefined: nobody has asked for it. */
  nextHop(address: string): string | undefined {
    const six = familyOf(address) === 6
    const node = nodes.find((n) => n.podCidrs.some((cidr) => contains(cidr, address)))
    const onLink = contains(six ? 'fd00:172:30::/64' : '172.30.0.0/24', address)
    const gateway = six ? 'fd00:172:30::1' : '172.30.0.1'
    return this.#neighbours.get(node === undefined ? (onLink ? address : gateway) : (node.addresses[six ? 1 : 0] ?? ''))
  }

  /** The other nodes' pods are behind the tunnel from now on, or behind those nodes. */
  async route(isTunnelled: boolean): Promise<void> {
    using netlink = Netlink.open(this.namespace)
    for (const route of routesToOthers(this.node, this.uplink, isTunnelled ? this.tunnel : undefined))
      await netlink.setRoute(route)
  }

  /** Pins of an earlier load make way for those of the next. */
  clearPins(): void {
    rmSync(join(this.pinDir, 'maps'), { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.clearPins()
    this.namespace[Symbol.dispose]()
    deleteNamespace(this.#name)
    if (this.far !== undefined) {
      this.far[Symbol.dispose]()
      deleteNamespace(farName(this.#name))
    }
    unmount(this.pinDir)
    rmSync(this.pinDir, { recursive: true, force: true })
  }
}

const routesToOthers = (own: string, uplink: number, tunnel?: number): Route[] =>
  nodes
    .filter((node) => node.name !== own)
    .flatMap(({ podCidrs, addresses }) =>
      podCidrs.map((destination, i) =>
        tunnel === undefined
          ? { destination, gateway: addresses[i] ?? '', deviceIndex: uplink }
          : { destination, deviceIndex: tunnel, scope: 'link' },
      ),
    )

const farName = (name: string): string => `${name}-far`

/** Where nobody answers anything, and nothing is said that was not put there. */
function openFar(name: string): Namespace {
  createNamespace(farName(name))
  const far = Namespace.open(farName(name))
  for (const scope of ['all', 'default']) far.setSysctl(`net/ipv6/conf/${scope}/disable_ipv6`, 1)
  return far
}
