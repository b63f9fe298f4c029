import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import { parseAddress, parseCidr } from '#base/net/address.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { type Program, runSyscall, tickNanoseconds } from '#kernel/bpf/program.ts'
import { type Link, Netlink, type Route } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import { setSysctl } from '#kernel/sysctl.ts'
import { announcement } from './announce.ts'
import { Attachments } from './attach.ts'
import type { CompiledObject } from './compile.ts'
import type {
  AddressIdentity,
  Datapath,
  Endpoint,
  KnownAddress,
  NodeNetwork,
  PolicyChange,
  Service,
} from './datapath.ts'
import type { Backend, Frontend } from './frontend.ts'
import { load, openMap, openOldMap, prunePrograms, removeOldMap } from './load.ts'
import { AddressMap, addressesMap } from './maps/addresses.ts'
import { type Counter, countersMap, readCounters } from './maps/counters.ts'
import { EndpointMap, endpointsMap, endpointsMapV1, takeOverEndpoints } from './maps/endpoints.ts'
import {
  clearShare,
  decodeSweep,
  embryonicMap,
  encodeSweep,
  type Flow,
  flowsMap,
  readFlows,
  type Swept,
  sharesMap,
} from './maps/flows.ts'
import { IdentityMap, identities, identitiesMap, ownerNumber } from './maps/identities.ts'
import {
  networksMap,
  type PolicyEntry,
  type PolicyKey,
  PolicyMaps,
  policyMap,
  policyStateMap,
  setNone,
} from './maps/policy.ts'
import { membersMap, sourceRangesMap } from './maps/service-extras.ts'
import { backendsMap, frontendsMap, ServiceMaps, slotsMap } from './maps/services.ts'
import {
  decodeTranslation,
  decodeTranslationSweep,
  encodeStale,
  encodeTranslationSweep,
  exclusionsMap,
  type StaleBackend,
  type SweptTranslations,
  staleMap,
  type Translation,
  translationsMap,
  writeExclusions,
} from './maps/translations.ts'
import { encodeConfig, gatewayMac, routeProtocol } from './object.ts'
import { Probe, type ProbeOptions } from './probe.ts'
import { setTunnel } from './tunnel.ts'

export interface KernelDatapathOptions {
  readonly objects: readonly CompiledObject[]
  /** A directory on a bpffs that is this node's alone. */
  readonly pinDir: string
  /** The node's cgroup2 directory: socket hooks serve the processes in it and below. */
  readonly cgroupPath: string
  /** Device that leads to the other nodes. */
  readonly uplink: string
  readonly serviceCidrs: readonly string[]
  /** Networks of all pods of the cluster: an address of these that nobody has named is an unknown pod's. */
  readonly podCidrs?: readonly string[]
  /** Established flows that one pod may hold; absent: half of what there is room for. */
  readonly flowShare?: number
  /** How packets get to other nodes' pods: as they are by the nodes' routes (absent), or wrapped. */
  readonly tunnel?: 'vxlan'
  /**
   * Services from outside already where the uplink's driver receives them. `native` where the driver can (a veth pair copies
   * every packet for it: there it is for trying); `generic` for trying anywhere. Default `off`.
   */
  readonly xdp?: XdpMode
  /**
   * To pods of other nodes where the uplink is one end of a veth pair: straight to its other end, or (`queue`) as by any
   * device. Default `straight`.
   */
  readonly cable?: 'straight' | 'queue'
  /** Networks outside the cluster that pods talk to under their own addresses. */
  readonly noMasquerade?: readonly string[]
  /** The node's network namespace; absent: the one that this process is in. */
  readonly namespace?: Namespace
  readonly clock?: Clock
  readonly log?: Log
}

export type XdpMode = 'off' | 'native' | 'generic'

/** The datapath in this kernel: programs on tcx and cgroup hooks, maps, routes. */
export class KernelDatapath implements Datapath {
  readonly #netlink: Netlink
  readonly #probing: ProbeOptions
  readonly #uplink: Link
  readonly #namespace: Namespace | undefined
  readonly #programs: ReadonlyMap<string, Program>
  readonly #attachments: Attachments
  readonly #endpoints: EndpointMap
  readonly #identities: IdentityMap
  readonly #policy: PolicyMaps
  readonly #flows: BpfMap
  readonly #embryonic: BpfMap
  readonly #shares: BpfMap
  readonly #services: ServiceMaps
  readonly #addresses: AddressMap
  readonly #stale: BpfMap
  readonly #exclusions: BpfMap
  readonly #translations: BpfMap
  #ownAddresses: ReadonlySet<string> = new Set()
  /** Not known at first: an earlier agent may have attached it. */
  #hasEgress: boolean | undefined
  readonly #counters: BpfMap
  readonly #maps: readonly BpfMap[]
  #tunnelIndex: number | undefined

  private constructor(
    netlink: Netlink,
    uplink: Link,
    namespace: Namespace | undefined,
    programs: ReadonlyMap<string, Program>,
    attachments: Attachments,
    probing: ProbeOptions,
    pinDir: string,
    clock: Clock,
  ) {
    this.#probing = probing
    this.#netlink = netlink
    this.#uplink = uplink
    this.#namespace = namespace
    this.#programs = programs
    this.#attachments = attachments
    const open = (name: string): BpfMap => openMap(pinDir, name)
    const endpoints = open(endpointsMap)
    const services = {
      frontends: open(frontendsMap),
      slots: open(slotsMap),
      backends: open(backendsMap),
      sourceRanges: open(sourceRangesMap),
      members: open(membersMap),
    }
    const addresses = open(addressesMap)
    this.#stale = open(staleMap)
    this.#exclusions = open(exclusionsMap)
    this.#translations = open(translationsMap)
    this.#counters = open(countersMap)
    const known = open(identitiesMap)
    const policy = { policy: open(policyMap), networks: open(networksMap), state: open(policyStateMap) }
    this.#flows = open(flowsMap)
    this.#embryonic = open(embryonicMap)
    this.#shares = open(sharesMap)
    this.#maps = [
      endpoints,
      known,
      addresses,
      this.#stale,
      this.#exclusions,
      this.#translations,
      this.#flows,
      this.#embryonic,
      this.#shares,
      this.#counters,
    ]
      .concat(Object.values(services))
      .concat(Object.values(policy))
    this.#identities = new IdentityMap(known)
    this.#policy = new PolicyMaps(policy)
    this.#endpoints = new EndpointMap(endpoints)
    this.#services = new ServiceMaps(services, () => clock.monotonic())
    this.#addresses = new AddressMap(addresses)
  }

  /**
   * Loads what is not pinned yet and attaches it; an agent that comes back changes nothing, one with newer programs
   * exchanges them in place. Throws with the verifier's words, or with the device or cgroup that is missing.
   */
  static async open(options: KernelDatapathOptions): Promise<KernelDatapath> {
    const { pinDir, cgroupPath, uplink, podCidrs = [], namespace, clock = systemClock, log = silentLog } = options
    // The kernel need not look at what is not used.
    const xdp = options.xdp ?? 'off'
    const unused = [options.tunnel === undefined ? 'overlay' : '', xdp === 'off' ? 'xdp_entry' : '']
    const objects = options.objects.filter((o) => !unused.includes(o.name))
    const netlink = Netlink.open(namespace)
    try {
      const link = await netlink.link(uplink)
      if (link === undefined) throw new Error(`Cannot attach to ${uplink}: this node has no such device`)
      // bpf_fib_lookup answers only for a device that forwards.
      for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'])
        namespace === undefined ? setSysctl(path, 1) : namespace.setSysctl(path, 1)
      reservePorts(namespace)
      const tunnelIndex = await setTunnel(options.tunnel, netlink, link.mtu, namespace)
      const tunnel = tunnelIndex === undefined ? {} : { tunnelIndex }
      const nodeAddresses = ownAddresses(await netlink.addresses(link.index))
      using own = Namespace.own()
      const nodeCookie = (namespace ?? own).cookie
      const cable =
        link.kind === 'veth' && link.leadsElsewhere && options.cable !== 'queue' ? { cableIndex: link.index } : {}
      const node = { uplinkMac: link.mac, nodeAddresses, nodeCookie, ...cable }
      const globals = encodeConfig({
        ...options,
        ...tunnel,
        tickNanoseconds: tickNanoseconds(),
        podCidrs,
        gatewayMac,
        ...node,
      })
      const loaded = load(objects, globals, pinDir)
      const attachments = new Attachments(pinDir, loaded.programs, namespace)
      const probing = {
        objects,
        globals,
        mapDir: join(pinDir, 'maps'),
        ...(namespace === undefined ? {} : { namespace }),
      }
      const { programs } = loaded
      const datapath = new KernelDatapath(netlink, link, namespace, programs, attachments, probing, pinDir, clock)
      datapath.#tunnelIndex = tunnelIndex
      writeExclusions(datapath.#exclusions, options.noMasquerade ?? [])
      const before = openOldMap(pinDir, endpointsMapV1)
      const taken = before === undefined ? [] : takeOverEndpoints(before, datapath.#endpoints)
      before?.[Symbol.dispose]()
      const changed = [
        attachments.attachCgroup(cgroupPath),
        await attachments.attachDevice('uplink', 'node', link.index),
        await attachments.attachXdp(xdp, link.index),
        tunnelIndex !== undefined && (await attachments.attachDevice('overlay', 'node', tunnelIndex)),
      ]
      // Pods that are there already get this agent's programs.
      changed.push(attachments.updateDevices('endpoint'))
      prunePrograms(objects, globals, pinDir)
      if (before !== undefined) {
        removeOldMap(pinDir, endpointsMapV1)
        log.info({ taken }, 'pods were taken over from the layout of an earlier version')
      }
      log.info({ loaded: loaded.fresh, attached: changed.includes(true), uplink, pinDir }, 'datapath is in place')
      return datapath
    } catch (error) {
      netlink[Symbol.dispose]()
      throw error
    }
  }

  async upsertEndpoint(endpoint: Endpoint): Promise<void> {
    const { id, addresses, ifindex, mac } = endpoint
    const owner = ownerNumber(endpoint.owner ?? id)
    const epoch = this.#policy.state.epoch + 1
    const { number, fresh } = this.#endpoints.numberFor(addresses, ifindex)
    let changed = false
    for (const address of addresses) {
      const found = this.#endpoints.get(address)
      const known = found?.owner === owner ? found : undefined
      const { identity = known?.identity ?? identities.unknown } = endpoint
      const { egressSet = known?.egressSet ?? setNone, ingressSet = known?.ingressSet ?? setNone } = endpoint
      const since = known?.since ?? epoch
      const entry = { ifindex, mac, number, identity, egressSet, ingressSet, since, owner }
      changed = this.#endpoints.set(address, entry) || changed
    }
    if (changed) this.#raiseEpoch()
    // Flows of whoever had the number before are not counted to this one.
    await Promise.all([
      this.#attachments.attachDevice('endpoint', id, ifindex),
      fresh ? this.#sweep(number).then(() => clearShare(this.#shares, number)) : undefined,
    ])
  }

  removeEndpoint({ id, addresses, ifindex }: Pick<Endpoint, 'id' | 'addresses' | 'ifindex'>): void {
    for (const address of addresses) this.#endpoints.removeOf(address, ifindex)
    this.#attachments.detachDevice('endpoint', id)
  }

  addresses(): ReadonlyMap<string, number> {
    return new Map([...this.#endpoints.entries()].map(([address, { ifindex }]) => [address, ifindex]))
  }

  pruneEndpoints(endpoints: readonly Endpoint[]): string[] {
    const wanted = new Set(endpoints.flatMap(({ addresses, ifindex }) => addresses.map((a) => `${a} ${ifindex}`)))
    const gone: string[] = []
    for (const [address, { ifindex }] of this.#endpoints.entries()) {
      if (!wanted.has(`${address} ${ifindex}`) && this.#endpoints.removeOf(address, ifindex)) gone.push(address)
    }
    return [...gone, ...this.#attachments.prune(new Set(endpoints.map((e) => e.id)))]
  }

  upsertIdentities(entries: readonly AddressIdentity[]): void {
    const epoch = this.#policy.state.epoch + 1
    let changed = false
    for (const { address, identity, owner: name, node = 0, tunnel } of entries) {
      const owner = ownerNumber(name)
      const known = this.#identities.get(address)
      const since = known?.owner === owner ? known.since : epoch
      changed = this.#identities.set(address, { identity, node, tunnel, since, owner }) || changed
    }
    if (changed) this.#raiseEpoch()
  }

  removeIdentities(addresses: readonly string[]): void {
    const removed = addresses.filter((address) => this.#identities.remove(address))
    if (removed.length > 0) this.#raiseEpoch()
  }

  identities(): ReadonlyMap<string, number> {
    return new Map([...this.#identities.entries()].map(([address, { identity }]) => [address, identity]))
  }

  changePolicy({ entries = [], networks = new Map(), removedNetworks = [], endpoints = [] }: PolicyChange): void {
    this.#policy.add(entries)
    for (const [cidr, number] of networks) this.#policy.setNetwork(cidr, number)
    // Programs look for classes from the moment on that there may be one.
    if (networks.size > 0) this.#policy.state = { ...this.#policy.state, networks: this.#policy.networks().size }
    for (const { addresses, ...change } of endpoints) {
      for (const address of addresses) {
        const known = this.#endpoints.get(address)
        if (known !== undefined) this.#endpoints.set(address, { ...known, ...defined(change) })
      }
    }
    for (const cidr of removedNetworks) this.#policy.removeNetwork(cidr)
    if (removedNetworks.length > 0)
      this.#policy.state = { ...this.#policy.state, networks: this.#policy.networks().size }
    this.#raiseEpoch()
  }

  removePolicyEntries(keys: readonly PolicyKey[]): void {
    this.#policy.remove(keys)
  }

  policyEntries(): PolicyEntry[] {
    return this.#policy.entries()
  }

  policyNetworks(): ReadonlyMap<string, number> {
    return this.#policy.networks()
  }

  endpointPolicies(): ReadonlyMap<string, { readonly egressSet: number; readonly ingressSet: number }> {
    return new Map(
      [...this.#endpoints.entries()].map(([address, { egressSet, ingressSet }]) => [
        address,
        { egressSet, ingressSet },
      ]),
    )
  }

  flows(): Flow[] {
    return readFlows(this.#flows, this.#embryonic)
  }

  sweepFlows(): Promise<Swept> {
    return this.#sweep(0)
  }

  /** `endpoint`: its flows go whatever their age, so that the next one of that number does not answer for them. */
  async #sweep(endpoint: number): Promise<Swept> {
    const program = this.#programs.get('sweep')
    if (program === undefined) throw new Error('Cannot sweep flows: the program is not loaded')
    return decodeSweep(await runSyscall(program, encodeSweep(endpoint)))
  }

  /** After everything else of a change is written: every connection's next packet is judged again. */
  #raiseEpoch(): void {
    const state = this.#policy.state
    this.#policy.state = { ...state, epoch: (state.epoch + 1) >>> 0 }
  }

  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void {
    this.#services.change(upserts, removals)
  }

  services(): Service[] {
    return this.#services.list()
  }

  async attachForServices(): Promise<void> {
    const isNeeded = this.#services.leadsOutsideTo(this.#ownAddresses)
    if (isNeeded === this.#hasEgress) return
    if (isNeeded) await this.#attachments.attachDevice('egress', 'node', this.#uplink.index)
    else this.#attachments.detachDevice('egress', 'node')
    this.#hasEgress = isNeeded
  }

  hasBackend(backend: Backend): boolean {
    return this.#services.numberOfBackend(backend) !== undefined
  }

  async sweepTranslations(stale: readonly StaleBackend[] = []): Promise<SweptTranslations> {
    const program = this.#programs.get('sweep_translations')
    if (program === undefined) throw new Error('Cannot sweep translations: the program is not loaded')
    const keys = stale.slice(0, this.#stale.entriesMax / 2).map(encodeStale)
    for (const key of keys) this.#stale.update(key, Buffer.from([1, 0, 0, 0]))
    try {
      return decodeTranslationSweep(await runSyscall(program, encodeTranslationSweep(keys.length > 0)))
    } finally {
      for (const key of keys) this.#stale.delete(key)
    }
  }

  translations(): Translation[] {
    return this.#translations.entries().map(({ key, value }) => decodeTranslation(key, value))
  }

  setAddresses(addresses: readonly KnownAddress[]): void {
    this.#ownAddresses = new Set(addresses.flatMap((a) => (a.kind === 'own' ? [a.address] : [])))
    const begun = this.#addresses.set(addresses)
    if (begun.length === 0) return
    using own = Namespace.own()
    for (const address of begun)
      (this.#namespace ?? own).sendFrame(this.#uplink.index, announcement(address, this.#uplink.mac))
  }

  knownAddresses(): KnownAddress[] {
    return this.#addresses.entries()
  }

  async setNodes(nodes: readonly NodeNetwork[]): Promise<void> {
    const wanted = new Map(
      nodes.flatMap((node) => routesTo(node, this.#uplink.index, this.#tunnelIndex)).map((r) => [r.destination, r]),
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

  async nodeRoutes(): Promise<ReadonlyMap<string, string>> {
    const routes = await this.#netlink.routes(routeProtocol)
    return new Map(routes.filter((r) => isNetwork(r.destination)).map((r) => [r.destination, r.gateway ?? '']))
  }

  counters(): Counter[] {
    return readCounters(this.#counters)
  }

  /** The attached programs once more, to be asked. The caller's to dispose. */
  openProbe(): Probe {
    return Probe.open(this.#probing)
  }

  get uplinkIndex(): number {
    return this.#uplink.index
  }

  /** Closes what this process has open; programs, maps and routes stay in force. */
  [Symbol.dispose](): void {
    for (const map of this.#maps) map[Symbol.dispose]()
    for (const program of this.#programs.values()) program[Symbol.dispose]()
    this.#netlink[Symbol.dispose]()
  }
}

/** Without the fields that are absent: they stay as they are. */
const defined = <T extends object>(change: T): Partial<T> =>
  Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined)) as Partial<T>

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
