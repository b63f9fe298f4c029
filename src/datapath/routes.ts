import { parseAddress, parseCidr } from '#base/net/address.ts'
import { hasCode } from '#kernel/errno.ts'
import type { Netlink, Route } from '#kernel/netlink/netlink.ts'
import type { NodeNetwork } from './datapath.ts'
import { routeProtocol } from './object.ts'

/** The node's routes to other nodes' pods. */
export class NodeRoutes {
  readonly #netlink: Netlink
  readonly #uplinkIndex: number
  readonly #tunnelIndex: number | undefined

  constructor(netlink: Netlink, uplinkIndex: number, tunnelIndex: number | undefined) {
    this.#netlink = netlink
    this.#uplinkIndex = uplinkIndex
    this.#tunnelIndex = tunnelIndex
  }

  async set(nodes: readonly NodeNetwork[]): Promise<void> {
    const wanted = new Map(
      nodes.flatMap((node) => routesTo(node, this.#uplinkIndex, this.#tunnelIndex)).map((r) => [r.destination, r]),
    )
    const present = await this.#netlink.routes(routeProtocol)
    const nets = present.filter((r) => isNetwork(r.destination))
    const stale = nets.filter((r) => !wanted.has(r.destination))
    const same = new Set(nets.flatMap((r) => (sameRoute(r, wanted.get(r.destination)) ? [r.destination] : [])))
    const missing = [...wanted.values()].filter((r) => !same.has(r.destination))
    await Promise.all([
      ...missing.map((route) => this.#netlink.setRoute(route)),
      ...stale.map((route) => this.#netlink.removeRoute(route)),
    ])
  }

  /** A pod's own route leads the node's processes to it. Those that somebody took away come back; says which. */
  async keepPods(devices: ReadonlyMap<string, number>): Promise<string[]> {
    const present = new Set((await this.#netlink.routes(routeProtocol)).map(({ destination }) => destination))
    const missing = [...devices]
      .map(([address, deviceIndex]) => ({ destination: fullLength(address), deviceIndex }))
      .filter(({ destination }) => !present.has(destination))
    const put = missing.map(async ({ destination, deviceIndex }): Promise<string[]> => {
      try {
        await this.#netlink.setRoute({ destination, deviceIndex, scope: 'link', protocol: routeProtocol })
        return [destination]
      } catch (error) {
        // The pod comes or goes in this moment: whoever is at it sets its route.
        if (goneCodes.some((code) => hasCode(error, code))) return []
        throw error
      }
    })
    return (await Promise.all(put)).flat()
  }

  async list(): Promise<ReadonlyMap<string, string>> {
    const routes = await this.#netlink.routes(routeProtocol)
    return new Map(routes.filter((r) => isNetwork(r.destination)).map((r) => [r.destination, r.gateway ?? '']))
  }
}

/** No such device; it is not up. */
const goneCodes = ['ENODEV', 'ENETDOWN', 'ENETUNREACH'] as const

const fullLength = (address: string): string => `${address}/${address.includes(':') ? 128 : 32}`

/** A pod's own route has the full length of its family, a node's pods have less. */
const isNetwork = (destination: string): boolean => !/^(.*\..*\/32|.*:.*\/128)$/.test(destination)

const sameRoute = (a: Route, b: Route | undefined): boolean =>
  b !== undefined &&
  a.gateway === b.gateway &&
  (b.deviceIndex === undefined || a.deviceIndex === b.deviceIndex) &&
  (a.type ?? 'unicast') === (b.type ?? 'unicast')

/** A node's pods by the node's address of the same family; our own, where no pod has the address, nowhere. */
function routesTo({ podCidrs, via }: NodeNetwork, uplinkIndex: number, tunnelIndex: number | undefined): Route[] {
  return podCidrs.flatMap((destination): Route[] => {
    const cidr = parseCidr(destination)
    if (cidr === undefined) return []
    if (via === undefined) return [{ destination, type: 'unreachable', protocol: routeProtocol }]
    // Into the tunnel: which node it is for, the program there knows.
    if (tunnelIndex !== undefined)
      return [{ destination, deviceIndex: tunnelIndex, scope: 'link', protocol: routeProtocol }]
    const gateway = via.find((address) => parseAddress(address)?.family === cidr.family)
    return gateway === undefined ? [] : [{ destination, gateway, deviceIndex: uplinkIndex, protocol: routeProtocol }]
  })
}
