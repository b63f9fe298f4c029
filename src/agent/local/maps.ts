import type { Datapath } from '#datapath/datapath.ts'
import { frontendName } from '#datapath/frontend.ts'
import { flowFlags } from '#datapath/maps/flows.ts'
import { setNotReady } from '#datapath/maps/policy.ts'
import { rewriteFlags } from '#datapath/maps/translations.ts'
import { protocolName } from '../flows/present.ts'
import type { Names } from '../flows/record.ts'
import type { Route } from './local.ts'
import { readSideMap, sideMaps } from './side-maps.ts'

/** A map as rows of texts under headings, with the names that its numbers stand for. */
export interface MapDump {
  readonly map: string
  readonly columns: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)

/** What `weft bpf NAME` shows, read from the kernel at this moment. Large maps are large answers: a terminal's `head` is free. */
const dumps: Readonly<Record<string, (datapath: Datapath, names: Names) => Omit<MapDump, 'map'>>> = {
  endpoint: (datapath, names) => ({
    columns: ['ADDRESS', 'POD', 'IFINDEX', 'EGRESS SET', 'INGRESS SET'],
    rows: [...datapath.addresses()].map(([address, ifindex]) => {
      const sets = datapath.endpointPolicies().get(address)
      return [address, who(names, address, 0), `${ifindex}`, setName(sets?.egressSet), setName(sets?.ingressSet)]
    }),
  }),
  ipcache: (datapath, names) => ({
    columns: ['ADDRESS', 'IDENTITY', 'WHO'],
    rows: [...datapath.identities()].map(([address, identity]) => [
      address,
      `${identity}`,
      who(names, address, identity),
    ]),
  }),
  lb: (datapath, names) => ({
    columns: ['FRONTEND', 'SERVICE', 'BACKENDS', 'FROM OUTSIDE', 'WAYS'],
    rows: datapath.services().map((service) => {
      const { frontend, number, backends, outside, affinitySeconds, toStack, isOutsideOnly } = service
      const protocol = { TCP: 6, UDP: 17, SCTP: 132 }[frontend.protocol]
      const named =
        names.service(frontend.address, frontend.port, protocol) ??
        (number === undefined ? undefined : names.serviceNumbered(number))
      return [
        frontendName(frontend),
        named === undefined ? '-' : `${named.namespace}/${named.name}`,
        backends.map((b) => `${literal(b.address)}:${b.port}`).join(' ') || 'none',
        outside === undefined
          ? '-'
          : outside.backends.map((b) => `${literal(b.address)}:${b.port}`).join(' ') || 'none',
        [
          ...(outside?.isLocal ? ['local'] : []),
          ...(outside?.ranges === undefined ? [] : [`from ${outside.ranges.join(' ')}`]),
          ...(affinitySeconds === undefined ? [] : [`affinity ${affinitySeconds} s`]),
          ...(toStack ? ['to the stack'] : []),
          ...(isOutsideOnly ? ['outside only'] : []),
        ].join(', ') || '-',
      ]
    }),
  }),
  policy: (datapath, names) => {
    const peerName = peerNames(datapath, names)
    return {
      columns: ['SET', 'PEER', 'WHO', 'PROTOCOL', 'PORT', 'RULE', 'FROM'],
      rows: datapath.policyEntries().map(({ set, peer, protocol, port, portBits, rule }) => {
        const source = names.rule(rule)
        return [
          `${set}`,
          `${peer}`,
          peerName(peer),
          protocol === undefined ? 'any' : protocolName(protocol),
          portBits === 0 ? 'any' : portRange(port, portBits),
          `${rule}`,
          source === undefined ? '?' : `${source.namespace}/${source.name} ${source.path ?? ''}`.trimEnd(),
        ]
      }),
    }
  },
  ct: (datapath, names) => ({
    columns: ['PROTOCOL', 'CLIENT', 'SERVER', 'STATE', 'PACKETS', 'BYTES', 'RULES'],
    rows: datapath.flows().map(({ tuple, client, server, flags, egressRule, ingressRule }) => [
      protocolName(tuple.protocol),
      `${literal(tuple.source)}:${tuple.sourcePort} ${who(names, tuple.source, client.identity)}`,
      `${literal(tuple.destination)}:${tuple.destinationPort} ${who(names, tuple.destination, server.identity)}`,
      Object.entries(flowFlags)
        .filter(([, bit]) => (flags & bit) !== 0)
        .map(([name]) => name)
        .join(' '),
      `${client.packets}/${server.packets}`,
      `${client.bytes}/${server.bytes}`,
      `${egressRule}/${ingressRule}`,
    ]),
  }),
  nat: (datapath) => ({
    columns: ['PROTOCOL', 'SOURCE', 'DESTINATION', 'NEW SOURCE', 'NEW DESTINATION', 'WHAT'],
    rows: datapath.translations().map(({ from, to, flags }) => [
      protocolName(from.protocol),
      `${literal(from.source)}:${from.sourcePort}`,
      `${literal(from.destination)}:${from.destinationPort}`,
      `${literal(to.source)}:${to.sourcePort}`,
      `${literal(to.destination)}:${to.destinationPort}`,
      Object.entries(rewriteFlags)
        .filter(([, bit]) => (flags & bit) !== 0)
        .map(([name]) => name)
        .join(' ') || 'question',
    ]),
  }),
  address: (datapath) => ({
    columns: ['ADDRESS', 'KIND', 'ANNOUNCED'],
    rows: datapath
      .knownAddresses()
      .map(({ address, kind, isAnnounced }) => [address, kind, isAnnounced ? 'here' : '-']),
  }),
  metrics: (datapath) => ({
    columns: ['REASON', 'DIRECTION', 'PACKETS', 'BYTES'],
    rows: datapath
      .counters()
      .filter(({ packets }) => packets > 0)
      .map(({ reason, direction, packets, bytes }) => [reason, direction, `${packets}`, `${bytes}`]),
  }),
}

/** `/v1/bpf/NAME`. */
export const mapsRoute =
  (datapath: Datapath, names: Names, mapDir: string): Route =>
  async (query) => {
    const map = query.get('rest') ?? ''
    const side = Object.hasOwn(sideMaps, map) ? sideMaps[map] : undefined
    if (side !== undefined)
      return { map, columns: side.columns, rows: readSideMap(side, mapDir, names) } satisfies MapDump
    const dump = Object.hasOwn(dumps, map) ? dumps[map] : undefined
    if (dump === undefined)
      throw new RangeError(
        `there is no map "${map}": use one of ${[...Object.keys(dumps), ...Object.keys(sideMaps)].join(', ')}`,
      )
    return { map, ...dump(datapath, names) } satisfies MapDump
  }

function who(names: Names, address: string, identity: number): string {
  const { namespace, pod, entity } = names.party(address, identity, Number.MAX_SAFE_INTEGER)
  return namespace === undefined ? (entity ?? '-') : `${namespace}/${pod}`
}

/** A peer is anyone, the class of a network, or an identity: what pods have it, the first of them by name. */
function peerNames(datapath: Datapath, names: Names): (peer: number) => string {
  const networks = new Map([...datapath.policyNetworks()].map(([text, number]) => [number, text]))
  const pods = new Map<number, Set<string>>()
  for (const [address, identity] of datapath.identities())
    pods.set(identity, (pods.get(identity) ?? new Set()).add(who(names, address, identity)))
  return (peer) => {
    if (peer === 0) return 'anyone'
    const [first, ...more] = [...(pods.get(peer) ?? [])].toSorted()
    return networks.get(peer) ?? (first === undefined ? '-' : `${first}${more.length > 0 ? ` +${more.length}` : ''}`)
  }
}

const setName = (set: number | undefined): string =>
  set === undefined || set === 0 ? 'open' : set === setNotReady ? 'closed' : `${set}`

function portRange(port: number, bits: number): string {
  const last = port | (0xffff >>> bits)
  return last === port ? `${port}` : `${port}-${last}`
}
