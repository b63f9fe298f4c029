import type { Service } from '#api/gen/core-v1.ts'
import { nodes, pods, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatAddress, parseAddress } from '#base/net/address.ts'
import type { Client } from '#client/client.ts'
import { gateways } from '#gateway/objects.ts'
import { addressOf, type ClusterLayout } from '../cluster/layout.ts'

/** An end of the connection, as somebody named it. */
export interface End {
  readonly name: string
  readonly address: string
  /** Where it is, if it is in the cluster. */
  readonly node: string | undefined
  readonly kind: 'pod' | 'node' | 'service' | 'gateway' | 'address'
}

/** Where a Service's port is asked for, and the port's number there. */
export interface Place {
  readonly end: End
  readonly port: number
}

export interface Wanted {
  readonly ipv6: boolean
  readonly port: number
  readonly protocol: string
}

/** What the names of both ends stand for, by the API server's objects. */
export class Ends {
  readonly #client: Client
  readonly #layout: ClusterLayout
  readonly #wanted: Wanted

  constructor(client: Client, layout: ClusterLayout, wanted: Wanted) {
    this.#client = client
    this.#layout = layout
    this.#wanted = wanted
  }

  /** Who asks. Throws with the name and what is missing. */
  source(text: string): Promise<End> {
    return named(text, async () => {
      if (text === 'outside') {
        const address = this.#ofFamily(text, this.#layout.fabric.addresses.map(addressOf))
        return { name: text, address, node: undefined, kind: 'address' }
      }
      const found = await this.#object(text)
      if (found !== undefined && 'spec' in found)
        throw new Error(`${text} asks nobody: name a pod, a node, an address, or outside`)
      return found ?? this.#pod(text)
    })
  }

  /** Whom it asks. From outside a Service is asked for by its load balancer's address, its external IP, or at the port of `by`. */
  destination(text: string, from: End, by: string): Promise<Place> {
    return named(text, async () => {
      const { port } = this.#wanted
      const found = await this.#object(text)
      if (found === undefined) return { end: await this.#pod(text), port }
      if (!('spec' in found)) return { end: found, port }
      return from.kind === 'address' ? this.#fromOutside(found, by) : { end: this.#inside(found), port }
    })
  }

  /** The node whose pod or which itself has the address. */
  async nodeOf(address: string): Promise<string | undefined> {
    const [pod] = await this.#podsAt(address)
    return pod?.spec.nodeName ?? (await this.#nodeAt(address))
  }

  async node(name: string): Promise<End> {
    const node = await this.#client.get(nodes, { name })
    const addresses = (node.status.addresses ?? []).filter((a) => a.type === 'InternalIP').map((a) => a.address)
    const text = `node/${name}`
    return { name: text, address: this.#ofFamily(text, addresses), node: node.metadata.name, kind: 'node' }
  }

  /** What is said with its kind, and addresses; undefined for the rest, which are pods. */
  async #object(text: string): Promise<End | Service | undefined> {
    const [kind = '', ...rest] = text.split('/')
    if (kind === 'node' && rest.length === 1) return this.node(rest[0] ?? '')
    if (kind === 'svc' || kind === 'service' || kind === 'services') return this.#client.get(services, keyOf(rest))
    if (kind === 'gateway' || kind === 'gateways' || kind === 'gtw') return this.#gateway(rest)
    const address = parseAddress(text)
    return address === undefined ? undefined : this.#address(formatAddress(address))
  }

  async #address(address: string): Promise<End> {
    const [pod] = await this.#podsAt(address)
    if (pod !== undefined) return { name: address, address, node: pod.spec.nodeName, kind: 'pod' }
    const node = await this.#nodeAt(address)
    return { name: address, address, node, kind: node === undefined ? 'address' : 'node' }
  }

  async #gateway(rest: readonly string[]): Promise<End> {
    const { namespace, name } = keyOf(rest)
    const { status } = await this.#client.get(gateways, { namespace, name })
    const text = `gateway/${namespace}/${name}`
    const addresses = (status?.addresses ?? []).flatMap(({ value }) => value ?? [])
    return { name: text, address: this.#ofFamily(text, addresses), node: undefined, kind: 'gateway' }
  }

  /** [namespace/]pod, or a node where there is no such pod in the namespace `default`. */
  async #pod(text: string): Promise<End> {
    const { namespace, name } = keyOf(text.split('/'))
    try {
      const pod = await this.#client.get(pods, { namespace, name })
      const addresses = (pod.status.podIPs ?? []).map(({ ip }) => ip)
      const end = { name: `${namespace}/${name}`, address: this.#ofFamily(text, addresses), node: pod.spec.nodeName }
      return { ...end, kind: pod.spec.hostNetwork === true ? 'node' : 'pod' }
    } catch (error) {
      if (!isStatus(error, 'NotFound') || text.includes('/')) throw error
      return this.node(text).catch(() => {
        throw error
      })
    }
  }

  #inside(service: Service): End {
    const text = nameOf(service)
    const { clusterIPs = [], type } = service.spec
    const addresses = clusterIPs.filter((address) => address !== 'None')
    if (addresses.length === 0)
      throw new Error(
        `${text} has no address of its own (${type === 'ExternalName' ? type : 'headless'}): name one of its pods`,
      )
    return { name: text, address: this.#ofFamily(text, addresses), node: undefined, kind: 'service' }
  }

  async #fromOutside(service: Service, by: string): Promise<Place> {
    const { ipv6, port, protocol } = this.#wanted
    const text = nameOf(service)
    const balanced = (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip]))
    const address = [...balanced, ...(service.spec.externalIPs ?? [])].find((ip) => ip.includes(':') === ipv6)
    if (address !== undefined) return { end: { name: text, address, node: undefined, kind: 'service' }, port }
    const nodePort = (service.spec.ports ?? []).find(
      (p) => p.port === port && (p.protocol ?? 'TCP') === protocol,
    )?.nodePort
    // Its cluster address is then all that there is to ask for, and refused from there.
    if (nodePort === undefined) return { end: this.#inside(service), port }
    const node = await this.node(by)
    return { end: { name: text, address: node.address, node: node.node, kind: 'node' }, port: nodePort }
  }

  #ofFamily(text: string, addresses: readonly string[]): string {
    const { ipv6 } = this.#wanted
    const found = addresses.find((a) => a.includes(':') === ipv6)
    if (found === undefined)
      throw new Error(
        `${text} has no ${ipv6 ? 'IPv6' : 'IPv4'} address${addresses.length > 0 ? `, only ${addresses.join(' ')}` : ''}`,
      )
    return found
  }

  async #podsAt(address: string) {
    const { items } = await this.#client.list(pods)
    return items.filter(
      ({ spec, status }) =>
        spec.hostNetwork !== true &&
        status.phase !== 'Succeeded' &&
        status.phase !== 'Failed' &&
        status.podIPs?.some(({ ip }) => ip === address),
    )
  }

  async #nodeAt(address: string): Promise<string | undefined> {
    const { items } = await this.#client.list(nodes)
    return items.find(({ status }) => status.addresses?.some((a) => a.address === address))?.metadata.name
  }
}

const nameOf = ({ metadata }: Service): string => `svc/${metadata.namespace}/${metadata.name}`

/** `[namespace/]name`. */
function keyOf(parts: readonly string[]): { readonly namespace: string; readonly name: string } {
  const [first = '', second] = parts
  return second === undefined
    ? { namespace: 'default', name: first }
    : { namespace: first, name: parts.slice(1).join('/') }
}

async function named<T>(text: string, find: () => Promise<T>): Promise<T> {
  try {
    return await find()
  } catch (error) {
    if (isStatus(error, 'NotFound')) throw new Error(`${text}: ${error.message}`, { cause: error })
    throw error
  }
}
