import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import type { Pod } from '#api/gen/core-v1.ts'
import { namespaces, networkPolicies, nodes, pods } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import { EventRecorder } from '#client/events.ts'
import { FakeClient } from '#client/fake.ts'
import { Informers } from '#client/informer.ts'
import type { Request } from '#cni/protocol.ts'
import { FakeDatapath } from '#datapath/fake.ts'
import { livePodsSelector } from '../identity/reflect.ts'
import { Policies } from '../policy/policy.ts'
import { assignedAddresses, freeAddresses } from './address.ts'
import { planDevice } from './device.ts'
import { Endpoints, type EndpointsOptions } from './endpoints.ts'
import { type EndpointRecord, Records } from './record.ts'

test('assignedAddresses() reads what the control plane wrote, and refuses anything else', (t) => {
  const pod = (text: string): Pod => ({ metadata: { annotations: { 'weft.dev/pod-ips': text } } }) as unknown as Pod
  t.deepEqual(assignedAddresses(pod('10.244.1.7,fd00:10:244:1:0:0:0:7')), ['10.244.1.7', 'fd00:10:244:1::7'])
  t.is(assignedAddresses({ metadata: {} } as Pod), undefined)
  for (const wrong of ['10.244.1', '10.0.0.1,10.0.0.2', '10.0.0.1,'])
    t.throws(() => assignedAddresses(pod(wrong)), { instanceOf: RangeError, message: /one address of a family/ })
})

test('freeAddresses() takes the first free one of each network, and says when there is none', (t) => {
  t.deepEqual(freeAddresses(['10.244.1.0/24', 'fd00::/64'], new Set(['10.244.1.2', 'fd00::2', 'fd00::3'])), [
    '10.244.1.3',
    'fd00::4',
  ])
  t.throws(() => freeAddresses(['10.244.1.0/30'], new Set(['10.244.1.2'])), {
    message: /no address is free in 10\.244\.1\.0\/30/,
  })
})

test('planDevice() gives a sandbox the same names each time, and each its own', (t) => {
  const one = planDevice('a', 'eth0', 1500, [])
  t.deepEqual(one, planDevice('a', 'eth0', 1500, []))
  t.not(one.hostDevice, planDevice('b', 'eth0', 1500, []).hostDevice)
  t.true(one.hostDevice.length <= 15)
  t.regex(one.mac, /^02(:[0-9a-f]{2}){5}$/)
})

test('Records survive a restart, in order, without what a crash left half-written', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-records-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const record = (containerId: string, createdAt: number): EndpointRecord => ({
    containerId,
    ifname: 'eth0',
    netns: '/run/netns/x',
    pod: { namespace: 'default', name: 'p', uid: 'u' },
    addresses: ['10.0.0.1'],
    hostDevice: 'lxc1',
    mac: '02:00:00:00:00:01',
    ifindex: 7,
    createdAt,
  })
  const first = new Records(dir)
  first.put(record('later', 2))
  first.put(record('sooner', 1))
  first.put(record('gone', 3))
  first.remove(record('gone', 3))
  writeFileSync(join(dir, 'half-eth0.json'), '{"containerId": "ha')
  writeFileSync(join(dir, 'half-eth0.json.new'), '')
  const again = new Records(dir)
  t.deepEqual(
    again.list().map((r) => r.containerId),
    ['sooner', 'later'],
  )
  t.deepEqual(again.get('sooner', 'eth0'), record('sooner', 1))
  t.deepEqual(readdirSync(dir).toSorted(), ['later-eth0.json', 'sooner-eth0.json'])
})

type Wire = EndpointsOptions['wire']

/** A node whose sandboxes have no devices: what is made of them, and when, is the test's to say. */
class Trial implements AsyncDisposable {
  readonly client = new FakeClient()
  readonly datapath = new FakeDatapath()
  wire: Wire = async (_plan, _netns, beforeUp) => {
    await beforeUp(1)
    return { ifindex: 1 }
  }
  readonly #stack = new AsyncDisposableStack()
  #endpoints: Endpoints | undefined

  static async start(): Promise<Trial> {
    const trial = new Trial()
    const { client, datapath } = trial
    const dir = trial.#stack.adopt(mkdtempSync(join(tmpdir(), 'weft-endpoints-')), (d) =>
      rmSync(d, { recursive: true }),
    )
    await client.create(namespaces, { metadata: { name: 'x' } })
    const clock = new FakeClock()
    const informers = trial.#stack.use(new Informers({ client, clock }))
    const common = { nodeName: 'self', datapath, clock, log: silentLog }
    const known = { pods: informers.of(pods), nodes: informers.of(nodes) }
    const policies = new Policies({
      ...common,
      ...known,
      peers: informers.of(pods, { fieldSelector: livePodsSelector, metadataOnly: true }),
      namespaces: informers.of(namespaces),
      policies: informers.of(networkPolicies),
      events: new EventRecorder({ client, component: 'weft-agent', clock }),
    })
    const none = { links: async () => [], link: async () => undefined, removeLink: async () => {} }
    trial.#endpoints = new Endpoints({
      ...common,
      ...known,
      policies,
      records: new Records(dir),
      netlink: none,
      wire: (...made) => trial.wire(...made),
      mtu: 1500,
    })
    const scope = trial.#stack.use(new Scope())
    await new Promise<void>((started) => scope.start((signal) => policies.run(signal, started)))
    return trial
  }

  async pod(name: string, address: string, labels: Record<string, string>): Promise<Pod> {
    const annotations = { 'weft.dev/pod-ips': address, 'weft.dev/identity': '300' }
    return await this.client.create(pods, {
      metadata: { namespace: 'x', name, labels, annotations },
      spec: { nodeName: 'self', containers: [{ name: 'c', image: 'i' }] },
    })
  }

  async add(name: string): Promise<void> {
    const request: Request = {
      command: 'ADD',
      containerId: `sandbox-${name}`,
      netns: '/run/netns/none',
      ifname: 'eth0',
      args: new Map([
        ['K8S_POD_NAMESPACE', 'x'],
        ['K8S_POD_NAME', name],
      ]),
      cniVersion: '1.0.0',
      validAttachments: [],
    }
    await this.#endpoints?.handle(request, new AbortController().signal)
  }

  /** Isolates every pod labelled app=web, and resolves when that is in the kernel for the pod at that address. */
  async isolate(witness: string): Promise<void> {
    await this.client.create(networkPolicies, {
      metadata: { namespace: 'x', name: 'p' },
      spec: { podSelector: { matchLabels: { app: 'web' } } },
    })
    await eventually(() => this.ingressSet(witness) !== 0)
  }

  ingressSet(address: string): number {
    return this.datapath.kernel.addresses.get(address)?.ingressSet ?? 0
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}

/** Moments of a sandbox's making at which something else may change. */
const moments: readonly { readonly when: string; readonly wire: (change: () => Promise<void>) => Wire }[] = [
  {
    when: 'before its devices are there',
    wire: (change) => async (_plan, _netns, beforeUp) => {
      await change()
      await beforeUp(2)
      return { ifindex: 2 }
    },
  },
  {
    when: 'while its programs are attached',
    wire: (change) => async (_plan, _netns, beforeUp) => {
      const attached = beforeUp(2)
      await change()
      await attached
      return { ifindex: 2 }
    },
  },
  {
    when: 'before it is up',
    wire: (change) => async (_plan, _netns, beforeUp) => {
      await beforeUp(2)
      await change()
      return { ifindex: 2 }
    },
  },
]

for (const { when, wire } of moments) {
  test(`a policy that comes ${when} isolates the sandbox that is being connected`, async (t) => {
    await using trial = await Trial.start()
    await trial.pod('witness', '10.0.0.2', { app: 'web' })
    await trial.pod('late', '10.0.0.3', { app: 'web' })
    await trial.add('witness')
    t.is(trial.ingressSet('10.0.0.2'), 0)
    trial.wire = wire(() => trial.isolate('10.0.0.2'))
    await trial.add('late')
    t.not(trial.ingressSet('10.0.0.2'), 0)
    t.is(trial.ingressSet('10.0.0.3'), trial.ingressSet('10.0.0.2'))
  })

  test(`a policy that goes ${when} isolates the sandbox no longer`, async (t) => {
    await using trial = await Trial.start()
    await trial.pod('witness', '10.0.0.2', { app: 'web' })
    await trial.pod('late', '10.0.0.3', { app: 'web' })
    await trial.add('witness')
    await trial.isolate('10.0.0.2')
    trial.wire = wire(async () => {
      await trial.client.delete(networkPolicies, { namespace: 'x', name: 'p' })
      await eventually(() => trial.ingressSet('10.0.0.2') === 0)
    })
    await trial.add('late')
    t.is(trial.ingressSet('10.0.0.3'), 0)
  })

  test(`a label that changes ${when} is the one that policies go by`, async (t) => {
    await using trial = await Trial.start()
    await trial.pod('witness', '10.0.0.2', { app: 'other' })
    await trial.pod('late', '10.0.0.3', { app: 'other' })
    await trial.add('witness')
    await trial.client.create(networkPolicies, {
      metadata: { namespace: 'x', name: 'p' },
      spec: { podSelector: { matchLabels: { app: 'web' } } },
    })
    const label = (name: string) =>
      trial.client.patch(pods, { namespace: 'x', name }, 'merge', { metadata: { labels: { app: 'web' } } })
    trial.wire = wire(async () => {
      await label('late')
      // In order: when this one has been heard of, the other has.
      await label('witness')
      await eventually(() => trial.ingressSet('10.0.0.2') !== 0)
    })
    await trial.add('late')
    t.not(trial.ingressSet('10.0.0.3'), 0)
  })
}
