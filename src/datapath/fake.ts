import {
  type Datapath,
  type Endpoint,
  type Frontend,
  frontendName,
  type NodeNetwork,
  type Service,
} from './datapath.ts'
import { type Counter, directions, reasons } from './maps/counters.ts'

/** What stays when an agent ends: hand the same one to the next fake, as a kernel would. */
export class FakeKernel {
  readonly addresses = new Map<string, { readonly ifindex: number; readonly mac: string }>()
  /** Programs attached, by sandbox. */
  readonly attached = new Map<string, number>()
  readonly services = new Map<string, Service>()
  readonly routes = new Map<string, string>()
}

/** The datapath in memory, with the same promises as the real one. */
export class FakeDatapath implements Datapath {
  readonly kernel: FakeKernel

  constructor(kernel = new FakeKernel()) {
    this.kernel = kernel
  }

  async upsertEndpoint({ id, addresses, ifindex, mac }: Endpoint): Promise<void> {
    for (const address of addresses) this.kernel.addresses.set(address, { ifindex, mac })
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

  changeServices(upserts: readonly Service[], removals: readonly Frontend[]): void {
    for (const service of upserts) this.kernel.services.set(frontendName(service.frontend), service)
    for (const frontend of removals) this.kernel.services.delete(frontendName(frontend))
  }

  services(): Service[] {
    return [...this.kernel.services.values()]
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

  [Symbol.dispose](): void {}
}
