import { Compiler, type Round } from '#agent/policy/compile.ts'
import { parsePolicy } from '#agent/policy/parse.ts'
import { reflectService } from '#agent/services/reflect.ts'
import { formatCidr } from '#base/net/address.ts'
import type { Service as ServiceRow } from '#datapath/datapath.ts'
import { AddressMap, addressesMap } from '#datapath/maps/addresses.ts'
import { EndpointMap, endpointsMap } from '#datapath/maps/endpoints.ts'
import { decodeTuple, encodeTuple } from '#datapath/maps/flows.ts'
import { IdentityMap, identities, identitiesMap, ownerNumber } from '#datapath/maps/identities.ts'
import { networksMap, PolicyMaps, policyMap, policyStateMap, setNotReady } from '#datapath/maps/policy.ts'
import { membersMap, sourceRangesMap } from '#datapath/maps/service-extras.ts'
import { backendsMap, frontendsMap, ServiceMaps, slotsMap } from '#datapath/maps/services.ts'
import { runSyscallNow } from '#kernel/bpf/program.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { type Cluster, type Endpoint, type NetworkPolicy, nameOf, type Pod, type Service } from '../cluster.ts'
import type { Tuple } from '../packet.ts'
import type { Change } from '../scenario.ts'
import { apiPolicy, apiService, containerPorts, slicesOf } from './api-objects.ts'
import { age, forget, sweep } from './memory.ts'
import type { Programs } from './programs.ts'
import type { World } from './world.ts'

export const podMac = (pod: Pod): Buffer => parseMac(`02:00:00:01:00:${lastByte(pod)}`)
const lastByte = (pod: Pod): string =>
  Number(pod.addresses[0]?.split('.')[3] ?? 0)
    .toString(16)
    .padStart(2, '0')

/** As the helpers for tunnels have it. */
export const ipv4Number = (address: string): number => encodeIpv4(address).readUInt32BE()
const encodeIpv4 = (address: string): Buffer => Buffer.from(address.split('.').map(Number))

/** Numbers of identities by what stands behind them: the same on every node. */
export class IdentityNumbers {
  readonly #numbers = new Map<string, number>()

  of(key: string): number {
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    const number = identities.first + this.#numbers.size
    this.#numbers.set(key, number)
    return number
  }

  clear(): void {
    this.#numbers.clear()
  }
}

/**
 * The cluster's objects in the programs' maps, brought there as the agent brings them: the real compiler of policies, the real
 * codecs, entries written in the agent's order.
 */
export class ClusterMaps {
  /** What backends that are going are counted by. */
  readonly clock = { ms: 0 }
  readonly #world: World
  readonly #programs: Programs
  readonly #endpoints: EndpointMap
  readonly #identities: IdentityMap
  readonly #policy: PolicyMaps
  #compiler = new Compiler()
  #services: ServiceMaps | undefined
  #rows = new Map<string, readonly ServiceRow[]>()
  #backends = new Map<number, string>()
  readonly #numbers: IdentityNumbers
  /** Identities that the compiler has been told of. */
  #known = new Set<number>()
  #cluster: Cluster | undefined
  #uids = 0

  /** `numbers`: of the whole cluster, where it has other nodes. */
  constructor(world: World, programs: Programs, numbers = new IdentityNumbers()) {
    this.#numbers = numbers
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

  get cluster(): Cluster | undefined {
    return this.#cluster
  }

  get isTunnelled(): boolean {
    return this.#cluster?.isTunnelled === true
  }

  /** As if nothing had ever been written. */
  reset(): void {
    forget(this.#programs)
    // The programs remember what was so in an epoch: there is none twice.
    this.#policy.state = { epoch: this.#policy.state.epoch + 1, networks: 0 }
    this.#compiler = new Compiler()
    this.#numbers.clear()
    this.#known = new Set()
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
      () => this.clock.ms,
    )
  }

  #setService(name: string, service: Service | undefined): void {
    const before = this.#rows.get(name) ?? []
    const rows =
      service === undefined
        ? []
        : reflectService(apiService(service), slicesOf(service), {
            nodeName: this.#world.node,
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
      addresses.map((address) => ({ address, kind: name === this.#world.node ? ('own' as const) : ('node' as const) })),
    )
    const virtual = [...(this.#cluster?.services.values() ?? [])].flatMap(({ ingressIPs = [] }) =>
      ingressIPs.map((address) => ({ address, kind: 'virtual' as const, isAnnounced: true })),
    )
    const external = [...(this.#cluster?.services.values() ?? [])].flatMap(({ externalIPs = [] }) =>
      externalIPs.map((address) => ({ address, kind: 'external' as const })),
    )
    new AddressMap(this.#programs.map(addressesMap)).set([...virtual, ...external, ...nodes])
  }

  /** Whether the programs know this backend by that number. */
  isBackend(number: number, { address, port }: Endpoint): boolean {
    return this.#backends.get(number) === `${address} ${port}`
  }

  /** The change, and the cluster after it. */
  change(change: Change, cluster: Cluster): void {
    const before = this.#cluster
    this.#cluster = cluster
    switch (change.do) {
      case 'node': {
        const { name, addresses } = change.node
        const own = name === this.#world.node
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
      const parsed = parsePolicy(apiPolicy(policy, `uid-${++this.#uids}`))
      if (!('policy' in parsed)) throw new Error(`the policy was refused: ${JSON.stringify(parsed.problems)}`)
      this.#compiler.setPolicy(name, parsed.policy)
    }
    this.#round()
  }

  #setPod(pod: Pod): void {
    const key = JSON.stringify([pod.namespace, Object.entries(pod.labels).sort(), pod.ports])
    const identity = this.#numbers.of(key)
    if (!this.#known.has(identity)) {
      this.#known.add(identity)
      this.#compiler.shared.setIdentity(identity, {
        namespace: pod.namespace,
        labels: pod.labels,
        ports: containerPorts(pod),
      })
    }
    const name = nameOf(pod)
    if (pod.node !== this.#world.node) {
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
        ports: containerPorts(pod),
      })
    const round = this.#compiler.round()
    if (round !== undefined) this.#write(round)
    const sets = unready
      ? { ingress: setNotReady, egress: setNotReady }
      : (round?.endpoints.get(name) ?? this.#compiler.numbersOf(name) ?? { ingress: 0, egress: 0 })
    const ifindex = this.#world.devices.get(pod.addresses[0] ?? '')
    if (ifindex === undefined)
      throw new RangeError(`${name} has no device: ${pod.addresses.join()} is no slot of ${this.#world.node}`)
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
    if (pod.node === this.#world.node) {
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
    const tunnel = node > 0 && this.isTunnelled ? this.#cluster?.nodes.get(`node-${node}`)?.addresses[0] : undefined
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

  /** The number that goes with a packet as that of this pod, of a node, or of nobody. */
  claimed(as: string): number {
    const pod = this.#cluster?.pods.get(as)
    if (pod !== undefined) return this.identityOf(pod)
    return as === 'node' ? identities.remoteNode : Number(as) || 0
  }

  /** What a connection goes on as; undefined: it is not translated. */
  translation(question: Tuple): Tuple | undefined {
    const value = this.#programs.map('translations_v1').lookup(encodeTuple(question))
    return value === undefined ? undefined : decodeTuple(value)
  }

  /** As after so many ms in which nothing came. */
  age(ms: number): void {
    age(this.#programs, ms)
  }

  sweep(now: number): void {
    sweep(this.#programs, now)
  }

  /** `team-a/web spec.ingress[0].from[1]`; undefined for 0 and for what no rule has. */
  ruleText(rule: number): string | undefined {
    const source = this.#compiler.rules.source(rule)
    return source === undefined ? undefined : `${source.policy.key} ${source.path}`
  }
}

/** Number of an endpoint, by its slot. */
const shareOf = (pod: Pod): number => Number(pod.addresses[0]?.split('.')[3] ?? 0)
