import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import { endpointSlices, nodes, pods, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatAddress, parseAddress } from '#base/net/address.ts'
import type { Client } from '#client/client.ts'
import { gateways } from '#gateway/objects.ts'
import { addressOf, type ClusterLayout } from '../cluster/layout.ts'
import { parseName, type WantedPort } from './words.ts'

/** An end of the connection, as somebody named it. */
export interface End {
  readonly name: string
  readonly address: string
  /** Where it is, if it is in the cluster. */
  readonly node: string | undefined
  readonly kind: 'pod' | 'node' | 'service' | 'gateway' | 'address'
}

/** Where somebody is asked for, and the port's number there. */
export interface Place {
  readonly end: End
  readonly port: number
  readonly protocol: string
  /** A Service of that name. */
  readonly service: Service | undefined
  /** Who is asked for in the place of `end`: a headless Service's name leads to its pods. */
  readonly instead: readonly End[] | undefined
  readonly notes: readonly string[]
}

export interface Wanted extends WantedPort {
  readonly ipv6: boolean
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
  async source(text: string): Promise<End> {
    const found = await this.#find(text)
    if ('service' in found) throw new Error(`${text} asks nobody: name a pod, a node, an address, or outside`)
    return found.end
  }

  /** Whom it asks. From outside a Service is asked for by its load balancer's address, its external IP, or at the port of `by`. */
  async destination(text: string, from: End, by: string): Promise<Place> {
    const found = await this.#find(text)
    if ('service' in found) {
      const { service } = found
      const asked = this.#portOf(text, namedPorts(service))
      return from.kind === 'address' ? this.#fromOutside(service, by, asked) : this.#inside(service, asked)
    }
    const asked = this.#portOf(text, found.pod === undefined ? [] : containerPorts(found.pod))
    return { ...found, ...asked, service: undefined, instead: undefined, notes: [] }
  }

  /** The node whose pod or which itself has the address. */
  async nodeOf(address: string): Promise<string | undefined> {
    const [pod] = await this.#podsAt(address)
    return pod?.spec.nodeName ?? (await this.#nodeAt(address))
  }

  async #node(name: string): Promise<End> {
    const node = await this.#client.get(nodes, { name })
    const addresses = (node.status.addresses ?? []).filter((a) => a.type === 'InternalIP').map((a) => a.address)
    const text = `node/${name}`
    return { name: text, address: this.#ofFamily(text, addresses), node: node.metadata.name, kind: 'node' }
  }

  async #find(text: string): Promise<{ readonly end: End; readonly pod?: Pod } | { readonly service: Service }> {
    if (text === 'outside') {
      const address = this.#ofFamily(text, this.#layout.fabric.addresses.map(addressOf))
      return { end: { name: text, address, node: undefined, kind: 'address' } }
    }
    const address = parseAddress(text)
    if (address !== undefined) return { end: await this.#address(formatAddress(address)) }
    const { kind, name, namespace = 'default' } = parseName(text)
    if (kind === 'node') return { end: await named(`no node "${name}"`, () => this.#node(name)) }
    if (kind === 'gateway') return { end: await this.#gateway(namespace, name) }
    const nobody = (what: string): string => `namespace "${namespace}" has no ${what} "${name}"`
    if (kind === 'svc')
      return { service: await named(nobody('Service'), () => this.#client.get(services, { namespace, name })) }
    try {
      return await this.#pod(namespace, name)
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
      const isPod = kind === 'pod' || text.includes('/')
      const words = `${nobody('pod')}${isPod ? '' : ', and no node has that name'}`
      return { end: await named(words, isPod ? () => Promise.reject(error) : () => this.#node(name)) }
    }
  }

  async #address(address: string): Promise<End> {
    const [pod] = await this.#podsAt(address)
    if (pod !== undefined) return { name: address, address, node: pod.spec.nodeName, kind: 'pod' }
    const node = await this.#nodeAt(address)
    return { name: address, address, node, kind: node === undefined ? 'address' : 'node' }
  }

  async #gateway(namespace: string, name: string): Promise<End> {
    const words = `namespace "${namespace}" has no Gateway "${name}"`
    const { status } = await named(words, () => this.#client.get(gateways, { namespace, name }))
    const text = `gateway/${namespace}/${name}`
    const addresses = (status?.addresses ?? []).flatMap(({ value }) => value ?? [])
    return { name: text, address: this.#ofFamily(text, addresses), node: undefined, kind: 'gateway' }
  }

  async #pod(namespace: string, name: string): Promise<{ readonly end: End; readonly pod: Pod }> {
    const pod = await this.#client.get(pods, { namespace, name })
    const text = `${namespace}/${name}`
    const { phase, podIPs = [], conditions = [] } = pod.status
    if (phase === 'Succeeded' || phase === 'Failed')
      throw new Error(`${text} has ended (${phase}): it asks nobody, and its address is nobody's or another's`)
    const scheduled = conditions.find((c) => c.type === 'PodScheduled')
    if (pod.spec.nodeName === undefined || pod.spec.nodeName === '')
      throw new Error(`${text} is on no node yet: ${scheduled?.message || 'nobody has scheduled it'}`)
    if (podIPs.length === 0)
      throw new Error(`${text} has no address yet: ${pod.spec.nodeName} has not started it (${phase ?? 'Pending'})`)
    const address = this.#ofFamily(
      text,
      podIPs.map(({ ip }) => ip),
    )
    const isOnHost = pod.spec.hostNetwork === true
    return { end: { name: text, address, node: pod.spec.nodeName, kind: isOnHost ? 'node' : 'pod' }, pod }
  }

  /** The number and protocol of what was asked for, by the names that are there. */
  #portOf(text: string, there: readonly NamedPort[]): { readonly port: number; readonly protocol: string } {
    const { port, protocol } = this.#wanted
    if (typeof port === 'number') return { port, protocol: protocol ?? 'TCP' }
    const found = there.find((p) => p.name === port && (protocol === undefined || p.protocol === protocol))
    if (found !== undefined) return { port: found.port, protocol: found.protocol }
    const has = there.map((p) => p.name).join(' ')
    throw new Error(`${text} has no port named "${port}"${has === '' ? '' : `, only ${has}`}`)
  }

  async #inside(service: Service, asked: Asked): Promise<Place> {
    const text = nameOf(service)
    const { clusterIPs = [], type, externalName } = service.spec
    if (type === 'ExternalName')
      throw new Error(`${text} is of type ExternalName: its name leads to ${externalName}, ask for an address of that`)
    const addresses = clusterIPs.filter((address) => address !== 'None')
    if (addresses.length === 0) return this.#headless(service, asked)
    const end = { name: text, address: this.#ofFamily(text, addresses), node: undefined, kind: 'service' } as const
    return { end, ...asked, service, instead: undefined, notes: [] }
  }

  /** Its name leads to its pods' own addresses, and to their own ports. */
  async #headless(service: Service, asked: Asked): Promise<Place> {
    const text = nameOf(service)
    const { namespace, name } = service.metadata
    const labelSelector = `${serviceNameLabel}=${name}`
    const { items } = await this.#client.list(endpointSlices, { namespace, labelSelector })
    const family = this.#wanted.ipv6 ? 'IPv6' : 'IPv4'
    const instead = items
      .filter(({ addressType }) => addressType === family)
      .flatMap(({ endpoints = [] }) => endpoints)
      .filter(({ conditions }) => conditions?.ready !== false)
      .flatMap(({ addresses: [address], nodeName, targetRef }): End[] =>
        address === undefined ? [] : [{ name: targetRef?.name ?? address, address, node: nodeName, kind: 'pod' }],
      )
      .slice(0, headlessMax)
    const [first] = instead
    if (first === undefined)
      throw new Error(`${text} is headless and has no endpoint of ${family}: its name leads nowhere`)
    const named = instead.map((end) => `${end.name} ${end.address}`).join(', ')
    const end = { ...first, name: text }
    // Nobody exchanges a port where nobody exchanges an address: what is asked for is the pods' own.
    return { end, ...asked, service: undefined, instead, notes: [`${text} is headless: its name leads to ${named}`] }
  }

  async #fromOutside(service: Service, by: string, asked: Asked): Promise<Place> {
    const { ipv6 } = this.#wanted
    const { port, protocol } = asked
    const text = nameOf(service)
    const { type = 'ClusterIP' } = service.spec
    const balanced = (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip]))
    const address = [...balanced, ...(service.spec.externalIPs ?? [])].find((ip) => ip.includes(':') === ipv6)
    const common = { service, instead: undefined, notes: [] }
    if (address !== undefined) {
      const isRouted = balanced.includes(address)
      const words = `${address} is an external IP: it comes to the nodes where somebody outside routes it to them`
      const end = { name: text, address, node: undefined, kind: 'service' } as const
      return { end, ...asked, ...common, notes: isRouted ? [] : [words] }
    }
    const nodePort = (service.spec.ports ?? []).find(
      (p) => p.port === port && (p.protocol ?? 'TCP') === protocol,
    )?.nodePort
    if (nodePort === undefined) {
      // Its cluster address is then all that there is to ask for, and refused from there.
      const place = await this.#inside(service, asked)
      const waiting = type === 'LoadBalancer' ? ', and no load balancer has given it another' : ''
      const words = `${text} is of type ${type}: its address is for pods and nodes, nobody outside gets to it${waiting}`
      return { ...place, notes: [...place.notes, words] }
    }
    const node = await this.#node(by)
    const end = { name: text, address: node.address, node: node.node, kind: 'node' } as const
    return { end, ...asked, port: nodePort, ...common }
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

/** So many pods of a headless Service are asked for. */
const headlessMax = 16

type Asked = Pick<Place, 'port' | 'protocol'>

interface NamedPort {
  readonly name: string
  readonly port: number
  readonly protocol: string
}

const namedPorts = ({ spec }: Service): NamedPort[] =>
  (spec.ports ?? []).flatMap(({ name = '', port, protocol = 'TCP' }) => (name === '' ? [] : [{ name, port, protocol }]))

const containerPorts = ({ spec }: Pod): NamedPort[] =>
  spec.containers.flatMap(({ ports = [] }) =>
    ports.flatMap(({ name = '', containerPort, protocol = 'TCP' }) =>
      name === '' ? [] : [{ name, port: containerPort, protocol }],
    ),
  )

async function named<T>(words: string, find: () => Promise<T>): Promise<T> {
  try {
    return await find()
  } catch (error) {
    if (isStatus(error, 'NotFound')) throw new Error(words, { cause: error })
    throw error
  }
}
