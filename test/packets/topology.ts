import { execFile, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { connectSandbox, planDevice } from '#agent/endpoints/device.ts'
import { type CompiledObject, compile } from '#datapath/compile.ts'
import type { Endpoint } from '#datapath/datapath.ts'
import { KernelDatapath, type KernelDatapathOptions } from '#datapath/kernel.ts'
import { podMtu } from '#datapath/tunnel.ts'
import { ensureCgroup, findCgroups, removeCgroup } from '#kernel/cgroup.ts'
import { mountBpf, unmount } from '#kernel/mount.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { createNamespace, deleteNamespace, Namespace, namespaceDir } from '#kernel/netns.ts'

const run = promisify(execFile)
const netload = resolve(import.meta.dirname, '../../native/build/netload')

export const serviceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112']
export const podCidrs = ['10.244.0.0/16', 'fd00:10:244::/56']
/** Where the nodes' default routes lead. */
export const fabricAddresses = ['172.30.0.1', 'fd00:172:30::1']

/** A pod: a namespace, its device, and what the datapath knows of it. */
export interface TestPod {
  readonly name: string
  readonly namespace: Namespace
  readonly node: TestNode
  readonly endpoint: Endpoint
  readonly v4: string
  readonly v6: string
}

/** A running `netload server`. */
export interface TestServer extends AsyncDisposable {
  readonly pid: number
}

/** A network namespace that plays a node: uplink, cgroup, bpffs and datapath of its own. */
export class TestNode {
  readonly index: number
  readonly namespace: Namespace
  readonly netlink: Netlink
  readonly cgroup: string
  readonly pinDir: string
  readonly addresses: readonly string[]
  readonly #topology: Topology
  #datapath: KernelDatapath | undefined
  #pods = 0

  constructor(topology: Topology, index: number) {
    this.#topology = topology
    this.index = index
    this.namespace = Namespace.open(topology.name(`node${index}`))
    // Otherwise its link-local address, with which it asks for neighbours, is not there for a second or two.
    this.namespace.setSysctl('net/ipv6/conf/default/accept_dad', 0)
    this.netlink = Netlink.open(this.namespace)
    this.cgroup = `${topology.prefix}/node${index}`
    this.pinDir = join(topology.dir, `node${index}`)
    this.addresses = [`172.30.0.${10 + index}`, `fd00:172:30::${10 + index}`]
  }

  get datapath(): KernelDatapath {
    if (this.#datapath === undefined) throw new Error('this node has no datapath now')
    return this.#datapath
  }

  get cgroupPath(): string {
    return join(findCgroups().unified, this.cgroup)
  }

  get podCidrs(): readonly string[] {
    return [`10.244.${this.index}.0/24`, `fd00:10:244:${this.index}::/64`]
  }

  /** Routes by the kernel alone, without any program: what the datapath is compared with. */
  async routePlainly(others: readonly TestNode[]): Promise<void> {
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) this.namespace.setSysctl(path, 1)
    const deviceIndex = this.namespace.ifindex('eth0')
    for (const { podCidrs, addresses } of others) {
      for (const [i, destination] of podCidrs.entries())
        await this.netlink.setRoute({ destination, gateway: addresses[i] ?? '', deviceIndex })
    }
  }

  /** Starts the datapath; again after `closeDatapath`, as an agent that comes back would. */
  async openDatapath(
    cidrs: readonly string[] = serviceCidrs,
    more: Partial<KernelDatapathOptions> = {},
  ): Promise<KernelDatapath> {
    this.#datapath = await KernelDatapath.open({
      objects: this.#topology.objects,
      pinDir: this.pinDir,
      cgroupPath: this.cgroupPath,
      uplink: 'eth0',
      serviceCidrs: cidrs,
      podCidrs,
      ...(this.#topology.tunnel === undefined ? {} : { tunnel: this.#topology.tunnel }),
      namespace: this.namespace,
      ...more,
    })
    return this.#datapath
  }

  closeDatapath(): void {
    this.#datapath?.[Symbol.dispose]()
    this.#datapath = undefined
  }

  async addPod(): Promise<TestPod> {
    const number = ++this.#pods + 1
    const name = this.#topology.name(`pod${this.index}-${number}`)
    const [v4, v6] = [`10.244.${this.index}.${number}`, `fd00:10:244:${this.index}::${number}`]
    createNamespace(name)
    const namespace = Namespace.open(name)
    using inside = Netlink.open(namespace)
    await inside.setLinkUp(namespace.ifindex('lo'))
    const plan = planDevice(name, 'eth0', podMtu(1500, this.#topology.tunnel), [v4, v6])
    const known = { id: name, addresses: plan.addresses, mac: plan.mac }
    const { ifindex } = await connectSandbox(plan, {
      netlink: this.netlink,
      nodeNamespace: this.namespace,
      sandbox: namespace,
      beforeUp: async (index) => this.#datapath?.upsertEndpoint({ ...known, ifindex: index }),
    })
    const pod = { name, namespace, node: this, endpoint: { ...known, ifindex }, v4, v6 }
    this.#topology.pods.push(pod)
    return pod
  }

  close(): void {
    this.closeDatapath()
    this.netlink[Symbol.dispose]()
    this.namespace[Symbol.dispose]()
  }
}

export interface TopologyOptions {
  /** Part of every name, so that topologies of several test files can be there at once. */
  readonly label?: string
  /** Nodes on one cable instead of a fabric; `plain`: nothing of ours in the kernel. */
  readonly direct?: 'programs' | 'plain'
  readonly tunnel?: 'vxlan'
  /** More of every node's datapath. */
  readonly datapath?: Partial<KernelDatapathOptions>
}

/** A fabric and two nodes, all in namespaces of their own, taken away whatever happens in between. */
export class Topology implements AsyncDisposable {
  readonly prefix: string
  readonly dir: string
  readonly objects: readonly CompiledObject[]
  readonly nodes: TestNode[] = []
  readonly pods: TestPod[] = []
  readonly tunnel: 'vxlan' | undefined
  readonly #datapath: Partial<KernelDatapathOptions>

  private constructor(objects: readonly CompiledObject[], label: string, options: TopologyOptions) {
    this.tunnel = options.tunnel
    this.#datapath = options.datapath ?? {}
    this.prefix = `weft-test-${label}${process.pid}`
    this.dir = `/run/${this.prefix}`
    this.objects = objects
  }

  name(part: string): string {
    return `${this.prefix}-${part}`
  }

  static async create(options: TopologyOptions = {}): Promise<Topology> {
    const objects = await compile({ cacheDir: '/var/cache/weft/bpf' })
    const topology = new Topology(objects, options.label ?? '', options)
    try {
      if (options.direct === undefined) await topology.#build()
      else await topology.#buildDirect(options.direct)
      return topology
    } catch (error) {
      await topology[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Two nodes on one cable, as in the measured baselines: no bridge in between. */
  async #buildDirect(routing: 'programs' | 'plain'): Promise<void> {
    for (const index of [1, 2]) {
      createNamespace(this.name(`node${index}`))
      this.nodes.push(new TestNode(this, index))
    }
    const [one, two] = [this.node(1), this.node(2)]
    // To whom frames.ts addresses what comes to node 1: a frame to another machine is not served.
    const mac = (last: number): string => `02:00:00:00:00:0${last}`
    await one.netlink.addVeth({ name: 'eth0', mac: mac(1) }, { name: 'eth0', mac: mac(2), namespace: two.namespace })
    for (const node of this.nodes) {
      const uplink = node.namespace.ifindex('eth0')
      await Promise.all([
        node.netlink.setLinkUp(uplink),
        ...node.addresses.map((a) => node.netlink.addAddress(uplink, `${a}/${a.includes(':') ? 64 : 24}`)),
      ])
      if (routing === 'plain') await node.routePlainly(this.nodes.filter((other) => other !== node))
      else await this.#prepareNode(node)
    }
    if (routing === 'programs') await this.#routeNodes()
  }

  async #build(): Promise<void> {
    const fabric = this.name('fabric')
    createNamespace(fabric)
    using namespace = Namespace.open(fabric)
    namespace.setSysctl('net/ipv6/conf/default/accept_dad', 0)
    using netlink = Netlink.open(namespace)
    await netlink.addBridge({ name: 'br0' })
    const bridge = namespace.ifindex('br0')
    await Promise.all([
      netlink.setLinkUp(bridge),
      netlink.addAddress(bridge, '172.30.0.1/24'),
      netlink.addAddress(bridge, 'fd00:172:30::1/64'),
      ...podCidrs.map((destination) => netlink.setRoute({ destination, deviceIndex: bridge, scope: 'link' })),
    ])
    for (const index of [1, 2]) await this.#addNode(index, namespace, netlink, bridge)
    await this.#routeNodes()
  }

  async #routeNodes(): Promise<void> {
    for (const node of this.nodes) {
      await node.datapath.setNodes(
        this.nodes.map((other) => ({
          name: `node${other.index}`,
          podCidrs: other.podCidrs,
          via: other === node ? undefined : other.addresses,
        })),
      )
      node.datapath.setAddresses(
        this.nodes.flatMap((other) =>
          other.addresses.map((address) => ({ address, kind: other === node ? 'own' : 'node' }) as const),
        ),
      )
    }
  }

  async #addNode(index: number, fabric: Namespace, netlink: Netlink, bridge: number): Promise<void> {
    createNamespace(this.name(`node${index}`))
    const node = new TestNode(this, index)
    this.nodes.push(node)
    await netlink.addVeth({ name: `port${index}` }, { name: 'eth0', namespace: node.namespace })
    const port = fabric.ifindex(`port${index}`)
    const uplink = node.namespace.ifindex('eth0')
    await Promise.all([
      netlink.setLinkMaster(port, bridge),
      netlink.setLinkUp(port),
      node.netlink.setLinkUp(node.namespace.ifindex('lo')),
      node.netlink.setLinkUp(uplink),
      ...node.addresses.map((a) => node.netlink.addAddress(uplink, `${a}/${a.includes(':') ? 64 : 24}`)),
      ...fabricAddresses.map((gateway) =>
        node.netlink.setRoute({
          destination: gateway.includes(':') ? '::/0' : '0.0.0.0/0',
          gateway,
          deviceIndex: uplink,
        }),
      ),
    ])
    await this.#prepareNode(node)
  }

  async #prepareNode(node: TestNode): Promise<void> {
    ensureCgroup(findCgroups(), node.cgroup)
    mkdirSync(node.pinDir, { recursive: true })
    mountBpf(node.pinDir)
    await node.openDatapath(serviceCidrs, this.#datapath)
  }

  node(index: number): TestNode {
    const node = this.nodes[index - 1]
    if (node === undefined) throw new RangeError(`there is no node ${index}`)
    return node
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) node.close()
    for (const pod of this.pods) {
      pod.namespace[Symbol.dispose]()
      deleteNamespace(pod.name)
    }
    for (const node of this.nodes) {
      deleteNamespace(this.name(`node${node.index}`))
      if (readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${node.pinDir} `)) unmount(node.pinDir)
    }
    deleteNamespace(this.name('fabric'))
    removeCgroup(findCgroups(), this.prefix)
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Where a process runs: a pod, a node's own namespace, or a namespace by name. */
export interface Place {
  readonly namespace: string
  readonly cgroup?: string
  readonly cpu?: number
}

export const inPod = (pod: TestPod): Place => ({ namespace: pod.name, cgroup: pod.node.cgroupPath })
export const onNode = (topology: Topology, node: TestNode): Place => ({
  namespace: topology.name(`node${node.index}`),
  cgroup: node.cgroupPath,
})
export const onFabric = (topology: Topology): Place => ({ namespace: topology.name('fabric') })

const placeArguments = ({ namespace, cgroup, cpu }: Place): string[] => [
  '--netns',
  join(namespaceDir, namespace),
  ...(cgroup === undefined ? [] : ['--cgroup', cgroup]),
  ...(cpu === undefined ? [] : ['--cpu', `${cpu}`]),
]

/** TCP and UDP echo on the port; resolves when it listens. */
export async function serve(place: Place, address: string, port: number): Promise<TestServer> {
  const child = spawn(netload, [...placeArguments(place), 'server', address, `${port}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise<void>((done) => child.once('close', () => done()))
  const lines = createInterface(child.stdout)
  await new Promise<void>((done, fail) => {
    lines.once('line', () => done())
    child.once('close', (code) => fail(new Error(`netload server ${address} ended with ${code}`)))
  })
  return {
    pid: child.pid ?? 0,
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await ended
    },
  }
}

/** Transactions or bytes a second; throws with what netload said. */
export async function load(
  place: Place,
  mode: 'rr' | 'crr' | 'urr' | 'ugso' | 'stream',
  address: string,
  port: number,
  milliseconds = 20,
): Promise<number> {
  const { stdout } = await run(netload, [...placeArguments(place), mode, address, `${port}`, `${milliseconds}`])
  return Number(stdout)
}

/** What sockets say of their peer: `tcp`, `udp` and `connected-udp` to `address port`. */
export async function peerNames(place: Place, address: string, port: number): Promise<Record<string, string>> {
  const { stdout } = await run(netload, [...placeArguments(place), 'peer', address, `${port}`])
  return Object.fromEntries(
    stdout
      .trim()
      .split('\n')
      .map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
  )
}
