import test from 'ava'
import fc from 'fast-check'
import type { Node } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { cidrContains, parseAddress, parseCidr } from '#base/net/address.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { evaluate, type Packet, type World, type WorldPod } from './naive.ts'
import { rangePrefixes } from './ports.ts'
import { PolicyState } from './state.ts'

const nodes: Node[] = [
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

test('rangePrefixes() covers exactly the ports of the range, with at most 30 prefixes (P10)', (t) => {
  const port = fc.integer({ min: 1, max: 65_535 })
  fc.assert(
    fc.property(port, port, (a, b) => {
      const [first, last] = a < b ? [a, b] : [b, a]
      const prefixes = rangePrefixes(6, first, last)
      let at = first
      for (const prefix of prefixes) {
        if (prefix.port !== at || prefix.port & ((1 << (16 - prefix.bits)) - 1)) return false
        at += 1 << (16 - prefix.bits)
      }
      return at === last + 1 && prefixes.length <= 30
    }),
  )
  t.is(rangePrefixes(6, 1, 65_535).length, 16)
  t.is(rangePrefixes(6, 1, 65_534).length, 30)
  t.deepEqual(rangePrefixes(6, 65_535, 65_535), [{ protocol: 6, port: 65_535, bits: 16 }])
})

/** The kernel's side: what its maps say of a packet. */
function kernelSays(kernel: FakeKernel, { from, to, protocol, port }: Packet): boolean {
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
  return (
    (source === undefined || allowed(source.egressSet, to)) &&
    (destination === undefined || allowed(destination.ingressSet, from))
  )
}

/** A world, and the agent's copy of it. */
class Trial {
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
    for (const pod of this.world.pods.values()) {
      const key = `${pod.namespace}/${pod.name}`
      const { namespace, labels, ports, addresses, identity } = pod
      this.state.setPeer(key, { key, uid: pod.name, namespace, labels, ports, addresses, identity })
      if (!pod.isLocal) continue
      this.state.setEndpoint(pod.name, { id: pod.name, podKey: key, addresses })
      this.state.setLocalPod(pod.name, { namespace, labels, ports })
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

const probes = [
  [6, 80],
  [6, 81],
  [6, 8080],
  [17, 53],
  [17, 80],
  [132, 80],
  [1, 0],
] as const

const keys = ['app', 'tier'] as const
const labelsArb = fc.dictionary(fc.constantFrom(...keys), fc.constantFrom('a', 'b'), { maxKeys: 2 })
const selectorArb = fc.oneof(
  { weight: 3, arbitrary: labelsArb.map((matchLabels) => ({ matchLabels })) },
  fc
    .record({ key: fc.constantFrom(...keys), operator: fc.constantFrom('In', 'NotIn') })
    .map((e) => ({ matchExpressions: [{ ...e, values: ['a'] }] })),
  fc
    .record({ key: fc.constantFrom(...keys), operator: fc.constantFrom('Exists', 'DoesNotExist') })
    .map((e) => ({ matchExpressions: [e] })),
)
const blocks = [
  { cidr: '0.0.0.0/0' },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/16'] },
  { cidr: '10.0.0.0/16', except: ['10.0.1.0/24'] },
  { cidr: '10.0.0.0/24', except: ['10.0.0.2/32'] },
  { cidr: '10.0.0.2/32' },
  { cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] },
  { cidr: '192.0.2.192/26' },
  { cidr: '::/0', except: ['fd00::/64'] },
  { cidr: 'fd00::/16' },
]
const peerArb = fc.oneof(
  fc.record({ podSelector: selectorArb }),
  fc.record({ namespaceSelector: selectorArb }),
  fc.record({ namespaceSelector: selectorArb, podSelector: selectorArb }),
  fc.constantFrom(...blocks).map((ipBlock) => ({ ipBlock })),
)
const protocolArb = fc.constantFrom('TCP', 'UDP', 'SCTP', undefined)
const portArb = fc.oneof(
  fc.record({ protocol: protocolArb }),
  fc.record({ protocol: protocolArb, port: fc.constantFrom(80, 53, 8080) }),
  fc.record({ protocol: protocolArb, port: fc.constantFrom('web', 'dns') }),
  fc.record({ protocol: protocolArb, port: fc.constant(70), endPort: fc.constantFrom(79, 80, 81, 9000) }),
)
const peersArb = fc.option(fc.array(peerArb, { maxLength: 2 }), { nil: undefined })
const portsArb = fc.option(fc.array(portArb, { maxLength: 2 }), { nil: undefined })
const specArb = fc.record(
  {
    podSelector: selectorArb,
    ingress: fc.array(fc.record({ from: peersArb, ports: portsArb }), { maxLength: 2 }),
    egress: fc.array(fc.record({ to: peersArb, ports: portsArb }), { maxLength: 2 }),
    policyTypes: fc.constantFrom(['Ingress'], ['Egress'], ['Ingress', 'Egress'], []),
  },
  { requiredKeys: ['podSelector'] },
)
const portSets = [
  [],
  [{ name: 'web', number: 80, protocol: 'TCP' }],
  [
    { name: 'web', number: 8080, protocol: 'TCP' },
    { name: 'dns', number: 53, protocol: 'UDP' },
  ],
  [{ name: 'web', number: 80, protocol: 'UDP' }],
] as const
const namespaceArb = fc.constantFrom('x', 'y')
const stepArb = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('policy' as const),
      namespace: namespaceArb,
      name: fc.constantFrom('p', 'q', 'r'),
      spec: fc.option(specArb, { nil: undefined, freq: 5 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('pod' as const),
      slot: fc.nat(4),
      namespace: namespaceArb,
      labels: labelsArb,
      ports: fc.constantFrom(...portSets),
      // As a control plane that numbers at its leisure, wrongly or not at all would: what a set says must not depend on it.
      identity: fc.constantFrom(undefined, 256, 257, 258),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), slot: fc.nat(4) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('namespace' as const), namespace: namespaceArb, labels: labelsArb }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'sweep' as const }) },
)

test('whatever policies, pods and namespaces come, change and go, the maps say what the rules say', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(stepArb, { minLength: 3, maxLength: 14 }), async (steps) => {
      const trial = new Trial()
      for (const name of ['x', 'y']) trial.namespace(name, { app: name === 'x' ? 'a' : 'b' })
      for (const step of steps) {
        switch (step.do) {
          case 'policy':
            trial.policy(step.namespace, step.name, step.spec)
            break
          case 'pod': {
            const { slot, namespace, labels, ports, identity } = step
            const isLocal = slot < 3
            const addresses = [`10.0.${isLocal ? 0 : 1}.${slot + 1}`, `fd00:0:0:${isLocal ? 0 : 1}::${slot + 1}`]
            trial.noPod(`pod-${slot}`)
            await trial.pod({ name: `pod-${slot}`, namespace, labels, ports, addresses, identity, isLocal })
            break
          }
          case 'end':
            trial.noPod(`pod-${step.slot}`)
            break
          case 'namespace':
            trial.namespace(step.namespace, step.labels)
            break
          case 'restart':
            await trial.restart()
            break
          default:
            trial.now += 10_000
            trial.state.write()
            trial.state.sweep()
        }
        const wrong = trial.differences()
        if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join('\n'))
      }
      // Nothing is left behind when everything has gone.
      for (const name of [...trial.world.pods.keys()]) trial.noPod(name)
      for (const key of [...trial.world.policies.keys()]) {
        const [namespace = '', name = ''] = key.split('/')
        trial.policy(namespace, name, undefined)
      }
      for (let i = 0; i < 2; i++) {
        trial.state.write()
        trial.now += 10_000
        trial.state.sweep()
      }
      trial.state.write()
      const left = [...trial.kernel.policy.keys(), ...trial.kernel.networks.keys()]
      if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`)
    }),
    { numRuns: 1000 },
  )
  t.pass()
})
