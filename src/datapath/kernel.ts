import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { tickNanoseconds } from '#kernel/bpf/program.ts'
import { isMac, type Link, Netlink } from '#kernel/netlink/netlink.ts'
import type { Namespace } from '#kernel/netns.ts'
import { Attachments, type Displaced } from './attach.ts'
import type { CompiledObject } from './compile.ts'
import type {
  AddressIdentity,
  Datapath,
  Endpoint,
  KnownAddress,
  NodeAddresses,
  NodeNetwork,
  PolicyChange,
  Service,
} from './datapath.ts'
import type { Backend, Frontend } from './frontend.ts'
import { load, loadAgain, openMap, programOf, prunePrograms } from './load.ts'
import { type Counter, countersMap, readCounters } from './maps/counters.ts'
import type { Flow, Swept } from './maps/flows.ts'
import type { PolicyEntry, PolicyKey } from './maps/policy.ts'
import type { StaleBackend, SweptTranslations, Translation } from './maps/translations.ts'
import { describeNode, keepForwarding, type NodeDescription, otherWaysOut, prepareNode } from './node.ts'
import { encodeConfig, gatewayMac } from './object.ts'
import { PodSide } from './pod-side.ts'
import { Probe, type ProbeOptions } from './probe.ts'
import { NodeRoutes } from './routes.ts'
import { ServiceSide } from './service-side.ts'
import { attachAll, type NodePlace, Succession } from './succession.ts'
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
  /** False: connections and drops are told to nobody. Default true. */
  readonly records?: boolean
  /** Networks outside the cluster that pods talk to under their own addresses. */
  readonly noMasquerade?: readonly string[]
  /** The node's network namespace; absent: the one that this process is in. */
  readonly namespace?: Namespace
  readonly clock?: Clock
  readonly log?: Log
}

/** Where in the driver's way of a packet the first look is. */
export type XdpMode = 'off' | 'native' | 'generic'

/** What this agent found when it came, of a version with other maps. */
export interface TakenOver {
  /** Entries, by what they were in. */
  readonly carried: Readonly<Record<string, number>>
  /** Addresses of pods that a version before policies knew. */
  readonly pods: readonly string[]
  /** Maps whose pins went, and those that an attached program still uses. */
  readonly removed: readonly string[]
  readonly kept: readonly string[]
}

/** What it takes to tell the programs of the node once more. */
interface Following {
  readonly netlink: Netlink
  readonly uplink: Link
  readonly node: NodeDescription
  readonly place: NodePlace
  readonly describe: (uplink: Link) => Promise<NodeDescription>
  readonly encode: (node: NodeDescription) => ReadonlyMap<string, Buffer>
}

interface Parts {
  readonly pods: PodSide
  readonly services: ServiceSide
  readonly routes: NodeRoutes
  readonly counters: BpfMap
  readonly probing: ProbeOptions
  readonly attachments: Attachments
  readonly pinDir: string
  readonly takenOver: TakenOver | undefined
  readonly following: Following
  readonly uplinkIndex: number
  readonly namespace: Namespace | undefined
  /** Whatever this process has open. */
  readonly held: DisposableStack
}

/** The datapath in this kernel: programs on tcx and cgroup hooks, maps, routes. What it does, its parts do. */
export class KernelDatapath implements Datapath {
  readonly #pods: PodSide
  readonly #services: ServiceSide
  readonly #routes: NodeRoutes
  readonly #counters: BpfMap
  #probing: ProbeOptions
  #probe: { readonly globals: ProbeOptions['globals']; readonly probe: Probe } | undefined
  #following: Following
  readonly #attachments: Attachments
  readonly #pinDir: string
  readonly #namespace: Namespace | undefined
  readonly #held: DisposableStack
  readonly uplinkIndex: number
  /** Undefined where no other version had left anything. */
  readonly takenOver: TakenOver | undefined

  private constructor(parts: Parts) {
    const {
      pods,
      services,
      routes,
      counters,
      probing,
      takenOver,
      following,
      attachments,
      pinDir,
      uplinkIndex,
      namespace,
      held,
    } = parts
    this.#pods = pods
    this.#services = services
    this.#routes = routes
    this.#counters = counters
    this.#probing = probing
    this.#following = following
    this.#attachments = attachments
    this.#pinDir = pinDir
    this.#namespace = namespace
    this.#held = held
    this.uplinkIndex = uplinkIndex
    this.takenOver = takenOver
  }

  /**
   * Loads what is not pinned yet and attaches it; an agent that comes back changes nothing, one with newer programs
   * exchanges them in place. Throws with the verifier's words, or with the device or cgroup that is missing.
   */
  static async open(options: KernelDatapathOptions): Promise<KernelDatapath> {
    const { pinDir, cgroupPath, podCidrs = [], namespace, clock = systemClock, log = silentLog } = options
    using held = new DisposableStack()
    const netlink = held.use(Netlink.open(namespace))
    const uplink = await netlink.link(options.uplink)
    if (uplink === undefined) throw new Error(`Cannot attach to ${options.uplink}: this node has no such device`)
    // A tunnel's device (WireGuard, tun, ipip) has packets without an Ethernet header.
    if (!isMac(uplink.mac))
      throw new Error(
        `Cannot attach to ${options.uplink}: the programs read Ethernet frames, and it has none; name a device that has`,
      )
    const inNamespace = namespace === undefined ? {} : { namespace }

    // The node, made ready.
    prepareNode(namespace)
    const tunnelIndex = await setTunnel(options.tunnel, netlink, uplink.mtu, namespace)
    const describe = (link: Link): Promise<NodeDescription> =>
      describeNode(netlink, link, { ...inNamespace, usesCable: options.cable !== 'queue' })
    const node = await describe(uplink)

    // Programs and their maps. The kernel need not look at what is not used.
    const xdp = options.xdp ?? 'off'
    const unused = [options.tunnel === undefined ? 'overlay' : '', xdp === 'off' ? 'xdp_entry' : '']
    const objects = options.objects.filter((o) => !unused.includes(o.name))
    const encode = (described: NodeDescription): ReadonlyMap<string, Buffer> =>
      encodeConfig({
        ...options,
        ...(tunnelIndex === undefined ? {} : { tunnelIndex }),
        tickNanoseconds: tickNanoseconds(),
        podCidrs,
        gatewayMac,
        ...described,
      })
    const globals = encode(node)
    // Another version's connections first: programs that know both layouts, until every link has them.
    const place = { uplink: uplink.index, tunnel: tunnelIndex, xdp, cgroupPath }
    using succession = await Succession.begin({ ...options, objects }, globals, place)
    const { programs, fresh } = load(objects, globals, pinDir)
    for (const program of programs.values()) held.use(program)
    const open = (name: string): BpfMap => held.use(openMap(pinDir, name))
    const attachments = new Attachments(pinDir, programs, namespace)
    const pods = new PodSide(open, attachments, programOf(programs, 'sweep'))
    const sweeper = programOf(programs, 'sweep_translations')
    const services = new ServiceSide(open, { attachments, sweeper, uplink, ...inNamespace, clock })
    const counters = open(countersMap)
    services.exclude(options.noMasquerade ?? [])

    // Attached; pods that are there already get this agent's programs.
    const changed = await attachAll(attachments, place)
    prunePrograms(objects, globals, pinDir)
    const takenOver = succession && {
      carried: succession.carried,
      pods: succession.pods,
      ...succession.finish(),
    }
    if (takenOver !== undefined) log.info(takenOver, 'what another version left in its own layout was taken over')
    log.info({ loaded: fresh, attached: changed, uplink: options.uplink, pinDir }, 'datapath is in place')
    const beside = await otherWaysOut(netlink, uplink)
    if (beside.length > 0)
      log.warn(
        { uplink: options.uplink, beside, addresses: node.nodeAddresses },
        'the node has other ways out than its uplink: node ports are refused there, and what pods send there is answered only where answers come by the uplink; have what is from its addresses leave by it (ip rule)',
      )
    return new KernelDatapath({
      pods,
      services,
      routes: new NodeRoutes(netlink, uplink.index, tunnelIndex),
      counters,
      probing: { objects, globals, mapDir: join(pinDir, 'maps'), ...inNamespace },
      takenOver,
      following: { netlink, uplink, node, place, describe, encode },
      attachments,
      pinDir,
      uplinkIndex: uplink.index,
      namespace,
      held: held.move(),
    })
  }

  upsertEndpoint(endpoint: Endpoint): Promise<void> {
    return this.#pods.upsertEndpoint(endpoint)
  }

  removeEndpoint(endpoint: Pick<Endpoint, 'id' | 'addresses' | 'ifindex'>): void {
    this.#pods.removeEndpoint(endpoint)
  }

  addresses(): ReadonlyMap<string, number> {
    return this.#pods.addresses()
  }

  pruneEndpoints(endpoints: readonly Endpoint[]): string[] {
    return this.#pods.pruneEndpoints(endpoints)
  }

  upsertIdentities(entries: readonly AddressIdentity[]): void {
    this.#pods.upsertIdentities(entries)
  }

  removeIdentities(addresses: readonly string[]): void {
    this.#pods.removeIdentities(addresses)
  }

  identities(): ReadonlyMap<string, number> {
    return this.#pods.identities()
  }

  changePolicy(change: PolicyChange): void {
    this.#pods.changePolicy(change)
  }

  removePolicyEntries(keys: readonly PolicyKey[]): void {
    this.#pods.removePolicyEntries(keys)
  }

  policyEntries(): PolicyEntry[] {
    return this.#pods.policyEntries()
  }

  policyNetworks(): ReadonlyMap<string, number> {
    return this.#pods.policyNetworks()
  }

  endpointPolicies(): ReturnType<Datapath['endpointPolicies']> {
    return this.#pods.endpointPolicies()
  }

  flows(): Flow[] {
    return this.#pods.flows()
  }

  sweepFlows(): Promise<Swept> {
    return this.#pods.sweepFlows()
  }

  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void {
    this.#services.changeServices(upserts, removals)
  }

  services(): Service[] {
    return this.#services.services()
  }

  attachForServices(): Promise<void> {
    return this.#services.attachForServices()
  }

  hasBackend(backend: Backend): boolean {
    return this.#services.hasBackend(backend)
  }

  sweepTranslations(stale?: readonly StaleBackend[]): Promise<SweptTranslations> {
    return this.#services.sweepTranslations(stale)
  }

  translations(): Translation[] {
    return this.#services.translations()
  }

  setAddresses(addresses: readonly KnownAddress[]): void {
    this.#services.setAddresses(addresses)
  }

  knownAddresses(): KnownAddress[] {
    return this.#services.knownAddresses()
  }

  async setNodes(nodes: readonly NodeNetwork[]): Promise<void> {
    keepForwarding(this.#namespace)
    await this.#routes.set(nodes)
    await this.#routes.keepPods(this.#pods.addresses())
  }

  nodeRoutes(): Promise<ReadonlyMap<string, string>> {
    return this.#routes.list()
  }

  counters(): Counter[] {
    return readCounters(this.#counters)
  }

  keepFirst(): Promise<readonly Displaced[]> {
    const { objects, globals } = this.#probing
    return this.#attachments.keepFirst((spec) => loadAgain(objects, globals, this.#pinDir, spec))
  }

  async followNode(): Promise<NodeAddresses> {
    const { netlink, uplink, node, place, describe, encode } = this.#following
    const link = await netlink.link(uplink.name)
    if (link?.index !== uplink.index)
      throw new Error(`${uplink.name} has gone or is another device now: start the agent again`)
    const all = (await netlink.addresses()).map((cidr) => cidr.split('/')[0] ?? '')
    const described = await describe(link)
    const [before, now] = [node.nodeAddresses ?? [], described.nodeAddresses ?? []]
    if (before.join() === now.join() && node.uplinkMac === described.uplinkMac) return { all }
    const globals = encode(described)
    const { objects } = this.#probing
    const { programs } = load(objects, globals, this.#pinDir)
    for (const program of programs.values()) this.#held.use(program)
    this.#attachments.exchange(programs)
    await attachAll(this.#attachments, place)
    prunePrograms(objects, globals, this.#pinDir)
    this.#probing = { ...this.#probing, globals }
    this.#following = { ...this.#following, node: described }
    return { all, changed: { before, now } }
  }

  /** The attached programs once more, to be asked. The caller's to dispose. */
  openProbe(): Probe {
    return Probe.open(this.#probing)
  }

  /** One that is kept, for as long as the attached programs know what it knows. Loaded when first asked for: most nodes never are. */
  probe(): Probe {
    const { globals } = this.#probing
    if (this.#probe?.globals !== globals) {
      this.#probe?.probe[Symbol.dispose]()
      this.#probe = undefined
      this.#probe = { globals, probe: this.openProbe() }
    }
    return this.#probe.probe
  }

  /** Closes what this process has open; programs, maps and routes stay in force. */
  [Symbol.dispose](): void {
    this.#probe?.probe[Symbol.dispose]()
    this.#held.dispose()
  }
}
