import { parseAddress } from '#base/net/address.ts'
import type { Netlink, Route } from '#kernel/netlink/netlink.ts'
import type { Namespace } from '#kernel/netns.ts'
import { setSysctl } from '#kernel/sysctl.ts'

/** rtm_protocol of these routes, so that they are found again: 'X', next to the datapath's 'W'. */
const routeProtocol = 0x58
const loopback = 1

const routeTo = (address: string): Route => ({
  destination: `${address}/${parseAddress(address)?.family === 4 ? 32 : 128}`,
  type: 'local',
  deviceIndex: loopback,
  protocol: routeProtocol,
})

/**
 * Gateway addresses as the node's own: a local route each, so that its stack takes what is sent to them, from outside as
 * from its pods. No device has them, so the node answers no neighbour that asks: who announces an address is decided
 * elsewhere.
 */
export class GatewayAddresses {
  readonly #netlink: Netlink

  constructor(netlink: Netlink) {
    this.#netlink = netlink
  }

  /** `net.ipv4.conf.*.arp_ignore`: by default any address of the node is answered for on any device. */
  static quiet(uplink: string, namespace?: Namespace): void {
    const path = `net/ipv4/conf/${uplink}/arp_ignore`
    namespace === undefined ? setSysctl(path, 1) : namespace.setSysctl(path, 1)
  }

  async present(): Promise<string[]> {
    const routes = await this.#netlink.routes(routeProtocol)
    return routes.map(({ destination }) => destination.replace(/\/\d+$/, ''))
  }

  /** These and no others. */
  async set(wanted: readonly string[]): Promise<void> {
    const present = new Set(await this.present())
    const keep = new Set(wanted)
    await Promise.all([
      ...[...keep].filter((a) => !present.has(a)).map((a) => this.#netlink.setRoute(routeTo(a))),
      ...[...present].filter((a) => !keep.has(a)).map((a) => this.#netlink.removeRoute(routeTo(a))),
    ])
  }
}
