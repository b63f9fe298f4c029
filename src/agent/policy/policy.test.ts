import test from 'ava'
import fc from 'fast-check'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { events, namespaces, networkPolicies, nodes as nodeResource, pods } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { cidrContains, parseAddress, parseCidr } from '#base/net/address.ts'
import { EventRecorder } from '#client/events.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { livePodsSelector } from '../identity/reflect.ts'
import { evaluate, type Packet, type World, type WorldPod } from './naive.ts'
import { parsePolicy } from './parse.ts'
import { Policies } from './policy.ts'
import { rangePrefixes } from './ports.ts'
import { elementAt } from './rules.ts'
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
const kernelSays = (kernel: FakeKernel, packet: Packet): boolean => !endsSay(kernel, packet).includes(false)

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

/** Packets between pods, and from one address outside. */
function packetsOf(trial: Trial): Packet[] {
  const addresses = [...[...trial.world.pods.values()].map((pod) => pod.addresses[0] ?? ''), '192.0.2.1']
  return addresses.flatMap((from) =>
    addresses.flatMap((to) =>
      from === to ? [] : probes.slice(0, 4).map(([protocol, port]) => ({ from, to, protocol, port })),
    ),
  )
}

/** Looks at every packet after each single step that the datapath is asked for, until it is told to stop. */
function watched(trial: Trial, packets: readonly Packet[]) {
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

const changeArb = fc.oneof(...[stepArb].map((arbitrary) => ({ weight: 3, arbitrary })), {
  weight: 4,
  arbitrary: fc.record({
    do: fc.constant('relabel' as const),
    slot: fc.nat(4),
    labels: labelsArb,
    identity: fc.constantFrom(undefined, 256, 257, 258),
  }),
})

test('P13: on the way from one state to the next nothing opens and nothing is cut, restarts included', async (t) => {
  const slots = [0, 1, 2, 3, 4]
  const worldPodOf = (slot: number): WorldPod => {
    const isLocal = slot < 3
    const address = `10.0.${isLocal ? 0 : 1}.${slot + 1}`
    return { ...worldPod(`pod-${slot}`, slot % 2 === 0 ? 'x' : 'y', {}, address, isLocal), ports: portSets[1] }
  }
  await fc.assert(
    fc.asyncProperty(fc.array(changeArb, { minLength: 4, maxLength: 12 }), async (steps) => {
      const trial = new Trial()
      for (const name of ['x', 'y']) trial.namespace(name, { app: name === 'x' ? 'a' : 'b' })
      for (const slot of slots) await trial.pod(worldPodOf(slot))
      trial.state.write()
      for (const step of steps) {
        const packets = packetsOf(trial)
        // The one that restarts looks at another datapath.
        if (step.do === 'restart') await trial.restart()
        const watching = watched(trial, packets)
        switch (step.do) {
          case 'policy':
            trial.policy(step.namespace, step.name, step.spec)
            break
          case 'relabel': {
            const pod = trial.world.pods.get(`pod-${step.slot}`)
            if (pod !== undefined) trial.relabel({ ...pod, labels: step.labels, identity: step.identity })
            break
          }
          case 'namespace':
            trial.namespace(step.namespace, step.labels)
            break
          case 'sweep':
            trial.now += 10_000
            trial.state.write()
            trial.state.sweep()
            break
          default:
        }
        trial.state.write()
        const wrong = watching.flickered()
        if (wrong.length > 0) throw new Error(`${step.do}: ${wrong.slice(0, 5).join('\n')}`)
        // What is looked at is put away with its datapath.
        trial.fresh()
      }
    }),
    { numRuns: 400 },
  )
  t.pass()
})

/** A world of one namespace: a guarded pod here, a friend elsewhere. */
async function guarded(): Promise<Trial> {
  const trial = new Trial()
  trial.namespace('x', {})
  await trial.pod(worldPod('guarded', 'x', { app: 'guarded' }, '10.0.0.2', true))
  await trial.pod(worldPod('friend', 'x', { app: 'friend' }, '10.0.1.2', false, 300))
  trial.state.write()
  return trial
}
const worldPod = (
  name: string,
  namespace: string,
  labels: Record<string, string>,
  address: string,
  isLocal: boolean,
  identity?: number,
): WorldPod => ({ name, namespace, labels, ports: [], addresses: [address], identity, isLocal })
const fromFriend = {
  podSelector: { matchLabels: { app: 'guarded' } },
  ingress: [{ from: [{ podSelector: { matchLabels: { app: 'friend' } } }] }],
}
const ask = (from: string, to = '10.0.0.2'): Packet => ({ from, to, protocol: 6, port: 80 })

const keyText = ({ rule: _, ...key }: PolicyEntry): string => JSON.stringify(Object.values(key))

/** What is asked of the datapath, in order. */
function recorded(datapath: FakeDatapath): string[] {
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

test('P11: a new identity is in the sets before an address has it, and leaves them after', async (t) => {
  const trial = await guarded()
  trial.policy('x', 'p', fromFriend)
  trial.state.write()
  const calls = recorded(trial.datapath)
  await trial.pod(worldPod('second', 'x', { app: 'friend' }, '10.0.1.3', false, 301))
  trial.state.write()
  t.deepEqual(calls.splice(0), ['entries+epoch', 'address of 301'])
  // The labels change: the address has the other number before the old one means nothing any more.
  await trial.pod(worldPod('second', 'x', { app: 'stranger' }, '10.0.1.3', false, 302))
  trial.state.write()
  t.deepEqual(calls.splice(0), ['address of 302'])
  t.true(
    [...trial.kernel.policy.values()].some((entry) => entry.peer === 301),
    'packets on their way are still known',
  )
  t.false(kernelSays(trial.kernel, ask('10.0.1.3')))
  trial.now += 10_000
  trial.state.sweep()
  trial.state.write()
  t.deepEqual(calls.splice(0), ['entries away', 'epoch'])
})

test('a policy that comes is written whole before the pod has it, and the epoch comes last', async (t) => {
  const trial = await guarded()
  const calls = recorded(trial.datapath)
  trial.policy('x', 'p', {
    podSelector: {},
    ingress: [{ from: [{ ipBlock: { cidr: '10.0.1.0/24', except: ['10.0.1.9/32'] } }] }],
  })
  trial.state.write()
  t.deepEqual(calls, ['entries+networks+sets+epoch'])
  t.true(kernelSays(trial.kernel, ask('10.0.1.2')))
  t.false(kernelSays(trial.kernel, ask('10.0.1.9')))
})

test('P12: the next pod with an address has nothing of the one before, and is not taken away with it (P14)', async (t) => {
  const trial = await guarded()
  trial.policy('x', 'p', fromFriend)
  await trial.pod(worldPod('heir', 'x', { app: 'stranger' }, '10.0.1.2', false, 303))
  trial.state.write()
  t.false(kernelSays(trial.kernel, ask('10.0.1.2')))
  t.is(trial.kernel.identities.get('10.0.1.2')?.owner, 'heir')
  // The first is heard to have ended only now.
  trial.noPod('friend')
  trial.state.write()
  t.is(trial.kernel.identities.get('10.0.1.2')?.owner, 'heir')
})

test('P15, P16: what an empty section means is told apart from a missing one', (t) => {
  const rulesOf = (spec: object) => {
    const parsed = parsePolicy({ metadata: { namespace: 'x', name: 'p' }, spec } as unknown as NetworkPolicy)
    if ('problems' in parsed) throw new Error(JSON.stringify(parsed.problems))
    const { ingress, egress } = parsed.policy.rules
    return [ingress?.length, egress?.length]
  }
  t.deepEqual(rulesOf({ podSelector: {} }), [0, undefined])
  t.deepEqual(rulesOf({ podSelector: {}, egress: [{}] }), [0, 1])
  t.deepEqual(rulesOf({ podSelector: {}, policyTypes: ['Egress'] }), [undefined, 0])
  t.deepEqual(rulesOf({ podSelector: {}, policyTypes: ['Ingress'], egress: [{}] }), [0, undefined])
})

test('what the API server would have refused names its field, and closes the pods that it selects', async (t) => {
  const wrong: [object, string][] = [
    [{ podSelector: { matchExpressions: [{ key: 'a', operator: 'Is' }] } }, 'spec.podSelector'],
    [{ podSelector: {}, policyTypes: ['Sideways'] }, 'spec.policyTypes[0]'],
    [{ podSelector: {}, ingress: [{ from: [{}] }] }, 'spec.ingress[0].from[0]'],
    [
      { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0' } }] }] },
      'spec.ingress[0].from[0].ipBlock.cidr',
    ],
    [
      { podSelector: {}, egress: [{}, { to: [{ ipBlock: { cidr: '10.0.0.0/24', except: ['10.0.1.0/25'] } }] }] },
      'spec.egress[1].to[0].ipBlock.except[0]',
    ],
    [{ podSelector: {}, ingress: [{ ports: [{ port: 70_000 }] }] }, 'spec.ingress[0].ports[0].port'],
    [{ podSelector: {}, ingress: [{ ports: [{ port: 80, endPort: 79 }] }] }, 'spec.ingress[0].ports[0].endPort'],
    [{ podSelector: {}, ingress: [{ ports: [{ protocol: 'ICMP' }] }] }, 'spec.ingress[0].ports[0].protocol'],
  ]
  for (const [spec, field] of wrong) {
    const parsed = parsePolicy({ metadata: { namespace: 'x', name: 'p' }, spec } as unknown as NetworkPolicy)
    t.deepEqual('problems' in parsed ? parsed.problems.map((p) => p.field) : 'read', [field])
  }
  const trial = await guarded()
  const bad = { podSelector: {}, ingress: [{ ports: [{ port: 70_000 }] }] }
  const object = (uid: string, generation: number, spec: object) =>
    ({ metadata: { namespace: 'x', name: 'p', uid, generation }, spec }) as unknown as NetworkPolicy
  t.is(trial.state.setPolicy('x/p', object('1', 1, bad)).length, 1)
  trial.state.write()
  t.false(kernelSays(trial.kernel, ask('10.0.1.2')), 'nothing is known of what it would have allowed')
  t.deepEqual(trial.state.setPolicy('x/p', object('1', 2, fromFriend)), [])
  trial.state.write()
  t.true(kernelSays(trial.kernel, ask('10.0.1.2')))
  t.is(trial.state.setPolicy('x/p', object('1', 3, bad)).length, 1)
  trial.state.write()
  t.true(kernelSays(trial.kernel, ask('10.0.1.2')), 'the last good state stays')
  // Deleted and made again, wrong: what was good was another object's.
  t.is(trial.state.setPolicy('x/p', object('2', 1, bad)).length, 1)
  trial.state.write()
  t.false(kernelSays(trial.kernel, ask('10.0.1.2')))
})

test('P21: where the map is full nothing opens: isolated pods stay so, newly isolated ones are closed until there is room', async (t) => {
  const trial = await guarded()
  trial.policy('x', 'p', fromFriend)
  await trial.pod(worldPod('free', 'x', { app: 'free' }, '10.0.0.3', true))
  trial.state.write()
  t.true(kernelSays(trial.kernel, ask('10.0.1.2')))
  t.true(kernelSays(trial.kernel, ask('192.0.2.1', '10.0.0.3')))
  const change = trial.datapath.changePolicy.bind(trial.datapath)
  trial.datapath.changePolicy = (asked) => {
    const present = new Set(trial.datapath.policyEntries().map(keyText))
    if ((asked.entries ?? []).some((entry) => !present.has(keyText(entry)))) throw new Error('ENOSPC')
    change(asked)
  }
  trial.policy('x', 'q', { podSelector: { matchLabels: { app: 'free' } }, ingress: [{ from: [{ podSelector: {} }] }] })
  trial.policy('x', 'p', { ...fromFriend, ingress: [...fromFriend.ingress, { from: [{ podSelector: {} }] }] })
  t.throws(() => trial.state.write(), { message: 'ENOSPC' })
  t.true(kernelSays(trial.kernel, ask('10.0.1.2')), 'by the set that it has')
  t.false(kernelSays(trial.kernel, ask('192.0.2.1')), 'by the set that it has')
  t.false(kernelSays(trial.kernel, ask('192.0.2.1', '10.0.0.3')), 'closed, not open')
  t.deepEqual(trial.state.closed(), ['free'])
  // Without the policy it is as it was, although nothing else could be written.
  trial.policy('x', 'q', undefined)
  trial.policy('x', 'p', fromFriend)
  trial.state.write()
  t.true(kernelSays(trial.kernel, ask('192.0.2.1', '10.0.0.3')))
  trial.datapath.changePolicy = change
  trial.policy('x', 'q', { podSelector: { matchLabels: { app: 'free' } }, ingress: [{ from: [{ podSelector: {} }] }] })
  t.deepEqual(trial.differences(), [])
  t.deepEqual(trial.state.closed(), [])
})

test('a rule’s number leads to the object, its generation and the element', async (t) => {
  const trial = await guarded()
  trial.policy('x', 'p', fromFriend)
  trial.state.write()
  const [entry] = [...trial.kernel.policy.values()]
  const source = trial.state.compiler.rules.source(entry?.rule ?? 0)
  t.like(source, { direction: 'ingress', path: 'spec.ingress[0].from[0]', policy: { key: 'x/p', generation: 1 } })
  t.deepEqual(elementAt(source?.policy.object, source?.path ?? ''), fromFriend.ingress[0]?.from[0])
  t.is(elementAt(source?.policy.object, 'spec.egress[3].to'), undefined)
  t.deepEqual(
    trial.state.compiler.policiesOf(entry?.set ?? 0).map((p) => p.key),
    ['x/p'],
  )
})

test('P9: the resolver’s addresses are a pod of kube-dns to policies, by selector and by named port', async (t) => {
  const kernel = new FakeKernel()
  const datapath = new FakeDatapath(kernel)
  const state = new PolicyState({ datapath, nodeName: 'self', now: () => 0, resolverAddresses: ['169.254.20.10'] })
  state.setNamespace('kube-system', { 'kubernetes.io/metadata.name': 'kube-system' })
  state.setEndpoint('a', { id: 'a', podKey: 'x/a', addresses: ['10.0.0.2'] })
  state.setLocalPod('a', { namespace: 'x', labels: {}, ports: [] })
  const dns = {
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
    podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
  }
  state.setPolicy('x/p', {
    metadata: { namespace: 'x', name: 'p', uid: 'p', generation: 1 },
    spec: {
      podSelector: {},
      policyTypes: ['Egress'],
      egress: [{ to: [dns], ports: [{ protocol: 'UDP', port: 'dns' }] }],
    },
  } as unknown as NetworkPolicy)
  state.write()
  const numbers = state.numbersOf('a')
  await datapath.upsertEndpoint({
    id: 'a',
    addresses: ['10.0.0.2'],
    ifindex: 1,
    mac: '02:00:00:00:00:01',
    egressSet: numbers?.egress ?? 0,
  })
  const to = (protocol: number, port: number) =>
    kernelSays(kernel, { from: '10.0.0.2', to: '169.254.20.10', protocol, port })
  t.true(to(17, 53))
  t.false(to(6, 53))
  t.false(kernelSays(kernel, { from: '10.0.0.2', to: '10.96.0.10', protocol: 17, port: 53 }))
})

test('P14, P22: pods that have ended have no addresses, a sandbox’s policies are in the kernel before it is there, a refusal is an event', async (t) => {
  const client = new FakeClient()
  const create = <K extends KubeObject>(resource: Resource<K>, object: unknown) =>
    client.create(resource, object as never)
  await create(namespaces, { metadata: { name: 'x' } })
  for (const node of nodes) {
    const made = await create(nodeResource, node)
    await client.update(nodeResource, { ...made, status: node.status }, { subresource: 'status' })
  }
  await create(networkPolicies, { metadata: { namespace: 'x', name: 'p' }, spec: fromFriend })
  const pod = async (name: string, labels: object, nodeName: string, address: string): Promise<Pod> =>
    (await create(pods, {
      metadata: {
        namespace: 'x',
        name,
        labels,
        annotations: { 'weft.dev/pod-ips': address, 'weft.dev/identity': '300' },
      },
      spec: { nodeName, containers: [{ name: 'c', image: 'i' }] },
    })) as Pod
  await pod('friend', { app: 'friend' }, 'other', '10.0.1.2')
  // P14: it has ended, and its address is the friend's now.
  const before = await pod('before', { app: 'stranger' }, 'other', '10.0.1.2')
  await client.update(pods, { ...before, status: { phase: 'Succeeded' } }, { subresource: 'status' })
  const clock = new FakeClock()
  await using informers = new Informers({ client, clock })
  const kernel = new FakeKernel()
  const datapath = new FakeDatapath(kernel)
  const policies = new Policies({
    nodeName: 'self',
    pods: informers.of(pods, { fieldSelector: 'spec.nodeName=self' }),
    peers: informers.of(pods, { fieldSelector: livePodsSelector, metadataOnly: true }),
    nodes: informers.of(nodeResource),
    namespaces: informers.of(namespaces),
    policies: informers.of(networkPolicies),
    datapath,
    events: new EventRecorder({ client, component: 'weft-agent', clock }),
    clock,
    log: silentLog,
  })
  await using scope = new Scope()
  await new Promise<void>((started) => scope.start((signal) => policies.run(signal, started)))
  t.is(kernel.identities.get('10.0.1.2')?.identity, 300)
  t.is(kernel.identities.get('172.30.0.11')?.identity, 1)

  const guardedPod = await pod('guarded', { app: 'guarded' }, 'self', '10.0.0.2')
  const endpoint = { id: 's', podKey: 'x/guarded', addresses: ['10.0.0.2'] }
  const { ingress, egress, identity } = policies.connect(endpoint, guardedPod)
  t.true(ingress > 0)
  t.is(egress, 0)
  t.true([...kernel.policy.values()].some((entry) => entry.set === ingress && entry.peer === 300))
  await datapath.upsertEndpoint({
    id: 's',
    addresses: ['10.0.0.2'],
    ifindex: 1,
    mac: '02:00:00:00:00:01',
    identity,
    ingressSet: ingress,
    egressSet: egress,
  })
  t.true(kernelSays(kernel, ask('10.0.1.2')))
  const rule = [...kernel.policy.values()][0]?.rule ?? 0
  t.like(policies.rule(rule), {
    namespace: 'x',
    name: 'p',
    path: 'spec.ingress[0].from[0]',
    element: fromFriend.ingress[0]?.from[0],
  })
  t.like(policies.set(ingress), [{ namespace: 'x', name: 'p' }])

  await client.patch(networkPolicies, { namespace: 'x', name: 'p' }, 'merge', { spec: { ingress: [] } })
  await eventually(() => !kernelSays(kernel, ask('10.0.1.2')))
  const ports = Array.from({ length: 20_000 }, (_, i) => ({ port: i + 1 }))
  await client.patch(networkPolicies, { namespace: 'x', name: 'p' }, 'merge', { spec: { ingress: [{ ports }] } })
  const event = await eventually(async () => (await client.list(events)).items[0] ?? false)
  t.is(event.reason, 'PolicyRefused')
  t.regex(event.message ?? '', /^spec\.ingress\[0\]: .*entries.* last good state stays in force$/)
  t.is(policies.status().refused, 1)
})
