import type { Displaced } from './attach.ts'
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
import { type Backend, type Frontend, frontendName } from './frontend.ts'
import { type Counter, directions, reasons } from './maps/counters.ts'
import type { Flow, Swept } from './maps/flows.ts'
import type { PolicyEntry, PolicyKey } from './maps/policy.ts'
import type { StaleBackend, SweptTranslations, Translation } from './maps/translations.ts'

interface FakeEndpoint {
  readonly ifindex: number
  readonly mac: string
  readonly owner: string
  readonly identity: number
  readonly egressSet: number
  readonly ingressSet: number
}

/** Same element, same text. */
const policyName = ({ set, peer, protocol, port, portBits }: PolicyKey): string =>
  [set, peer, protocol ?? '*', port, portBits].join(' ')

/** What stays when an agent ends: hand the same one to the next fake, as a kernel would. */
export class FakeKernel {
  readonly addresses = new Map<string, FakeEndpoint>()
  /** Programs attached, by sandbox. */
  readonly attached = new Map<string, number>()
  readonly services = new Map<string, Service>()
  readonly knownAddresses = new Map<string, KnownAddress>()
  readonly stale: StaleBackend[] = []
  readonly routes = new Map<string, string>()
  readonly identities = new Map<string, AddressIdentity>()
  readonly policy = new Map<string, PolicyEntry>()
  readonly networks = new Map<string, number>()
  /** On the uplink, and as the programs were told of them. */
  ownAddresses: readonly string[] = []
  told: readonly string[] = []
  /** Programs of others that are in front of ours. */
  readonly displaced: Displaced[] = []
  /** Raised once a change. */
  epoch = 0
}

/** The datapath in memory, with the same promises as the real one. */
export class FakeDatapath implements Datapath {
  readonly kernel: FakeKernel

  constructor(kernel = new FakeKernel()) {
    this.kernel = kernel
  }

  async upsertEndpoint(endpoint: Endpoint): Promise<void> {
    const { id, addresses, ifindex, mac, owner = id } = endpoint
    for (const address of addresses) {
      const found = this.kernel.addresses.get(address)
      const known = found?.owner === owner ? found : undefined
      const { identity = known?.identity ?? 0 } = endpoint
      const { egressSet = known?.egressSet ?? 0, ingressSet = known?.ingressSet ?? 0 } = endpoint
      this.kernel.addresses.set(address, { ifindex, mac, owner, identity, egressSet, ingressSet })
    }
    this.kernel.epoch++
    this.kernel.attached.set(id, ifindex)
  }

  removeEndpoint({ id, addresses, ifindex }: Pick<Endpoint, 'id' | 'addresses' | 'ifindex'>): void {
    for (const address of addresses)
      if (this.kernel.addresses.get(address)?.ifindex === ifindex) this.kernel.addresses.delete(address)
    this.kernel.attached.delete(id)
  }

  addresses(): ReadonlyMap<string, number> {
    return new Map([...this.kernel.addresses].map(([address, { ifindex }]) => [address, ifindex]))
  }

  pruneEndpoints(endpoints: readonly Endpoint[]): string[] {
    const wanted = new Set(endpoints.flatMap(({ addresses, ifindex }) => addresses.map((a) => `${a} ${ifindex}`)))
    const ids = new Set(endpoints.map((e) => e.id))
    const addresses = [...this.kernel.addresses].filter(([a, { ifindex }]) => !wanted.has(`${a} ${ifindex}`))
    const links = [...this.kernel.attached.keys()].filter((id) => !ids.has(id))
    for (const [address] of addresses) this.kernel.addresses.delete(address)
    for (const id of links) this.kernel.attached.delete(id)
    return [...addresses.map(([a]) => a), ...links]
  }

  upsertIdentities(entries: readonly AddressIdentity[]): void {
    for (const entry of entries) this.kernel.identities.set(entry.address, entry)
    this.kernel.epoch++
  }

  removeIdentities(addresses: readonly string[]): void {
    for (const address of addresses) this.kernel.identities.delete(address)
    this.kernel.epoch++
  }

  identities(): ReadonlyMap<string, number> {
    return new Map([...this.kernel.identities].map(([address, { identity }]) => [address, identity]))
  }

  changePolicy({ entries = [], networks = new Map(), removedNetworks = [], endpoints = [] }: PolicyChange): void {
    for (const entry of entries) this.kernel.policy.set(policyName(entry), entry)
    for (const [cidr, number] of networks) this.kernel.networks.set(cidr, number)
    for (const { addresses, ...change } of endpoints) {
      for (const address of addresses) {
        const known = this.kernel.addresses.get(address)
        if (known !== undefined) this.kernel.addresses.set(address, { ...known, ...change })
      }
    }
    for (const cidr of removedNetworks) this.kernel.networks.delete(cidr)
    this.kernel.epoch++
  }

  removePolicyEntries(keys: readonly PolicyKey[]): void {
    for (const key of keys) this.kernel.policy.delete(policyName(key))
  }

  policyEntries(): PolicyEntry[] {
    return [...this.kernel.policy.values()]
  }

  policyNetworks(): ReadonlyMap<string, number> {
    return new Map(this.kernel.networks)
  }

  endpointPolicies(): ReadonlyMap<string, { readonly egressSet: number; readonly ingressSet: number }> {
    return new Map(
      [...this.kernel.addresses].map(([address, { egressSet, ingressSet }]) => [address, { egressSet, ingressSet }]),
    )
  }

  /** Nothing ever travels here. */
  flows(): Flow[] {
    return []
  }

  async sweepFlows(): Promise<Swept> {
    return { kept: 0, removed: 0 }
  }

  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void {
    for (const service of upserts) this.kernel.services.set(frontendName(service.frontend), service)
    for (const frontend of removals) this.kernel.services.delete(frontendName(frontend))
  }

  services(): Service[] {
    return [...this.kernel.services.values()]
  }

  async attachForServices(): Promise<void> {}

  hasBackend(backend: Backend): boolean {
    const name = frontendName(backend)
    return this.services().some((s) =>
      [...s.backends, ...(s.outside?.backends ?? [])].some((b) => frontendName(b) === name),
    )
  }

  /** Nothing is ever translated here: what was asked for is kept, for tests to see. */
  async sweepTranslations(stale: readonly StaleBackend[] = []): Promise<SweptTranslations> {
    this.kernel.stale.push(...stale)
    return { kept: 0, removed: 0 }
  }

  translations(): Translation[] {
    return []
  }

  setAddresses(addresses: readonly KnownAddress[]): void {
    this.kernel.knownAddresses.clear()
    for (const known of addresses) this.kernel.knownAddresses.set(known.address, known)
  }

  knownAddresses(): KnownAddress[] {
    return [...this.kernel.knownAddresses.values()]
  }

  async setNodes(nodes: readonly NodeNetwork[]): Promise<void> {
    this.kernel.routes.clear()
    for (const { podCidrs, via } of nodes) {
      for (const cidr of podCidrs) {
        const gateway = via?.find((address) => address.includes(':') === cidr.includes(':'))
        if (via === undefined || gateway !== undefined) this.kernel.routes.set(cidr, gateway ?? '')
      }
    }
  }

  async nodeRoutes(): Promise<ReadonlyMap<string, string>> {
    return new Map(this.kernel.routes)
  }

  /** Nothing ever travels here. */
  counters(): Counter[] {
    return reasons.flatMap((reason) => directions.map((direction) => ({ reason, direction, packets: 0, bytes: 0 })))
  }

  async followNode(): Promise<NodeAddresses> {
    const [before, now] = [this.kernel.told, [...this.kernel.ownAddresses]]
    this.kernel.told = now
    return before.join() === now.join() ? { all: now } : { all: now, changed: { before, now } }
  }

  /** Who is in the way is asked for once. */
  async keepFirst(): Promise<readonly Displaced[]> {
    return this.kernel.displaced.splice(0)
  }

  [Symbol.dispose](): void {}
}
