import type { Node } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { cidrContains, parseAddress, parseCidr } from '#base/net/address.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { evaluate, type Packet, type World, type WorldPod } from './naive.ts'
import { PolicyState } from './state.ts'

/** For tests only: a small cluster, this node's state of it, and what the maps then say of a packet. */

/** This one, and another. */
export const nodes: Node[] = [
  {
    metadata: { name: 'self' },
    spec: { podCIDRs: ['10.0.0.0/24', 'fd00::/64'] },
    status: { addresses: [{ type: 'InternalIP', address: '172.30.0.11' }] },
  },
  {
    metadata: { name: 'other' },
    spec: { podCIDRs: ['10.0.1.0/24', 'fd00:0:0:1::/64'] },
    status: { addresses: [{ type: 'InternalIP', address: '172.30.0.12' }] },
  },
] as unknown as Node[]

/** The kernel's side: what its maps say of a packet. */
export const kernelSays = (kernel: FakeKernel, packet: Packet): boolean => !endsSay(kernel, packet).includes(false)

/** What its sender's side says, and its receiver's. */
function endsSay(kernel: FakeKernel, { from, to, protocol, port }: Packet): [boolean, boolean] {
  const identityOf = (address: string): number => kernel.identities.get(address)?.identity ?? 4
  const classOf = (address: string): number | undefined => {
    const parsed = parseAddress(address)
    let best: { prefix: number; number: number } | undefined
    for (const [text, number] of kernel.networks) {
      const cidr = parseCidr(text)
      if (cidr && parsed && cidrContains(cidr, parsed) && cidr.prefix >= (best?.prefix ?? 0))
        best = { prefix: cidr.prefix, number }
    }
    return best?.number
  }
  const entries = [...kernel.policy.values()]
  const matches = (e: PolicyEntry): boolean =>
    e.protocol === undefined || (e.protocol === protocol && e.port >>> (16 - e.portBits) === port >>> (16 - e.portBits))
  const allowed = (set: number, address: string): boolean =>
    set === 0 ||
    entries.some((e) => e.set === set && [identityOf(address), classOf(address), 0].includes(e.peer) && matches(e))
  const source = kernel.addresses.get(from)
  const destination = kernel.addresses.get(to)
  return [
    source === undefined || allowed(source.egressSet, to),
    destination === undefined || allowed(destination.ingressSet, from),
  ]
}

/** A world, and the agent's copy of it. */
export class Trial {
  readonly world: World = { namespaces: new Map(), pods: new Map(), policies: new Map() }
  readonly kernel = new FakeKernel()
  datapath = new FakeDatapath(this.kernel)
  now = 0
  state = this.#newState()
  #generation = 0

  #newState(): PolicyState {
    const state = new PolicyState({ datapath: this.datapath, nodeName: 'self', now: () => this.now })
    state.setNodes(nodes)
    return state
  }

  namespace(name: string, labels: Record<string, string>): void {
    this.world.namespaces.set(name, labels)
    this.state.setNamespace(name, labels)
  }

  async pod(pod: WorldPod): Promise<void> {
    this.world.pods.set(pod.name, pod)
    await this.#tellPod(pod)
  }

  async #tellPod(pod: WorldPod): Promise<void> {
    const key = `${pod.namespace}/${pod.name}`
    const { namespace, labels, ports, addresses, identity } = pod
    this.state.setPeer(key, { key, uid: pod.name, namespace, labels, ports, addresses, identity })
    if (!pod.isLocal) return
    this.state.setEndpoint(pod.name, { id: pod.name, podKey: key, addresses })
    this.state.setLocalPod(pod.name, { namespace, labels, ports })
    this.state.write()
    const numbers = this.state.numbersOf(pod.name)
    if (numbers === undefined) throw new Error(`${key} has no numbers`)
    const entry = { id: pod.name, addresses, ifindex: 1, mac: '02:00:00:00:00:01', owner: pod.name }
    const { ingress, egress, identity: own } = numbers
    await this.datapath.upsertEndpoint({ ...entry, identity: own, ingressSet: ingress, egressSet: egress })
  }

  /** A running pod's labels change, and its number with them. */
  relabel(pod: WorldPod): void {
    this.world.pods.set(pod.name, pod)
    const key = `${pod.namespace}/${pod.name}`
    const { namespace, labels, ports, addresses, identity } = pod
    this.state.setPeer(key, { key, uid: pod.name, namespace, labels, ports, addresses, identity })
    if (pod.isLocal) this.state.setLocalPod(pod.name, { namespace, labels, ports })
  }

  /** Calls of the datapath are nobody's to look at any more. */
  fresh(): void {
    const own = Object.getPrototypeOf(this.datapath) as FakeDatapath
    this.datapath.changePolicy = own.changePolicy
    this.datapath.upsertIdentities = own.upsertIdentities
    this.datapath.removeIdentities = own.removeIdentities
    this.datapath.removePolicyEntries = own.removePolicyEntries
  }

  noPod(name: string): void {
    const pod = this.world.pods.get(name)
    if (pod === undefined) return
    this.world.pods.delete(name)
    this.state.setEndpoint(name, undefined)
    this.datapath.removeEndpoint({ id: name, addresses: pod.addresses, ifindex: 1 })
    this.state.setPeer(`${pod.namespace}/${name}`, undefined)
  }

  policy(namespace: string, name: string, spec: object | undefined): void {
    const key = `${namespace}/${name}`
    if (spec === undefined) {
      this.world.policies.delete(key)
      this.state.setPolicy(key, undefined)
      return
    }
    const metadata = { namespace, name, uid: key, generation: ++this.#generation }
    const object = { metadata, spec } as unknown as NetworkPolicy
    this.world.policies.set(key, object)
    const problems = this.state.setPolicy(key, object)
    if (problems.length > 0) throw new Error(JSON.stringify(problems))
  }

  /** The agent ends and another comes. */
  async restart(): Promise<void> {
    this.datapath = new FakeDatapath(this.kernel)
    this.state = this.#newState()
    for (const [name, labels] of this.world.namespaces) this.state.setNamespace(name, labels)
    for (const [key, object] of this.world.policies) this.state.setPolicy(key, object)
    const pods = [...this.world.pods.values()]
    this.state.loadPeers(
      pods.map(({ name, namespace, labels, ports, addresses, identity }) => {
        return { key: `${namespace}/${name}`, uid: name, namespace, labels, ports, addresses, identity }
      }),
    )
    for (const { name, namespace, labels, ports, addresses } of pods.filter((pod) => pod.isLocal)) {
      this.state.setEndpoint(name, { id: name, podKey: `${namespace}/${name}`, addresses })
      this.state.setLocalPod(name, { namespace, labels, ports })
    }
  }

  /** Packets about which the maps and the rules, read anew, say different things. */
  differences(): string[] {
    this.state.write()
    const outside = ['192.0.2.1', '192.0.2.200', '198.51.100.7', '2001:db8::1', '172.30.0.12']
    const addresses = [...[...this.world.pods.values()].flatMap((p) => p.addresses), ...outside]
    const found: string[] = []
    for (const from of addresses) {
      for (const to of addresses) {
        if (from === to || from.includes(':') !== to.includes(':')) continue
        for (const [protocol, port] of probes) {
          const packet = { from, to, protocol, port }
          const says = kernelSays(this.kernel, packet)
          if (says !== evaluate(this.world, packet))
            found.push(`${from} -> ${to} ${protocol}/${port}: maps ${says ? 'allow' : 'deny'}`)
        }
      }
    }
    return found
  }
}

/** Protocols, and ports where they have them. */
const probes = [
  [6, 80],
  [6, 81],
  [6, 8080],
  [17, 53],
  [17, 80],
  [132, 80],
  [1, 0],
] as const

/** A world of one namespace: a guarded pod here, a friend elsewhere. */
export async function guarded(): Promise<Trial> {
  const trial = new Trial()
  trial.namespace('x', {})
  await trial.pod(worldPod('guarded', 'x', { app: 'guarded' }, '10.0.0.2', true))
  await trial.pod(worldPod('friend', 'x', { app: 'friend' }, '10.0.1.2', false, 300))
  trial.state.write()
  return trial
}
/** A pod with one address and no named port. */
export const worldPod = (
  name: string,
  namespace: string,
  labels: Record<string, string>,
  address: string,
  isLocal: boolean,
  identity?: number,
): WorldPod => ({ name, namespace, labels, ports: [], addresses: [address], identity, isLocal })
/** Nobody but friends into the guarded pod. */
export const fromFriend = {
  podSelector: { matchLabels: { app: 'guarded' } },
  ingress: [{ from: [{ podSelector: { matchLabels: { app: 'friend' } } }] }],
}
/** A TCP packet to port 80, of the guarded pod unless another is named. */
export const ask = (from: string, to = '10.0.0.2'): Packet => ({ from, to, protocol: 6, port: 80 })

/** Packets between pods, and from one address outside. */
export function packetsOf(trial: Trial): Packet[] {
  const addresses = [...[...trial.world.pods.values()].map((pod) => pod.addresses[0] ?? ''), '192.0.2.1']
  return addresses.flatMap((from) =>
    addresses.flatMap((to) =>
      from === to ? [] : probes.slice(0, 4).map(([protocol, port]) => ({ from, to, protocol, port })),
    ),
  )
}

/** Looks at every packet after each single step that the datapath is asked for, until it is told to stop. */
export function watched(trial: Trial, packets: readonly Packet[]) {
  const says = () => packets.flatMap((packet) => endsSay(trial.kernel, packet))
  const before = says()
  const between: boolean[][] = []
  const { datapath } = trial
  const look = <A extends readonly unknown[]>(call: (...asked: A) => void) => {
    const bound = call.bind(datapath)
    return (...asked: A): void => {
      bound(...asked)
      between.push(says())
    }
  }
  datapath.changePolicy = look(datapath.changePolicy)
  datapath.upsertIdentities = look(datapath.upsertIdentities)
  datapath.removeIdentities = look(datapath.removeIdentities)
  datapath.removePolicyEntries = look(datapath.removePolicyEntries)
  return {
    /** Packets of which one of their ends said one thing on the way, and the other before and after it. */
    flickered(): string[] {
      const after = says()
      return before.flatMap((was, i) => {
        if (was !== after[i] || between.every((state) => state[i] === was)) return []
        const { from, to, protocol, port } = packets[i >> 1] ?? ask('')
        return [
          `${from} -> ${to} ${protocol}/${port}: ${i % 2 ? 'in' : 'out'} ${was ? 'allowed' : 'denied'} before and after`,
        ]
      })
    },
  }
}

/** What is asked of the datapath, in order. */
export function recorded(datapath: FakeDatapath): string[] {
  const calls: string[] = []
  const change = datapath.changePolicy.bind(datapath)
  datapath.changePolicy = (asked) => {
    const { entries = [], endpoints = [], networks = new Map(), removedNetworks = [] } = asked
    const has = [
      entries.length > 0 && 'entries',
      networks.size > 0 && 'networks',
      endpoints.some((e) => e.ingressSet !== undefined) && 'sets',
      endpoints.some((e) => e.identity !== undefined) && 'identity',
      removedNetworks.length > 0 && 'networks away',
      'epoch',
    ].filter((word) => word !== false)
    calls.push(has.join('+'))
    change(asked)
  }
  const upsert = datapath.upsertIdentities.bind(datapath)
  datapath.upsertIdentities = (rows) => {
    calls.push(`address of ${rows.map((row) => row.identity).join()}`)
    upsert(rows)
  }
  const remove = datapath.removePolicyEntries.bind(datapath)
  datapath.removePolicyEntries = (keys) => {
    calls.push('entries away')
    remove(keys)
  }
  return calls
}
