import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { planKnownAddresses, publishedBy } from '#agent/services/addresses.ts'
import { reflectHostPorts } from '#agent/services/host-ports.ts'
import { planServices } from '#agent/services/plan.ts'
import { reflectService } from '#agent/services/reflect.ts'
import type { Node as ApiNode, Pod as ApiPod } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { CompiledObject } from '#datapath/compile.ts'
import type { Service as Row } from '#datapath/datapath.ts'
import { KernelDatapath } from '#datapath/kernel.ts'
import { ensureCgroup, findCgroups, removeCgroup } from '#kernel/cgroup.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace } from '#kernel/netns.ts'
import { familyOf } from '../address.ts'
import type { Cluster, Node, Service } from '../cluster.ts'
import { apiService, slicesOf } from './api-objects.ts'
import { echo, Poll, Socket } from './sockets-libc.ts'
import {
  type End,
  type HintedEndpoint,
  type HostPort,
  type Place,
  type Protocol,
  places,
  plain,
} from './sockets-rules.ts'

export const own = ['172.30.0.11', 'fd00:172:30::11']
export const nodes: readonly Node[] = [
  { name: 'node-1', addresses: own, podCidrs: [] },
  { name: 'node-2', addresses: ['172.30.0.12', 'fd00:172:30::12'], podCidrs: [] },
]
export const zone = 'a'
export const podCidrs = ['10.244.0.0/16', 'fd00:10:244::/56']
export const serviceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112']
/** Of the node, and of the two pods that ask. */
export const placeAddresses: Readonly<Record<Place, readonly string[]>> = {
  node: own,
  'pod-1': ['10.244.1.2', 'fd00:10:244:1::2'],
  'pod-2': ['10.244.1.3', 'fd00:10:244:1::3'],
}
/** Every port that anybody asks for or answers at. */
export const ports = {
  service: [80, 443],
  target: [8080, 9090],
  node: 30_001,
  nodes: 8,
  host: [8880, 8881],
  nobodys: 81,
}
const listened = [
  ...ports.service,
  ...ports.target,
  ...Array.from({ length: ports.nodes }, (_, i) => ports.node + i),
  ...ports.host,
  ports.nobodys,
]

/** Every address is this namespace's own: whatever a socket asks for has somebody who can say what was asked for. */
const everything = ['0.0.0.0/1', '128.0.0.0/1', '172.30.0.0/25', '::/1', 'fc00::/7']

const waitMs = 5_000

/** A namespace in which whoever asks is answered, and asked. */
class Answering implements Disposable {
  readonly namespace: Namespace
  readonly #listeners: readonly { readonly socket: Socket; readonly port: number; readonly protocol: Protocol }[]
  readonly #poll: Poll

  constructor(namespace: Namespace) {
    this.namespace = namespace
    this.#listeners = (['TCP', 'UDP'] as const).flatMap((protocol) =>
      listened.map((port) => ({ port, protocol, socket: Socket.listen(namespace, protocol, port) })),
    )
    this.#poll = new Poll(this.#listeners.map((l) => l.socket))
  }

  /** Which address and port somebody has just asked for; a datagram is answered. Throws where nothing comes. */
  arrived(protocol: Protocol, isAnswered = true): End {
    const [first, ...more] = this.#poll.ready(waitMs)
    const listener = first === undefined ? undefined : this.#listeners[first]
    if (listener === undefined) throw new Error(`nothing came within ${waitMs} ms`)
    if (more.length > 0 || listener.protocol !== protocol) throw new Error('something else came too')
    const { socket, port } = listener
    if (protocol === 'UDP') {
      const end = echo(socket, port, isAnswered)
      return { ...end, address: plain(end.address) }
    }
    using connection = socket.accept()
    const end = connection.own
    return { ...end, address: plain(end.address) }
  }

  [Symbol.dispose](): void {
    for (const { socket } of this.#listeners) socket[Symbol.dispose]()
    this.namespace[Symbol.dispose]()
  }
}

/**
 * A node's socket hooks as they are attached on a node, and sockets of the node and of two of its pods. This process is in the
 * node's cgroup as long as the world stands.
 */
export class SocketWorld implements AsyncDisposable {
  readonly #name: string
  readonly #dir: string
  readonly #held = new DisposableStack()
  readonly #places = new Map<Place, Answering>()
  readonly #home: string
  #datapath: KernelDatapath | undefined
  #rows: readonly Row[] = []

  private constructor(label: string) {
    this.#name = `weft-sockets-${label}${process.pid}`
    this.#dir = `/run/${this.#name}`
    this.#home = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  }

  static async create(label: string, objects: readonly CompiledObject[]): Promise<SocketWorld> {
    const world = new SocketWorld(label)
    try {
      await world.#build(objects)
      return world
    } catch (error) {
      await world[Symbol.asyncDispose]()
      throw error
    }
  }

  async #build(objects: readonly CompiledObject[]): Promise<void> {
    const tree = findCgroups()
    ensureCgroup(tree, this.#name)
    mkdirSync(this.#dir, { recursive: true })
    mountBpf(this.#dir)
    for (const place of places) {
      createNamespace(`${this.#name}-${place}`)
      const namespace = Namespace.open(`${this.#name}-${place}`)
      namespace.setSysctl('net/ipv6/conf/default/accept_dad', 0)
      using netlink = Netlink.open(namespace)
      const loopback = namespace.ifindex('lo')
      await netlink.setLinkUp(loopback)
      await netlink.addVeth({ name: 'eth0' }, { name: 'far' })
      for (const device of ['eth0', 'far']) await netlink.setLinkUp(namespace.ifindex(device))
      const addresses = placeAddresses[place]
      for (const address of addresses)
        await netlink.addAddress(namespace.ifindex('eth0'), `${address}/${familyOf(address) === 4 ? 32 : 128}`)
      for (const destination of everything) {
        const source = addresses[destination.includes(':') ? 1 : 0] ?? ''
        await netlink.setRoute({ destination, type: 'local', deviceIndex: loopback, source })
      }
      this.#places.set(place, this.#held.use(new Answering(namespace)))
    }
    this.#datapath = this.#held.use(
      await KernelDatapath.open({
        objects,
        pinDir: this.#dir,
        cgroupPath: join(tree.unified, this.#name),
        uplink: 'eth0',
        serviceCidrs,
        podCidrs,
        namespace: this.at('node').namespace,
      }),
    )
    this.#enter(this.#name)
  }

  #enter(cgroup: string): void {
    writeFileSync(join(findCgroups().unified, cgroup, 'cgroup.procs'), `${process.pid}`)
  }

  at(place: Place): Answering {
    const found = this.#places.get(place)
    if (found === undefined) throw new Error(`nobody is at ${place}`)
    return found
  }

  /** The cluster as it is now, brought to the hooks as the agent brings it. */
  write(cluster: Cluster, hostPorts: readonly HostPort[]): void {
    const datapath = this.#datapath
    if (datapath === undefined) throw new Error('there is no datapath')
    const services = [...cluster.services.values()].map((service) => ({
      service,
      api: apiService(service),
      slices: hintedSlices(service),
    }))
    const rows = [
      ...services.flatMap(({ service, api, slices }) =>
        reflectService(api, slices, {
          nodeName: 'node-1',
          zone,
          externalUse: () => (service.isExternalGuarded === true ? 'outside' : 'all'),
        }),
      ),
      ...hostPorts.flatMap((port) => reflectHostPorts(apiPod(port), own)),
    ]
    const plan = planServices(this.#rows, rows)
    datapath.setAddresses(
      planKnownAddresses({
        nodeName: 'node-1',
        nodes: nodes.map(apiNode),
        published: services.flatMap(({ api, slices }) => publishedBy(api, slices, 'ours') ?? []),
        resolver: [],
      }),
    )
    // Nothing before is as if the kernel had nothing: then removals would be forgotten.
    if (plan.upserts.length > 0 || plan.removals.length > 0) datapath.changeServices(plan.upserts, plan.removals)
    this.#rows = rows
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#enter(this.#home)
    this.#held.dispose()
    for (const place of places) deleteNamespace(`${this.#name}-${place}`)
    if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${this.#dir} `)) unmount(this.#dir)
    rmSync(this.#dir, { recursive: true, force: true })
    removeCgroup(findCgroups(), this.#name)
  }
}

function hintedSlices(service: Service): EndpointSlice[] {
  return slicesOf(service).map((slice) => {
    const [target] = slice.ports ?? []
    const endpoints = (service.endpoints[Number(target?.name?.slice(1))] ?? []) as readonly HintedEndpoint[]
    const zonesOf = (address: string | undefined): readonly string[] =>
      endpoints.find((e) => e.address === address)?.zones ?? []
    return {
      ...slice,
      endpoints: (slice.endpoints ?? []).map((e) => {
        const zones = zonesOf(e.addresses[0])
        return zones.length === 0 ? e : { ...e, hints: { forZones: zones.map((name) => ({ name })) } }
      }),
    }
  })
}

const apiPod = ({ port, protocol, hostIP, pod }: HostPort): ApiPod =>
  ({
    metadata: { namespace: 'shop', name: `host-port-${port}` },
    spec: { containers: [{ name: 'c', ports: [{ containerPort: pod.port, hostPort: port, protocol, hostIP }] }] },
    status: { phase: 'Running', podIPs: pod.addresses.map((ip) => ({ ip })) },
  }) as unknown as ApiPod

const apiNode = ({ name, addresses }: Node): ApiNode =>
  ({
    // Who announces addresses on the link is no socket's affair.
    metadata: { name, labels: { 'node.kubernetes.io/exclude-from-external-load-balancers': '' } },
    spec: {},
    status: {
      addresses: addresses.map((address) => ({ type: 'InternalIP', address })),
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  }) as unknown as ApiNode
