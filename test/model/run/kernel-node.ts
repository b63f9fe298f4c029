import { Compiler, type Round } from '#agent/policy/compile.ts'
import { parsePolicy } from '#agent/policy/parse.ts'
import { reflectService } from '#agent/services/reflect.ts'
import type { Service as ApiService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { NetworkPolicy as ApiPolicy } from '#api/gen/networking-v1.ts'
import { formatCidr } from '#base/net/address.ts'
import type { Service as ServiceRow } from '#datapath/datapath.ts'
import { AddressMap, addressesMap } from '#datapath/maps/addresses.ts'
import { EndpointMap, endpointsMap } from '#datapath/maps/endpoints.ts'
import { decodeTuple, embryonicMap, encodeTuple, flowsMap, sharesMap } from '#datapath/maps/flows.ts'
import { IdentityMap, identities, identitiesMap, ownerNumber } from '#datapath/maps/identities.ts'
import { networksMap, PolicyMaps, policyMap, policyStateMap, setNotReady } from '#datapath/maps/policy.ts'
import { membersMap, sourceRangesMap } from '#datapath/maps/service-extras.ts'
import { backendsMap, frontendsMap, ServiceMaps, slotsMap } from '#datapath/maps/services.ts'
import { gatewayMac } from '#datapath/object.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { PacketBench, runSyscallNow } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { type Cluster, type Endpoint, type NetworkPolicy, nameOf, type Pod, type Service } from '../cluster.ts'
import { writeFrame } from '../frame.ts'
import type { Hook } from '../node.ts'
import type { Packet, Tuple } from '../packet.ts'
import type { Change } from '../scenario.ts'
import { ownNode } from '../universe.ts'
import { type ProgramName, type Programs, uplinkMac } from './programs.ts'
import type { World } from './world.ts'

/** What the programs said of one packet. Reused: read it before the next one. */
export interface Answer {
  /** TC_ACT_*. */
  verdict: number
  reason: number
  rule: number
  source: number
  destination: number
  choice: number
  /** Of a packet that was wrapped: whose identity goes with it, and to which node. */
  wrappedAs: number
  wrappedTo: number
}

/** Offsets in struct __sk_buff. */
const at = { ifindex: 40, cb: 48, tstamp: 152 } as const
/** Offsets in struct xdp_md. */
const xdpAt = { data: 0, end: 4, ifindex: 12 } as const
const xdpVerdicts = { pass: 2, transmit: 3, redirect: 4 } as const
const timeBytes = 8
const programOf = {
  pod: 'from_container',
  uplink: 'from_netdev',
  host: 'to_container',
  tunnel: 'from_overlay',
  stack: 'to_overlay',
} as const satisfies Record<Hook['from'], ProgramName>

export const podMac = (pod: Pod): Buffer => parseMac(`02:00:00:01:00:${lastByte(pod)}`)
const lastByte = (pod: Pod): string =>
  Number(pod.addresses[0]?.split('.')[3] ?? 0)
    .toString(16)
    .padStart(2, '0')
const gateway = parseMac(gatewayMac)
const uplink = parseMac(uplinkMac)
const stranger = parseMac('02:00:00:00:00:99')

/**
 * The compiled programs with their maps, driven as the agent drives them: the real compiler of policies, the real codecs,
 * entries written in the agent's order.
 */
export class KernelNode {
  readonly answer: Answer = {
    verdict: 0,
    reason: 0,
    rule: 0,
    source: 0,
    destination: 0,
    choice: 0,
    wrappedAs: 0,
    wrappedTo: 0,
  }
  readonly bench = new PacketBench()
  readonly #early = new PacketBench()
  readonly #world: World
  readonly #programs: Programs
  readonly #endpoints: EndpointMap
  readonly #identities: IdentityMap
  readonly #policy: PolicyMaps
  #compiler = new Compiler()
  #services: ServiceMaps | undefined
  #rows = new Map<string, readonly ServiceRow[]>()
  #backends = new Map<number, string>()
  #ms = 0
  /** Identities by what stands behind them. */
  #numbers = new Map<string, number>()
  #cluster: Cluster | undefined
  #uids = 0

  constructor(world: World, programs: Programs) {
    this.#world = world
    this.#programs = programs
    this.#endpoints = new EndpointMap(programs.map(endpointsMap))
    this.#identities = new IdentityMap(programs.map(identitiesMap))
    this.#policy = new PolicyMaps({
      policy: programs.map(policyMap),
      networks: programs.map(networksMap),
      state: programs.map(policyStateMap),
    })
  }

  /** As if nothing had ever been written. */
  reset(): void {
    for (const name of emptied) if (this.#programs.has(name)) clear(this.#programs.map(name))
    for (const [name, count] of [
      [sharesMap, 64],
      ['embryonic_used_v1', 1],
    ] as const)
      if (this.#programs.has(name)) zero(this.#programs.map(name), count)
    // The programs remember what was so in an epoch: there is none twice.
    this.#policy.state = { epoch: this.#policy.state.epoch + 1, networks: 0 }
    this.#compiler = new Compiler()
    this.#numbers = new Map()
    this.#cluster = undefined
    this.#rows = new Map()
    this.#backends = new Map()
    this.#services = this.#openServices()
  }

  #openServices(): ServiceMaps | undefined {
    const programs = this.#programs
    if (!programs.has(frontendsMap)) return undefined
    return new ServiceMaps(
      {
        frontends: programs.map(frontendsMap),
        slots: programs.map(slotsMap),
        backends: programs.map(backendsMap),
        sourceRanges: programs.map(sourceRangesMap),
        members: programs.map(membersMap),
      },
      () => this.#ms,
    )
  }

  #setService(name: string, service: Service | undefined): void {
    const before = this.#rows.get(name) ?? []
    const rows =
      service === undefined
        ? []
        : reflectService(apiService(service), slicesOf(service), {
            nodeName: ownNode,
            zone: undefined,
            externalUse: () => (service.isExternalGuarded === true ? 'outside' : 'all'),
          })
    const key = ({ frontend: { address, port, protocol } }: ServiceRow): string => `${address} ${port} ${protocol}`
    const kept = new Set(rows.map(key))
    this.#services?.change(
      rows,
      before.filter((row) => !kept.has(key(row))).map((row) => row.frontend),
    )
    this.#rows.set(name, rows)
    for (const row of rows)
      for (const backend of [...row.backends, ...(row.outside?.backends ?? [])]) {
        const number = this.#services?.numberOfBackend(backend)
        if (number !== undefined) this.#backends.set(number, `${backend.address} ${backend.port}`)
      }
    this.#setAddresses()
  }

  #setAddresses(): void {
    if (!this.#programs.has(addressesMap)) return
    const nodes = [...(this.#cluster?.nodes.values() ?? [])].flatMap(({ name, addresses }) =>
      addresses.map((address) => ({ address, kind: name === ownNode ? ('own' as const) : ('node' as const) })),
    )
    const virtual = [...(this.#cluster?.services.values() ?? [])].flatMap(({ ingressIPs = [] }) =>
      ingressIPs.map((address) => ({ address, kind: 'virtual' as const, isAnnounced: true })),
    )
    const external = [...(this.#cluster?.services.values() ?? [])].flatMap(({ externalIPs = [] }) =>
      externalIPs.map((address) => ({ address, kind: 'external' as const })),
    )
    new AddressMap(this.#programs.map(addressesMap)).set([...virtual, ...external, ...nodes])
  }

  /** The agent's two sweeps, at this time (ms). */
  sweep(now: number): void {
    for (const name of ['sweep', 'sweep_translations'] as const) {
      const context = Buffer.alloc(name === 'sweep' ? 24 : 16)
      if (name === 'sweep') context.writeBigUInt64LE(BigInt(now) * 1_000_000n)
      else context.writeUInt32LE(Math.floor(now / 1_000))
      runSyscallNow(this.#programs.program(name), context)
    }
  }

  /** Whether the kernel chose this backend for the last packet. */
  isChosen({ address, port }: Endpoint): boolean {
    return this.#backends.get(this.answer.choice) === `${address} ${port}`
  }

  /** What a connection goes on as; undefined: it is not translated. */
  translation(question: Tuple): Tuple | undefined {
    const value = this.#programs.map('translations_v1').lookup(encodeTuple(question))
    return value === undefined ? undefined : decodeTuple(value)
  }

  /** The change, and the cluster after it. */
  change(change: Change, cluster: Cluster): void {
    const before = this.#cluster
    this.#cluster = cluster
    switch (change.do) {
      case 'node': {
        const { name, addresses } = change.node
        const own = name === ownNode
        const identity = own ? identities.host : identities.remoteNode
        this.#addIdentities(addresses, identity, name, own ? 0 : Number(name.slice(5)))
        this.#setAddresses()
        break
      }
      case 'namespace':
        this.#compiler.shared.setNamespace(change.namespace.name, change.namespace.labels)
        this.#round()
        break
      case 'pod':
        if (change.pod.hostNetwork !== true) this.#setPod(change.pod)
        else this.#raiseEpoch()
        break
      case 'policy':
        this.#setPolicy(nameOf(change.policy), change.policy)
        break
      case 'service':
        this.#setService(nameOf(change.service), change.service)
        break
      case 'tunnel':
        break
      case 'remove':
        if (change.kind === 'pod') this.#removePod(before?.pods.get(change.name))
        if (change.kind === 'policy') this.#setPolicy(change.name, undefined)
        if (change.kind === 'service') this.#setService(change.name, undefined)
        break
      default:
        change satisfies never
    }
  }

  #setPolicy(name: string, policy: NetworkPolicy | undefined): void {
    if (policy === undefined) this.#compiler.setPolicy(name, undefined)
    else {
      const object = {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { namespace: policy.namespace, name: policy.name, uid: `uid-${++this.#uids}`, generation: 1 },
        spec: policy.spec,
      }
      const parsed = parsePolicy(object as unknown as ApiPolicy)
      if (!('policy' in parsed)) throw new Error(`the policy was refused: ${JSON.stringify(parsed.problems)}`)
      this.#compiler.setPolicy(name, parsed.policy)
    }
    this.#round()
  }

  #setPod(pod: Pod): void {
    const key = JSON.stringify([pod.namespace, Object.entries(pod.labels).sort(), pod.ports])
    let identity = this.#numbers.get(key)
    if (identity === undefined) {
      identity = identities.first + this.#numbers.size
      this.#numbers.set(key, identity)
      this.#compiler.shared.setIdentity(identity, {
        namespace: pod.namespace,
        labels: pod.labels,
        ports: pod.ports.map(({ name, port, protocol }) => ({ name, number: port, protocol })),
      })
    }
    const name = nameOf(pod)
    if (pod.node !== ownNode) {
      this.#round()
      this.#addIdentities(pod.addresses, identity, name, Number(pod.node.slice(5)))
      return
    }
    const unready = pod.unready === true
    if (unready) this.#compiler.setPod(name, undefined)
    else
      this.#compiler.setPod(name, {
        namespace: pod.namespace,
        labels: pod.labels,
        ports: pod.ports.map(({ name: n, port, protocol }) => ({ name: n, number: port, protocol })),
      })
    const round = this.#compiler.round()
    if (round !== undefined) this.#write(round)
    const sets = unready
      ? { ingress: setNotReady, egress: setNotReady }
      : (round?.endpoints.get(name) ?? this.#compiler.numbersOf(name) ?? { ingress: 0, egress: 0 })
    const ifindex = this.#world.devices.get(pod.addresses[0] ?? '')
    if (ifindex === undefined)
      throw new RangeError(`${name} has no device: ${pod.addresses.join()} is no slot of ${ownNode}`)
    const owner = ownerNumber(name)
    const epoch = this.#policy.state.epoch + 1
    const number = shareOf(pod)
    for (const address of pod.addresses) {
      const known = this.#endpoints.get(address)
      this.#endpoints.set(address, {
        ifindex,
        mac: [...podMac(pod)].map((b) => b.toString(16).padStart(2, '0')).join(':'),
        number,
        identity,
        egressSet: sets.egress,
        ingressSet: sets.ingress,
        since: known?.owner === owner ? known.since : epoch,
        owner,
      })
    }
    if (round !== undefined) this.#finish(round)
    this.#addIdentities(pod.addresses, identity, name, 0)
    this.#raiseEpoch()
  }

  #removePod(pod: Pod | undefined): void {
    if (pod === undefined || pod.hostNetwork === true) {
      this.#raiseEpoch()
      return
    }
    if (pod.node === ownNode) {
      const ifindex = this.#world.devices.get(pod.addresses[0] ?? '') ?? 0
      for (const address of pod.addresses) this.#endpoints.removeOf(address, ifindex)
      this.#removeFlows(shareOf(pod))
      this.#compiler.setPod(nameOf(pod), undefined)
    }
    for (const address of pod.addresses) this.#identities.remove(address)
    this.#round()
    this.#raiseEpoch()
  }

  /** The share is of the sandbox: the next one with the number begins with none. */
  #removeFlows(number: number): void {
    const context = Buffer.alloc(24)
    // At a time when nothing is over: only that pod's flows go.
    context.writeBigUInt64LE(1n)
    context.writeUInt32LE(number, 8)
    runSyscallNow(this.#programs.program('sweep'), context)
  }

  #addIdentities(addresses: readonly string[], identity: number, name: string, node: number): void {
    const epoch = this.#policy.state.epoch + 1
    const owner = ownerNumber(name)
    const tunnel = node > 0 && this.#isTunnelled ? this.#cluster?.nodes.get(`node-${node}`)?.addresses[0] : undefined
    for (const address of addresses) {
      const known = this.#identities.get(address)
      const since = known?.owner === owner ? known.since : epoch
      this.#identities.set(address, { identity, node, tunnel, since, owner })
    }
    this.#raiseEpoch()
  }

  #round(): void {
    const round = this.#compiler.round()
    if (round === undefined) {
      this.#raiseEpoch()
      return
    }
    this.#write(round)
    for (const [name, sets] of round.endpoints) {
      for (const address of this.#cluster?.pods.get(name)?.addresses ?? []) {
        const known = this.#endpoints.get(address)
        if (known !== undefined)
          this.#endpoints.set(address, { ...known, egressSet: sets.egress, ingressSet: sets.ingress })
      }
    }
    this.#finish(round)
    this.#policy.state = { ...this.#policy.state, networks: this.#policy.networks().size }
    this.#raiseEpoch()
    for (const set of this.#compiler.unused()) {
      const entries = this.#compiler.drop(set)
      if (entries !== undefined) this.#policy.remove(entries)
    }
  }

  #write(round: Round): void {
    if (round.add.length > 0) this.#policy.add(round.add)
    for (const network of round.networksAdded) this.#policy.setNetwork(formatCidr(network.cidr), network.class)
    this.#policy.state = { ...this.#policy.state, networks: this.#policy.networks().size }
  }

  /** What nobody needs any more goes after everything that is new is there. */
  #finish(round: Round): void {
    this.#policy.remove(round.remove)
    for (const { cidr } of round.networksRemoved) this.#policy.removeNetwork(formatCidr(cidr))
    round.settle()
    this.#policy.state = { ...this.#policy.state, networks: this.#policy.networks().size }
  }

  #raiseEpoch(): void {
    const { state } = this.#policy
    this.#policy.state = { ...state, epoch: state.epoch + 1 }
  }

  /** Identity number of a pod, as it was written. */
  identityOf(pod: Pod): number {
    return this.#identities.get(pod.addresses[0] ?? '')?.identity ?? identities.unknown
  }

  /** `team-a/web spec.ingress[0].from[1]`; undefined for 0 and for what no rule has. */
  ruleText(rule: number): string | undefined {
    const source = this.#compiler.rules.source(rule)
    return source === undefined ? undefined : `${source.policy.key} ${source.path}`
  }

  /** Device that a packet comes by. */
  #ifindexOf(hook: Hook): number {
    if (hook.from === 'uplink') return this.#world.uplink
    if (hook.from === 'tunnel' || hook.from === 'stack') return this.#isTunnelled ? this.#world.tunnel : 0
    const pod = this.#cluster?.pods.get(hook.pod)
    return this.#world.devices.get(pod?.addresses[0] ?? '') ?? 0
  }

  get #isTunnelled(): boolean {
    return this.#cluster?.isTunnelled === true
  }

  /** The number that goes with a packet as that of this pod, of a node, or of nobody. */
  #claimed(as: string): number {
    const pod = this.#cluster?.pods.get(as)
    if (pod !== undefined) return this.identityOf(pod)
    return as === 'node' ? identities.remoteNode : Number(as) || 0
  }

  canRun(hook: Hook): boolean {
    return this.#ifindexOf(hook) !== 0
  }

  /** Writes the packet as it comes to the hook. Returns its length. */
  write(hook: Hook, packet: Packet): number {
    const { bench } = this
    if (hook.from === 'pod') {
      const pod = this.#cluster?.pods.get(hook.pod)
      return writeFrame(bench.packet, packet, gateway, pod === undefined ? stranger : podMac(pod))
    }
    return writeFrame(bench.packet, packet, hook.from === 'uplink' ? uplink : stranger, stranger)
  }

  /**
   * XDP's look at what `write` has written: what it left to others as it was, or changed. Whether it sends it on is said, and
   * what it then is lies where the other programs leave it.
   */
  runEarly(length: number, now: number): 'sent on' | 'left' | 'changed and left' | 'lost' {
    const { bench } = this
    const { packet, out, context } = this.#early
    context.fill(0)
    // Eight bytes of metadata in front: the time.
    context.writeUInt32LE(timeBytes, xdpAt.data)
    context.writeUInt32LE(timeBytes + length, xdpAt.end)
    context.writeUInt32LE(this.#world.uplink, xdpAt.ifindex)
    const ns = now * 1e6
    packet.writeUInt32LE(ns % 0x1_0000_0000, 0)
    packet.writeUInt32LE(Math.floor(ns / 0x1_0000_0000), 4)
    bench.packet.copy(packet, timeBytes, 0, length)
    this.#ms = now
    this.answer.choice = 0
    const verdict = this.#early.run(this.#programs.program('xdp_entry', this.#isTunnelled), timeBytes + length)
    bench.outLength = this.#early.outLength - timeBytes
    out.copy(bench.out, 0, timeBytes, this.#early.outLength)
    if (verdict === xdpVerdicts.transmit || verdict === xdpVerdicts.redirect) return 'sent on'
    if (verdict !== xdpVerdicts.pass) return 'lost'
    const same = bench.outLength === length && bench.packet.compare(bench.out, 0, length, 0, length) === 0
    return same ? 'left' : 'changed and left'
  }

  /** Runs what `write` has written. Inside of the world's namespace. `now` is ms. */
  run(hook: Hook, length: number, now: number): Answer {
    const { bench, answer } = this
    const { context } = bench
    // What the last run wrote there the kernel would refuse.
    context.fill(0)
    context.writeUInt32LE(this.#ifindexOf(hook), at.ifindex)
    this.#ms = now
    const ns = now * 1e6
    context.writeUInt32LE(ns % 0x1_0000_0000, at.tstamp)
    context.writeUInt32LE(Math.floor(ns / 0x1_0000_0000), at.tstamp + 4)
    if (hook.from === 'tunnel') {
      context.writeUInt32LE(this.#claimed(hook.as), at.cb)
      context.writeUInt32LE(ipv4Number(hook.node), at.cb + 4)
    }
    answer.verdict = bench.run(this.#programs.program(programOf[hook.from], this.#isTunnelled), length)
    answer.wrappedAs = context.readUInt32LE(at.tstamp)
    answer.wrappedTo = context.readUInt32LE(at.tstamp + 4)
    const first = context.readUInt32LE(at.cb)
    answer.reason = first & 0xffff
    answer.rule = context.readUInt32LE(at.cb + 4)
    answer.source = context.readUInt32LE(at.cb + 8)
    answer.destination = context.readUInt32LE(at.cb + 12)
    answer.choice = context.readUInt32LE(at.cb + 16)
    return answer
  }
}

const emptied = [
  endpointsMap,
  identitiesMap,
  policyMap,
  networksMap,
  flowsMap,
  embryonicMap,
  'fragments_v1',
  'answers_v1',
  frontendsMap,
  addressesMap,
  sourceRangesMap,
  membersMap,
  'affinity_v1',
  'translations_v1',
]

/** The object of the API that the agent would be told of. */
function apiService(service: Service): ApiService {
  const { namespace, name, type, clusterIPs, ports, ingressIPs = [], affinitySeconds, sourceRanges } = service
  return {
    metadata: { namespace, name },
    spec: {
      type,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ports: ports.map((port) => ({ name: `p${port.port}`, ...port })),
      ...(service.externalIPs === undefined ? {} : { externalIPs: service.externalIPs }),
      ...(service.externalTrafficPolicy === undefined ? {} : { externalTrafficPolicy: service.externalTrafficPolicy }),
      ...(service.internalTrafficPolicy === undefined ? {} : { internalTrafficPolicy: service.internalTrafficPolicy }),
      ...(sourceRanges === undefined ? {} : { loadBalancerSourceRanges: sourceRanges }),
      ...(affinitySeconds === undefined
        ? {}
        : {
            sessionAffinity: 'ClientIP',
            sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } },
          }),
    },
    status: { loadBalancer: { ingress: ingressIPs.map((ip) => ({ ip })) } },
  } as unknown as ApiService
}

/** One slice for each port and family. */
function slicesOf({ namespace, name, ports, endpoints }: Service): EndpointSlice[] {
  return ports.flatMap(({ port, protocol }) =>
    (['IPv4', 'IPv6'] as const).flatMap((addressType) => {
      const all = (endpoints[port] ?? []).filter((e) => e.address.includes(':') === (addressType === 'IPv6'))
      return [...new Set(all.map((e) => e.port))].map(
        (target) =>
          ({
            metadata: {
              namespace,
              name: `${name}-${port}-${addressType}-${target}`,
              labels: { 'kubernetes.io/service-name': name },
            },
            addressType,
            ports: [{ name: `p${port}`, port: target, protocol }],
            endpoints: all
              .filter((e) => e.port === target)
              .map((e) => ({
                addresses: [e.address],
                nodeName: e.node,
                conditions: { ready: e.ready, serving: e.serving, terminating: e.terminating },
              })),
          }) as unknown as EndpointSlice,
      )
    }),
  )
}

/** As the helpers for tunnels have it. */
export const ipv4Number = (address: string): number => encodeIpv4(address).readUInt32BE()
const encodeIpv4 = (address: string): Buffer => Buffer.from(address.split('.').map(Number))

/** Number of an endpoint, by its slot. */
const shareOf = (pod: Pod): number => Number(pod.addresses[0]?.split('.')[3] ?? 0)

function clear(map: BpfMap): void {
  const entries = map.entries()
  if (entries.length === 0) return
  // A trie has no batch of deletions in every kernel of the floor.
  for (const { key } of entries) map.delete(key)
}

function zero(map: BpfMap, count: number): void {
  const key = Buffer.alloc(4)
  const value = Buffer.alloc(map.valueSize)
  for (let i = 0; i < count; i++) {
    key.writeUInt32LE(i)
    map.update(key, value)
  }
}
