import type { Service, ServicePort, ServiceSpec } from '#api/gen/core-v1.ts'
import { services } from '#api/gen/resources.ts'
import { type FieldError, fieldError, internalError, invalid } from '#api/meta/status.ts'
import { formatAddress, parseAddress, parseCidr } from '#base/net/address.ts'
import type { Registry } from '../step.ts'
import { type Family, isHeadless, settleFamilies, takesAddresses } from './families.ts'
import { Ownership } from './ownership.ts'
import { AddressRange, type PortRange, Ports } from './ranges.ts'

export interface ServiceAllocatorOptions {
  /** One network, or one of each family; the first is the cluster's primary family. */
  readonly cidrs: readonly string[]
  readonly nodePorts: PortRange
}

/** What a write took that it did not have; given back when the write fails. */
export interface Reservation {
  release(): void
}

/**
 * Cluster addresses and node ports. What is taken is what the Services in the registry say, plus what writes on their way
 * have reserved; so a crash leaks nothing and a repair is a restart.
 */
export class ServiceAllocator {
  readonly families: readonly Family[]
  readonly #addresses = new Ownership<string>()
  readonly #ranges: ReadonlyMap<Family, AddressRange>
  readonly #ports: Ports

  constructor(registry: Registry, { cidrs, nodePorts }: ServiceAllocatorOptions) {
    const ranges = cidrs.map((text): [Family, AddressRange] => {
      const cidr = parseCidr(text)
      if (cidr === undefined) throw new Error(`Cannot use ${JSON.stringify(text)} as service network: not a CIDR`)
      return [
        cidr.family === 4 ? 'IPv4' : 'IPv6',
        new AddressRange(cidr, this.#addresses, { reserved: 1, banded: true }),
      ]
    })
    this.families = ranges.map(([family]) => family)
    this.#ranges = new Map(ranges)
    this.#ports = new Ports(nodePorts)
    // The first address is the API server's own Service, also before that exists.
    for (const [, { cidr }] of ranges) {
      this.#addresses.claim(formatAddress({ family: cidr.family, value: cidr.base + 1n }), 'default/kubernetes')
    }
    for (const service of registry.list(services)) this.#take(service)
    registry.onChange(services, (next, old) => {
      if (old) this.#giveBack(old, next)
      if (next) this.#take(next)
    })
  }

  /** Fills in families, addresses and ports, in place. Throws Invalid or InternalError, having kept nothing. */
  reserve(next: Service, old: Service | undefined): Reservation {
    const owner = ownerOf(next)
    const taken: (() => void)[] = []
    const release = () => {
      for (const undo of taken.splice(0)) undo()
    }
    try {
      if (old) dropWhatTheTypeHasNot(next.spec, old.spec)
      const errors = settleFamilies(next, old, this.families)
      if (errors.length > 0) throw invalid('', 'Service', next.metadata.name, errors)
      this.#reserveAddresses(next, owner, taken)
      this.#reservePorts(next, old, owner, taken)
    } catch (error) {
      release()
      throw error
    }
    return { release }
  }

  #reserveAddresses(service: Service, owner: string, taken: (() => void)[]): void {
    const { spec } = service
    if (!takesAddresses(spec) || isHeadless(spec)) return
    const addresses = (spec.clusterIPs ?? []).map(canonical)
    // Named ones first: an automatic choice must not take what the same Service names.
    for (const address of addresses) {
      const why = this.#claimAddress(address, owner, taken)
      if (why === undefined) continue
      const words = `failed to allocate IP ${address}: ${why}`
      throw invalid('', 'Service', service.metadata.name, [
        fieldError.invalid('spec.clusterIPs', spec.clusterIPs, words),
      ])
    }
    for (const family of (spec.ipFamilies ?? []).slice(addresses.length)) {
      const address = this.#ranges.get(family as Family)?.take(owner)
      if (address === undefined) throw internalError('failed to allocate a serviceIP: range is full')
      taken.push(() => this.#addresses.release(address, owner))
      addresses.push(address)
    }
    spec.clusterIPs = addresses
    if (addresses[0] !== undefined) spec.clusterIP = addresses[0]
  }

  /** Why the address cannot be had; undefined when it now is this owner's. */
  #claimAddress(address: string, owner: string, taken: (() => void)[]): string | undefined {
    const range = [...this.#ranges.values()].find((r) => r.cidr.family === parseAddress(address)?.family)
    if (!range?.contains(address)) {
      return `the provided IP (${address}) is not in the valid range. The range of valid IPs is ${range?.text ?? 'empty'}`
    }
    switch (this.#addresses.claim(address, owner)) {
      case 'taken':
        return 'provided IP is already allocated'
      case 'new':
        taken.push(() => this.#addresses.release(address, owner))
        return undefined
      case 'kept':
        return undefined
    }
  }

  #reservePorts(service: Service, old: Service | undefined, owner: string, taken: (() => void)[]): void {
    const { spec } = service
    if (!takesPorts(spec)) return
    if (old && takesPorts(old.spec)) inheritPorts(spec, old.spec)
    const claim = (port: number, path: string): void => {
      const error = this.#claimPort(port, path, owner, taken)
      if (error) throw invalid('', 'Service', service.metadata.name, [error])
    }
    const ports = spec.ports ?? []
    ports.forEach((p, i) => {
      if (p.nodePort) claim(p.nodePort, `spec.ports[${i}].nodePort`)
    })
    for (const p of ports) p.nodePort ||= this.#sibling(p, ports) ?? this.#takePort(owner, taken)
    if (!needsHealthPort(spec)) return
    if (spec.healthCheckNodePort) claim(spec.healthCheckNodePort, 'spec.healthCheckNodePort')
    else spec.healthCheckNodePort = this.#takePort(owner, taken)
  }

  /** TCP and UDP of one port (DNS) get one node port. */
  #sibling(port: ServicePort, ports: readonly ServicePort[]): number | undefined {
    const { protocol = 'TCP' } = port
    return ports.find((p) => p.port === port.port && (p.protocol ?? 'TCP') !== protocol && p.nodePort)?.nodePort
  }

  #takePort(owner: string, taken: (() => void)[]): number {
    const port = this.#ports.take(owner)
    if (port === undefined) throw internalError('failed to allocate a nodePort: range is full')
    taken.push(() => this.#ports.owners.release(port, owner))
    return port
  }

  #claimPort(port: number, path: string, owner: string, taken: (() => void)[]): FieldError | undefined {
    if (!this.#ports.contains(port)) {
      const { first, last } = this.#ports.range
      const words = `provided port is not in the valid range. The range of valid ports is ${first}-${last}`
      return fieldError.invalid(path, port, words)
    }
    switch (this.#ports.owners.claim(port, owner)) {
      case 'taken':
        return fieldError.invalid(path, port, 'provided port is already allocated')
      case 'new':
        taken.push(() => this.#ports.owners.release(port, owner))
        return undefined
      case 'kept':
        return undefined
    }
  }

  #take(service: Service): void {
    const owner = ownerOf(service)
    for (const address of addressesOf(service)) this.#addresses.claim(address, owner)
    for (const port of portsOf(service)) this.#ports.owners.claim(port, owner)
  }

  #giveBack(old: Service, next: Service | undefined): void {
    const owner = ownerOf(old)
    const addresses = new Set(next ? addressesOf(next) : [])
    const ports = new Set(next ? portsOf(next) : [])
    for (const address of addressesOf(old)) if (!addresses.has(address)) this.#addresses.release(address, owner)
    for (const port of portsOf(old)) if (!ports.has(port)) this.#ports.owners.release(port, owner)
  }
}

const ownerOf = ({ metadata }: Service): string => `${metadata.namespace}/${metadata.name}`

function canonical(text: string): string {
  const address = parseAddress(text)
  return address ? formatAddress(address) : text
}

function addressesOf({ spec }: Service): string[] {
  if (!takesAddresses(spec) || isHeadless(spec)) return []
  return (spec.clusterIPs ?? []).map(canonical)
}

function portsOf({ spec }: Service): number[] {
  const health = needsHealthPort(spec) ? [spec.healthCheckNodePort] : []
  const ports = takesPorts(spec) ? (spec.ports ?? []).map((p) => p.nodePort) : []
  return [...ports, ...health].filter((port): port is number => port !== undefined && port !== 0)
}

const takesPorts = (spec: ServiceSpec): boolean =>
  spec.type === 'NodePort' ||
  (spec.type === 'LoadBalancer' &&
    (spec.allocateLoadBalancerNodePorts !== false || (spec.ports ?? []).some((p) => p.nodePort)))

const needsHealthPort = (spec: ServiceSpec): boolean =>
  spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local'

/** Reached from outside the cluster. */
const isExposed = ({ type, externalIPs }: ServiceSpec): boolean =>
  type === 'NodePort' || type === 'LoadBalancer' || (type === 'ClusterIP' && (externalIPs?.length ?? 0) > 0)

/** A change of type leaves behind what the old type had and the client did not touch. */
function dropWhatTheTypeHasNot(spec: ServiceSpec, old: ServiceSpec): void {
  const same = (field: keyof ServiceSpec): boolean => JSON.stringify(spec[field]) === JSON.stringify(old[field])
  if (takesAddresses(old) && !takesAddresses(spec)) {
    if (same('clusterIP')) delete spec.clusterIP
    for (const field of ['clusterIPs', 'ipFamilies', 'ipFamilyPolicy'] as const) if (same(field)) delete spec[field]
  }
  if (takesPorts(old) && (spec.type === 'ClusterIP' || spec.type === 'ExternalName')) {
    const before = new Set((old.ports ?? []).map((p) => p.nodePort))
    for (const port of spec.ports ?? []) if (before.has(port.nodePort)) delete port.nodePort
  }
  if (needsHealthPort(old) && !needsHealthPort(spec) && same('healthCheckNodePort')) delete spec.healthCheckNodePort
  if (isExposed(old) && !isExposed(spec) && same('externalTrafficPolicy')) delete spec.externalTrafficPolicy
  if (old.type === 'LoadBalancer' && spec.type !== 'LoadBalancer') {
    for (const field of ['allocateLoadBalancerNodePorts', 'loadBalancerClass'] as const)
      if (same(field)) delete spec[field]
  }
}

/** On update a port that the client left open keeps its node port. */
function inheritPorts(spec: ServiceSpec, old: ServiceSpec): void {
  const key = ({ protocol = 'TCP', port }: ServicePort): string => `${protocol}/${port}`
  const used = new Set((spec.ports ?? []).map((p) => p.nodePort))
  const before = new Map((old.ports ?? []).map((p) => [key(p), p.nodePort]))
  for (const port of spec.ports ?? []) {
    const nodePort = before.get(key(port))
    if (!port.nodePort && nodePort && !used.has(nodePort)) port.nodePort = nodePort
  }
  if (needsHealthPort(spec) && !spec.healthCheckNodePort && old.healthCheckNodePort) {
    spec.healthCheckNodePort = old.healthCheckNodePort
  }
}
