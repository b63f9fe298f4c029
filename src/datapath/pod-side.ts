import type { BpfMap } from '#kernel/bpf/map.ts'
import { type Program, runSyscall } from '#kernel/bpf/program.ts'
import type { Attachments } from './attach.ts'
import type { AddressIdentity, Endpoint, PolicyChange } from './datapath.ts'
import { EndpointMap, endpointsMap, takeOverEndpoints } from './maps/endpoints.ts'
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

/** Pods as the programs know them: this node's endpoints, everybody's identity, policies, and the flows that they allowed. */
export class PodSide {
  readonly #attachments: Attachments
  readonly #sweeper: Program
  readonly #endpoints: EndpointMap
  readonly #identities: IdentityMap
  readonly #policy: PolicyMaps
  readonly #flows: BpfMap
  readonly #embryonic: BpfMap
  readonly #shares: BpfMap

  /** `open` gives a map by its name; it stays its giver's. */
  constructor(open: (name: string) => BpfMap, attachments: Attachments, sweeper: Program) {
    this.#attachments = attachments
    this.#sweeper = sweeper
    this.#endpoints = new EndpointMap(open(endpointsMap))
    this.#identities = new IdentityMap(open(identitiesMap))
    this.#policy = new PolicyMaps({ policy: open(policyMap), networks: open(networksMap), state: open(policyStateMap) })
    this.#flows = open(flowsMap)
    this.#embryonic = open(embryonicMap)
    this.#shares = open(sharesMap)
  }

  /** What an earlier version left in its own layout. Returns their addresses. */
  takeOver(before: BpfMap): string[] {
    const taken = takeOverEndpoints(before, this.#endpoints)
    if (taken.length > 0) this.#raiseEpoch()
    return taken
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
    const removed = addresses.filter((address) => this.#endpoints.removeOf(address, ifindex))
    if (removed.length > 0) this.#raiseEpoch()
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
    if (gone.length > 0) this.#raiseEpoch()
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
    if (networks.size > 0) this.#policy.state = { ...this.#policy.state, networks: this.#policy.networkCount }
    for (const { addresses, ...change } of endpoints) {
      for (const address of addresses) {
        const known = this.#endpoints.get(address)
        if (known !== undefined) this.#endpoints.set(address, { ...known, ...defined(change) })
      }
    }
    for (const cidr of removedNetworks) this.#policy.removeNetwork(cidr)
    if (removedNetworks.length > 0) this.#policy.state = { ...this.#policy.state, networks: this.#policy.networkCount }
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
    return decodeSweep(await runSyscall(this.#sweeper, encodeSweep(endpoint)))
  }

  /** After everything else of a change is written: each flow is judged again, and who had which address is forgotten. */
  #raiseEpoch(): void {
    const state = this.#policy.state
    this.#policy.state = { ...state, epoch: (state.epoch + 1) >>> 0 }
  }
}

/** Without the fields that are absent: they stay as they are. */
const defined = <T extends object>(change: T): Partial<T> =>
  Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined)) as Partial<T>
