import test from 'ava'
import fc from 'fast-check'
import type { Pod } from '#api/gen/core-v1.ts'
import type { NetworkPolicy } from '#api/gen/networking-v1.ts'
import { events, namespaces, networkPolicies, nodes as nodeResource, pods } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { type Cidr, parseCidr } from '#base/net/address.ts'
import { EventRecorder } from '#client/events.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import { FakeDatapath, FakeKernel } from '#datapath/fake.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { livePodsSelector } from '../identity/reflect.ts'
import type { WorldPod } from './naive.ts'
import { means, networkKey, outermost } from './networks.ts'
import { parsePolicy } from './parse.ts'
import { Policies } from './policy.ts'
import { rangePrefixes } from './ports.ts'
import { elementAt } from './rules.ts'
import { PolicyState } from './state.ts'
import { changeArb, portSets, stepArb } from './steps.ts'
import { ask, fromFriend, guarded, kernelSays, nodes, packetsOf, recorded, Trial, watched, worldPod } from './trial.ts'

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

const keyText = ({ rule: _, ...key }: PolicyEntry): string => JSON.stringify(Object.values(key))

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

test('of nested exceptions the outermost is one, and what lies in any of them is not meant', (t) => {
  const blocks = [
    ['0.0.0.0/0', '10.0.0.0/8', '10.1.0.0/16', '11.0.0.0/8', '10.0.0.0/8'],
    ['10.0.0.0/8', '10.1.2.0/24'],
    ['::/0', 'fd00::/8'],
  ]
  const keyOf = (text: string): string => {
    const cidr = parseCidr(text)
    if (cidr === undefined) throw new Error(text)
    return networkKey(cidr)
  }
  const networks = [
    '0.0.0.0/0',
    '9.0.0.0/8',
    '10.0.0.0/7',
    '10.0.0.0/8',
    '10.1.0.0/16',
    '10.1.2.0/24',
    '10.1.2.3/32',
    '10.1.3.0/24',
  ]
  for (const [cidr = '', ...except] of blocks) {
    const block = { cidr: {} as Cidr, key: keyOf(cidr), except: [], exceptKeys: outermost(except.map(keyOf)) }
    for (const network of [...networks, '11.2.0.0/16', '12.0.0.0/8', 'fd00::/7', 'fd00::/9', 'fe00::/8', '::/0']) {
      const key = keyOf(network)
      const is = key.startsWith(keyOf(cidr)) && !except.some((text) => key.startsWith(keyOf(text)))
      t.is(means(block, key), is, `${network} in ${cidr} without ${except.join(' ')}`)
    }
  }
})

/** 10.0.0.0/32, 10.0.0.1/32, … */
const networksOf = (count: number): string[] => Array.from({ length: count }, (_, i) => `10.0.${i >> 8}.${i & 255}/32`)

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
    // In the kernel's maps this would be IPv4, and one address that they refuse keeps everybody's policies out.
    [
      { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '::ffff:10.0.0.0/104' } }] }] },
      'spec.ingress[0].from[0].ipBlock.cidr',
    ],
    [
      { podSelector: {}, egress: [{ to: [{ ipBlock: { cidr: '::/0', except: ['::ffff:10.0.0.0/104'] } }] }] },
      'spec.egress[0].to[0].ipBlock.except[0]',
    ],
    // One object could otherwise take the whole map of networks.
    [
      {
        podSelector: {},
        ingress: [{ from: [{ ipBlock: { cidr: '0.0.0.0/0', except: networksOf(16_384) } }] }],
      },
      'spec.ingress[0]',
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

  // A map that is full: the policy whose change is not in the kernel hears of it, and which part of it stays.
  const change = datapath.changePolicy.bind(datapath)
  datapath.changePolicy = (asked) => {
    if ((asked.entries ?? []).length > 0) throw new Error('no space left')
    change(asked)
  }
  await client.patch(networkPolicies, { namespace: 'x', name: 'p' }, 'merge', { spec: fromFriend })
  const unwritten = await eventually(
    async () => (await client.list(events)).items.find((e) => e.reason === 'PolicyNotEnforced') ?? false,
  )
  t.regex(unwritten.message ?? '', /^spec: .*what was written before stays in force: Error: no space left$/)
  t.is(unwritten.involvedObject.name, 'p')
  // What changes meanwhile does not wait for the pauses between tries, which have become long.
  for (let i = 0; i < 12; i++) clock.advance(30_000)
  datapath.changePolicy = change
  await client.patch(networkPolicies, { namespace: 'x', name: 'p' }, 'merge', { metadata: { labels: { a: 'b' } } })
  await eventually(() => {
    clock.advance(250)
    return kernelSays(kernel, ask('10.0.1.2'))
  })
  t.is(policies.status().trouble, '')
})
