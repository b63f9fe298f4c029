import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { Names } from '#agent/flows/record.ts'
import { type MapDump, mapsRoute } from '#agent/local/maps.ts'
import { sideMaps } from '#agent/local/side-maps.ts'
import { firstFrame } from '#agent/why/packet.ts'
import { explain, type Step } from '#agent/why/why.ts'
import type { Outside, Service } from '#datapath/datapath.ts'
import { decodeEvent, eventSize } from '#datapath/events/event.ts'
import { EventRing } from '#datapath/events/ring.ts'
import type { Hook, Probe } from '#datapath/probe.ts'
import { inPod, load, onNode, serve, type TestPod, Topology } from './topology.ts'

/** `weft why` on a real kernel: what the probe says is what happens, and asking changes nothing. */
let topology: Topology
let client: TestPod
let near: TestPod
let far: TestPod
const probes: Probe[] = []

const identities = { client: 300, near: 301, far: 302 } as const
const allow = { set: 7, rule: 11 } as const
const deny = { set: 8 } as const
const outside = { client: '172.30.0.1', balancer: '172.30.0.200', gateway: '172.30.0.201', nodePort: 30_080 } as const
const named = { row: { number: 'ab12', port: 80 }, service: { namespace: 'default', name: 'web' } } as const

test.before(async () => {
  topology = await Topology.create({ label: 'why', direct: 'programs' })
  client = await topology.node(1).addPod()
  near = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  for (const index of [1, 2]) {
    const { datapath } = topology.node(index)
    datapath.upsertIdentities(
      [client, near, far].flatMap((pod, i) =>
        [pod.v4, pod.v6].map((address) => ({
          address,
          identity: Object.values(identities)[i] ?? 0,
          owner: pod.name,
          ...(pod.node.index === index ? {} : { node: pod.node.index }),
        })),
      ),
    )
    probes.push(datapath.openProbe())
  }
  // near lets the client in at port 80 alone; far lets nobody in.
  topology.node(1).datapath.changePolicy({
    entries: [{ set: allow.set, peer: identities.client, protocol: 6, port: 80, portBits: 16, rule: allow.rule }],
    endpoints: [{ addresses: [near.v4, near.v6], ingressSet: allow.set }],
  })
  topology.node(2).datapath.changePolicy({ endpoints: [{ addresses: [far.v4, far.v6], ingressSet: deny.set }] })
  topology.node(1).datapath.changeServices(
    [
      {
        frontend: { address: '10.96.0.9', port: 80, protocol: 'TCP' },
        backends: [{ address: near.v4, port: 80, protocol: 'TCP' }],
      },
      {
        frontend: { address: '10.96.0.10', port: 80, protocol: 'TCP' },
        backends: [{ address: far.v4, port: 80, protocol: 'TCP' }],
      },
      // From outside: a load balancer's address, a node port, an external IP that pods go past, a Gateway's.
      { ...fromOutside(outside.balancer, 80, near.v4), ...named.row },
      { ...fromOutside(outside.balancer, 81, near.v4, { ranges: ['192.0.2.0/24'] }) },
      { ...fromOutside('0.0.0.0', outside.nodePort, far.v4), ...named.row },
      { ...fromOutside('203.0.113.9', 80, near.v4, { isLocal: true, backends: [] }), isOutsideOnly: true },
      { frontend: { address: outside.gateway, port: 80, protocol: 'TCP' }, backends: [], toStack: true },
    ],
    [],
  )
  topology.node(1).datapath.setAddresses([
    { address: topology.node(1).addresses[0] ?? '', kind: 'own' },
    { address: topology.node(2).addresses[0] ?? '', kind: 'node' },
    { address: outside.balancer, kind: 'virtual', isAnnounced: true },
    { address: outside.gateway, kind: 'virtual' },
    { address: '203.0.113.9', kind: 'external' },
  ])
})

const names: Names = {
  party: () => ({}),
  service: () => undefined,
  serviceNumbered: (number) => (number === named.row.number ? named.service : undefined),
  rule: () => undefined,
  set: () => [],
}

const fromOutside = (address: string, port: number, to: string, more: Partial<Outside> = {}): Service => {
  const backends = [{ address: to, port: 80, protocol: 'TCP' as const }]
  return { frontend: { address, port, protocol: 'TCP' }, backends, outside: { backends, ...more } }
}
test.after.always(async () => {
  for (const probe of probes) probe[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})

/** The way that such a packet takes on that node; of several the first. */
const ask = (...asked: Parameters<typeof askAll>): Step[] => askAll(...asked)[0] ?? []

function askAll(node: number, hook: Hook, from: string, to: string, port: number): Step[][] {
  const { datapath } = topology.node(node)
  const probe = probes[node - 1]
  if (probe === undefined) throw new Error(`node ${node} has no probe`)
  return explain(
    {
      nodeName: `node-${node}`,
      datapath,
      names,
      rules: {
        rule: (number) => ({
          ...{ namespace: 'default', name: `rule-${number}`, uid: 'u', generation: 1 },
          ...{ direction: 'ingress', path: 'spec.ingress[0].from[0]', element: {} },
        }),
        set: (number) => [
          {
            ...{ namespace: 'default', name: `set-${number}`, uid: 'u', generation: 1 },
            ...{ direction: 'ingress', path: 'spec.podSelector', element: {} },
          },
        ],
      },
      uplinkIndex: datapath.uplinkIndex,
      judge: probe.judge.bind(probe),
    },
    { source: from, destination: to, port, protocol: 'TCP' },
    hook,
  )
}

const said = (steps: readonly Step[]): unknown[] =>
  steps.map(({ hook, verdict, reason, egress, ingress }) => [
    hook,
    verdict,
    ...(reason === '' ? [] : [reason]),
    egress?.kind ?? '',
    ingress?.kind === 'rule'
      ? ingress.rule.name
      : ingress?.kind === 'policies'
        ? ingress.policies[0]?.name
        : ingress?.kind,
  ])

test.serial('each hook says what it would do, with the element that allows or the set that refuses', (t) => {
  for (const family of ['v4', 'v6'] as const) {
    t.deepEqual(said(ask(1, 'from_container', client[family], near[family], 80)), [
      ['from_container', 'forwarded', 'not-isolated', `rule-${allow.rule}`],
    ])
    t.deepEqual(said(ask(1, 'from_container', client[family], near[family], 81)), [
      ['from_container', 'dropped', 'Policy denied', 'not-isolated', `set-${allow.set}`],
    ])
    t.deepEqual(said(ask(1, 'from_container', client[family], far[family], 80)), [
      ['from_container', 'forwarded', 'not-isolated', undefined],
    ])
    t.deepEqual(said(ask(2, 'from_netdev', client[family], far[family], 80)), [
      ['from_netdev', 'dropped', 'Policy denied', '', `set-${deny.set}`],
    ])
  }
  t.deepEqual(said(ask(1, 'from_container', client.v4, '10.96.0.9', 80)), [
    ['connect', 'translated', '', undefined],
    ['from_container', 'forwarded', 'not-isolated', `rule-${allow.rule}`],
  ])
})

test.serial('from outside: whose Service, which backend it goes on to and under whose address, or why not', (t) => {
  const [node1 = '', node2 = ''] = [1, 2].map((index) => topology.node(index).addresses[0])
  const own = (steps: readonly Step[]): unknown[] =>
    steps.map(({ verdict, reason, service, backends, isGateway, goesOn }) => [
      reason === '' ? verdict : reason,
      ...(service === undefined ? [] : [service.name]),
      ...(backends === undefined ? [] : [backends.map((b) => b.address).join()]),
      ...(isGateway ? ['gateway'] : []),
      ...(goesOn === undefined ? [] : [`${goesOn.source} > ${goesOn.destination}:${goesOn.port}`]),
    ])
  const asked = (to: string, port: number) => ask(1, 'from_netdev', outside.client, to, port)
  // Its only backend lets the other pod in alone: policies are asked about the packet as it goes on.
  t.deepEqual(own(asked(outside.balancer, 80)), [
    ['Policy denied', 'web', near.v4, `${outside.client} > ${near.v4}:80`],
  ])
  t.is(asked(outside.balancer, 80)[0]?.ingress?.kind, 'policies')
  t.deepEqual(own(asked(outside.balancer, 81)), [['Denied by LB src range check', near.v4]])
  t.deepEqual(own(asked(outside.balancer, 82)), [['Service not found']])
  t.deepEqual(own(asked(node1, outside.nodePort)), [['forwarded', 'web', far.v4, `${node1} > ${far.v4}:80`]])
  // Of another node no packet comes here.
  t.deepEqual(own(asked(node2, outside.nodePort)), [['stack']])
  t.deepEqual(own(asked('203.0.113.9', 80)), [['No local backend', '']])
  t.deepEqual(own(asked(outside.gateway, 80)), [['stack', 'gateway']])
  t.deepEqual(own(asked('10.96.0.9', 80)), [['Service not found']])
})

test.serial('a Service with several backends has a way to each of them, from inside and from outside', (t) => {
  const { datapath } = topology.node(1)
  const backends = [near, far].map(({ v4 }) => ({ address: v4, port: 80, protocol: 'TCP' as const }))
  const frontend = { address: outside.balancer, port: 90, protocol: 'TCP' } as const
  datapath.changeServices([{ frontend, backends, outside: { backends } }], [])
  const ways = (...asked: Parameters<typeof askAll>) =>
    askAll(...asked).map((steps) => {
      const { goesOn, verdict, reason } = steps[0] ?? {}
      return [goesOn?.destination, steps[1]?.verdict ?? (reason || verdict)].join(' ')
    })
  t.deepEqual(
    ways(1, 'from_container', client.v4, outside.balancer, 90).sort(),
    [`${near.v4} forwarded`, `${far.v4} forwarded`].sort(),
  )
  t.deepEqual(
    ways(1, 'from_netdev', outside.client, outside.balancer, 90).sort(),
    [`${near.v4} Policy denied`, `${far.v4} forwarded`].sort(),
  )
  datapath.changeServices([], [frontend])
})

test.serial('a node port at the node’s loopback is its processes’, and a pod’s loopback is the pod’s', (t) => {
  const [node1 = ''] = topology.node(1).addresses
  for (const to of ['127.0.0.1', '127.1.2.3'])
    t.deepEqual(said(ask(1, 'to_container', node1, to, outside.nodePort)), [['connect', 'translated', '', undefined]])
  t.deepEqual(ask(1, 'to_container', node1, '127.0.0.1', outside.nodePort + 1), [])
  t.not(ask(1, 'from_container', client.v4, '127.0.0.1', outside.nodePort)[0]?.hook, 'connect')
})

test.serial('a process of the node: its socket is led to a backend, its own pods always let it in', (t) => {
  const [node1 = ''] = topology.node(1).addresses
  const asked = (to: string, port: number) => ask(1, 'to_container', node1, to, port)
  t.deepEqual(said(asked('10.96.0.9', 80)), [
    ['connect', 'translated', '', undefined],
    ['to_container', 'stack', '', 'always'],
  ])
  // The next word is the other node's.
  t.deepEqual(said(asked('10.96.0.10', 80)), [['connect', 'translated', '', undefined]])
  t.deepEqual(said(ask(2, 'from_netdev', node1, far.v4, 80)), [
    ['from_netdev', 'dropped', 'Policy denied', '', `set-${deny.set}`],
  ])
  t.deepEqual(asked(far.v4, 80), [], 'none of our programs has a say')
  const [gateway] = asked(outside.gateway, 80)
  t.deepEqual([gateway?.hook, gateway?.verdict, gateway?.isGateway], ['connect', 'stack', true])
})

test.serial('L23: what is said is what happens', async (t) => {
  await using _server = await serve({ ...inPod(near) }, near.v4, 80)
  t.true((await load({ ...inPod(client) }, 'crr', near.v4, 80, 50)) > 0)
  await using _other = await serve({ ...inPod(near) }, near.v4, 81)
  await t.throwsAsync(load({ ...inPod(client) }, 'crr', near.v4, 81, 50))
  t.true((await load(onNode(topology, topology.node(1)), 'crr', near.v4, 80, 50)) > 0)
  t.true((await load(onNode(topology, topology.node(1)), 'crr', '10.96.0.9', 80, 50)) > 0)
})

test.serial('asking writes no map, counts nothing and records nothing', (t) => {
  using events = EventRing.open(topology.node(1).pinDir)
  const room = Buffer.alloc(1000 * eventSize)
  t.true(events.drain(room) > 0, 'what happened is recorded')
  t.deepEqual(
    [...dump(1).keys(), ...notDumped, ...ofSockets].toSorted(),
    [...new Set(definedMaps())].toSorted(),
    'all maps of bpf/maps are compared, but those that cannot be',
  )
  // The pods' own link chatter is counted and recorded too, now and then; a question that wrote would do so each time.
  for (let round = 1; ; round++) {
    while (events.drain(room) > 0);
    const before = dump(1)
    askAboutAll()
    const after = dump(1)
    const recorded = Array.from({ length: events.drain(room) }, (_, i) => decodeEvent(room, i * eventSize))
    const changed = [...after].flatMap(([name, text]) => (before.get(name) === text ? [] : [name]))
    if (changed.length + recorded.length > 0 && round < 5) continue
    t.deepEqual(changed, [])
    t.deepEqual(recorded, [])
    return
  }
})

test.serial('every map of bpf/maps has a dump, and each of its rows a word under each heading', async (t) => {
  const { datapath, pinDir } = topology.node(1)
  // What nobody lists: the ring, sockets, and what `lb` has in its rows already.
  const within = ['events_v1', 'connected_v1', 'listener_sockets_v1', 'slots_v1', 'backends_v1', 'embryonic_v1']
  const own = [
    'endpoints_v2',
    'identities_v1',
    'frontends_v2',
    'policy_v1',
    'flows_v1',
    'translations_v1',
    'addresses_v1',
  ]
  const pins = Object.values(sideMaps).map(({ pin }) => pin)
  t.deepEqual([...within, ...own, ...pins, 'counters_v2'].toSorted(), definedMaps().toSorted())
  const frontend = { address: outside.balancer, port: 91, protocol: 'TCP' } as const
  const backends = [{ address: near.v4, port: 80, protocol: 'TCP' as const }]
  const ranged = { backends, ranges: ['192.0.2.0/24', '2001:db8::/32'] }
  datapath.changeServices([{ frontend, ...named.row, affinitySeconds: 60, backends, outside: ranged }], [])
  datapath.changePolicy({ networks: new Map([['10.0.0.0/8', 16_777_216]]) })
  await t.throwsAsync(load({ ...inPod(client) }, 'crr', outside.balancer, 91, 1), undefined, 'its backend is closed')
  const route = mapsRoute(datapath, names, join(pinDir, 'maps'))
  const rowsOf = async (map: string): Promise<MapDump['rows']> => {
    const dump = (await route(new URLSearchParams({ rest: map }), new AbortController().signal)) as MapDump
    for (const row of dump.rows) {
      t.is(row.length, dump.columns.length, map)
      t.true(
        row.every((cell) => cell !== ''),
        `${map}: ${row.join('|')}`,
      )
    }
    return dump.rows
  }
  const all = ['endpoint', 'ipcache', 'lb', 'ct', 'nat', 'address', 'policy', 'metrics', ...Object.keys(sideMaps)]
  for (const map of all) await rowsOf(map)
  t.deepEqual(
    (await rowsOf('network')).filter(([text]) => text === '10.0.0.0/8'),
    [['10.0.0.0/8', '16777216']],
  )
  t.deepEqual((await rowsOf('range')).filter(([service]) => service === 'default/web').toSorted(), [
    ['default/web', '192.0.2.0/24'],
    ['default/web', '2001:db8::/32'],
  ])
  t.deepEqual(
    (await rowsOf('affinity')).map(([service, from]) => [service, from?.split(' ')[0]]),
    [['default/web', 'network']],
  )
  t.true(
    (await rowsOf('member')).some(
      ([service, , , backend]) => service === 'default/web' && backend?.startsWith(near.v4),
    ),
  )
  const unknown = async () => route(new URLSearchParams({ rest: 'foo' }), new AbortController().signal)
  await t.throwsAsync(unknown, { instanceOf: RangeError, message: /no map "foo": use one of endpoint, .*, lost$/ })
  datapath.changeServices([], [frontend])
  datapath.changePolicy({ removedNetworks: ['10.0.0.0/8'] })
})

function askAboutAll(): void {
  const [node1 = ''] = topology.node(1).addresses
  for (let i = 0; i < 50; i++)
    for (const port of [80, 81]) {
      ask(1, 'from_container', client.v4, near.v4, port)
      ask(1, 'from_container', client.v6, near.v6, port)
      ask(1, 'from_container', client.v4, '192.0.2.1', port)
      // Spoofed, and to nobody.
      ask(1, 'from_container', client.v4, '10.96.0.99', port)
      for (const to of [outside.balancer, outside.gateway, '203.0.113.9', '10.96.0.9'])
        ask(1, 'from_netdev', outside.client, to, port)
      ask(1, 'from_netdev', outside.client, node1, outside.nodePort)
      for (const to of ['10.96.0.9', '10.96.0.10', outside.gateway, near.v4]) ask(1, 'to_container', node1, to, port)
    }
}

/** A ring can only be drained, which the test does. What is kept with sockets cannot be listed, and no packet program reads it. */
const notDumped = ['events_v1', 'connected_v1']
/** Read where a gateway listens, by no program that is asked. */
const ofSockets = ['listeners_v1', 'listener_sockets_v1']

/** The names of the maps that programs share. */
function definedMaps(): string[] {
  const dir = join(import.meta.dirname, '../../bpf/maps')
  return readdirSync(dir).flatMap((file) =>
    [...readFileSync(join(dir, file), 'utf8').matchAll(/^\} (\w+_v\d+) SEC\("\.maps"\);/gm)].flatMap(
      ([, name]) => name ?? [],
    ),
  )
}

/**
 * Every map of a node, byte for byte, of every processor. In which order LRU maps would give up their entries is not to be seen:
 * a look by a program counts there as use, and a question is one, of the tuple that it asks about.
 */
function dump(node: number): Map<string, string> {
  const dir = join(topology.node(node).pinDir, 'maps')
  return new Map(
    readdirSync(dir)
      .filter((name) => !notDumped.includes(name))
      .map((name) => {
        const text = execFileSync('bpftool', ['-j', 'map', 'dump', 'pinned', join(dir, name)], {
          encoding: 'utf8',
          maxBuffer: 1 << 30,
        })
        return [name, text]
      }),
  )
}

test('the first frame of a connection has the sums that a receiver would make', (t) => {
  for (const [source, destination] of [
    ['10.0.0.1', '10.0.0.2'],
    ['fd00::1', 'fd00::2'],
  ] as const)
    for (const protocol of ['TCP', 'UDP', 'ICMP'] as const) {
      const frame = firstFrame({ source, destination, port: 80, protocol })
      const is4 = frame.readUInt16BE(12) === 0x0800
      const payload = frame.subarray(is4 ? 34 : 54)
      if (is4) t.is(sum(frame.subarray(14, 34)), 0xffff)
      const addresses = is4 ? frame.subarray(26, 34) : frame.subarray(22, 54)
      const pseudo = Buffer.concat([
        addresses,
        Buffer.from([0, is4 ? (frame[23] ?? 0) : (frame[20] ?? 0), 0, payload.length]),
      ])
      t.is(
        sum(is4 && protocol === 'ICMP' ? payload : Buffer.concat([pseudo, payload])),
        0xffff,
        `${source} ${protocol}`,
      )
    }
  t.throws(() => firstFrame({ source: '10.0.0.1', destination: 'fd00::2', port: 1, protocol: 'TCP' }), {
    instanceOf: RangeError,
  })
})

function sum(bytes: Buffer): number {
  let total = 0
  for (let i = 0; i < bytes.length; i += 2) total += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return total
}
