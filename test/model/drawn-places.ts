import { familyOf } from './address.ts'
import { type Cluster, nameOf, type Pod } from './cluster.ts'
import type { Draw } from './draw.ts'
import type { Destination } from './drawn-packets.ts'
import type { Hook } from './journey.ts'
import { nodes, outside, slots, strangers } from './universe.ts'

/** Where packets come from and go to: pods, Services, nodes, the world, and addresses that are nobody's. */

/** What other nodes send comes by the tunnel where there is one, mostly as whose it is. */
export function wayOf(cluster: Cluster, source: string, draw: Draw, ownNode: string): Hook {
  const pod = [...cluster.pods.values()].find((p) => p.addresses.includes(source))
  const node = [...cluster.nodes.values()].find((n) => n.name === pod?.node || n.addresses.includes(source))
  const isNobody = pod === undefined && node === undefined
  if (cluster.isTunnelled !== true || draw.oneIn(isNobody ? 2 : 3)) return uplink(draw)
  const others = [...cluster.nodes.values()].filter((n) => n.name !== ownNode)
  const from = node === undefined || node.name === ownNode ? draw.of(others) : node
  if (draw.oneIn(20)) return { from: 'tunnel', node: draw.of(['172.30.0.99', '172.30.0.11', '10.244.2.2']), as: 'node' }
  if (draw.oneIn(20)) return { from: 'tunnel', node: from.addresses[0] ?? '', as: draw.of(['0', '1', '2', '4', '255']) }
  const claims = pod === undefined || draw.oneIn(8) ? draw.of([...cluster.pods.values()]) : pod
  const as = (pod === undefined && !draw.oneIn(8)) || draw.oneIn(8) ? 'node' : nameOf(claims)
  return { from: 'tunnel', node: from.addresses[0] ?? '', as }
}

/** Somebody whose packets come by the uplink; now and then one who says that he is one of ours. */
export function stranger(cluster: Cluster, others: readonly Pod[], family: 4 | 6, draw: Draw, ownNode: string): string {
  const index = family === 4 ? 0 : 1
  const ownSlot = slots.find((s) => s.node === ownNode)
  if (draw.oneIn(25)) return draw.of([...ownAddresses(cluster, family, ownNode), ownSlot?.addresses[index] ?? ''])
  const node = nodes.find((n) => n.name !== ownNode && n.name !== 'node-3')?.addresses[index] ?? ''
  if (draw.oneIn(2)) return draw.of([...outside[family], strangers[family][1] ?? '', node])
  return draw.of(others)?.addresses[index] ?? draw.of(outside[family])
}

export function destination(
  cluster: Cluster,
  local: readonly Pod[],
  others: readonly Pod[],
  family: 4 | 6,
  draw: Draw,
  ownNode: string,
): Destination {
  const index = family === 4 ? 0 : 1
  const kind = draw.next(24)
  if (kind < 6) {
    const service = serviceAddress(cluster, family, draw, false, ownNode)
    if (service !== undefined) return service
  }
  if (kind < 13) return { address: draw.of(local).addresses[index] ?? '' }
  if (kind < 17) return { address: draw.of(others)?.addresses[index] ?? draw.of(outside[family]) }
  if (kind < 20) return { address: draw.of(outside[family]) }
  if (kind < 21) return { address: draw.of(strangers[family]) }
  if (kind < 22)
    return {
      address: draw.of(
        family === 4
          ? ['10.96.0.1', '10.96.255.254', '169.254.42.1']
          : ['fd00:10:96::1', 'fd00:10:96::fffe', 'fd00:169:254:42::1'],
      ),
    }
  if (kind < 23)
    return { address: draw.of([...cluster.nodes.values()].flatMap((n) => n.addresses.slice(index, index + 1))) }
  return {
    address: draw.of(
      family === 4 ? ['224.0.0.251', '239.1.2.3', '255.255.255.255'] : ['ff02::fb', 'fe80::5', 'ff05::2'],
    ),
  }
}

/** One of the addresses and ports of a Service; now and then a port that it has not. */
export function serviceAddress(
  cluster: Cluster,
  family: 4 | 6,
  draw: Draw,
  isOutside: boolean,
  ownNode: string,
): Destination | undefined {
  const service = draw.of([...cluster.services.values()])
  if (service === undefined) return undefined
  const { port, protocol, nodePort } = draw.of(service.ports)
  const own = (list: readonly string[] | undefined): string[] => (list ?? []).filter((a) => familyOf(a) === family)
  const nodes =
    nodePort === undefined
      ? []
      : isOutside
        ? ownAddresses(cluster, family, ownNode)
        : own([...cluster.nodes.values()].flatMap((n) => n.addresses))
  const choices: Destination[] = [
    ...(isOutside && !draw.oneIn(10) ? [] : own(service.clusterIPs)).map((address) => ({ address, protocol, port })),
    ...own(service.ingressIPs).map((address) => ({ address, protocol, port })),
    ...own(service.externalIPs).map((address) => ({ address, protocol, port })),
    ...nodes.map((address) => ({ address, protocol, port: nodePort ?? 0 })),
  ]
  const choice = draw.of(choices)
  if (choice === undefined || !draw.oneIn(15)) return choice
  return { address: choice.address }
}

export const isMulticast = (address: string): boolean => /^(ff|22[4-9]|23)/.test(address)

export const ownAddresses = (cluster: Cluster, family: 4 | 6, ownNode: string): string[] =>
  (cluster.nodes.get(ownNode)?.addresses ?? []).filter((a) => familyOf(a) === family)

/** By the uplink, whose first program is there or not. */
export const uplink = (draw: Draw): Hook => ({ from: 'uplink', ...(draw.oneIn(2) ? { early: true } : {}) })
