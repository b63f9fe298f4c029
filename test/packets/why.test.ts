import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { firstFrame } from '#agent/why/packet.ts'
import { explain, type Step } from '#agent/why/why.ts'
import { decodeEvent, eventSize } from '#datapath/events/event.ts'
import { EventRing } from '#datapath/events/ring.ts'
import type { Probe } from '#datapath/probe.ts'
import { inPod, load, serve, type TestPod, Topology } from './topology.ts'

/** `weft why` on a real kernel: what the probe says is what happens, and asking changes nothing. */
let topology: Topology
let client: TestPod
let near: TestPod
let far: TestPod
const probes: Probe[] = []

const identities = { client: 300, near: 301, far: 302 } as const
const allow = { set: 7, rule: 11 } as const
const deny = { set: 8 } as const

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
    ],
    [],
  )
})
test.after.always(async () => {
  for (const probe of probes) probe[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})

function ask(node: number, hook: 'from_container' | 'from_netdev', from: string, to: string, port: number): Step[] {
  const { datapath } = topology.node(node)
  const probe = probes[node - 1]
  if (probe === undefined) throw new Error(`node ${node} has no probe`)
  return explain(
    {
      nodeName: `node-${node}`,
      datapath,
      names: { party: () => ({}), service: () => undefined, rule: () => undefined, set: () => [] },
      rules: {
        rule: (number) => ({
          ...{ namespace: 'default', name: `rule-${number}`, uid: 'u', generation: 1 },
          ...{ path: 'spec.ingress[0].from[0]', element: {} },
        }),
        set: (number) => [{ namespace: 'default', name: `set-${number}` }],
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

test.serial('what is said is what happens', async (t) => {
  await using _server = await serve({ ...inPod(near) }, near.v4, 80)
  t.true((await load({ ...inPod(client) }, 'crr', near.v4, 80, 50)) > 0)
  await using _other = await serve({ ...inPod(near) }, near.v4, 81)
  await t.throwsAsync(load({ ...inPod(client) }, 'crr', near.v4, 81, 50))
})

test.serial('asking writes no map, counts nothing and records nothing', (t) => {
  using events = EventRing.open(topology.node(1).pinDir)
  const room = Buffer.alloc(1000 * eventSize)
  t.true(events.drain(room) > 0, 'what happened is recorded')
  const denied = () =>
    topology
      .node(1)
      .datapath.counters()
      .filter(({ reason }) => reason === 'Policy denied')
  const before = { maps: dump(1), denied: denied() }
  for (let i = 0; i < 50; i++)
    for (const port of [80, 81]) {
      ask(1, 'from_container', client.v4, near.v4, port)
      ask(1, 'from_container', client.v6, near.v6, port)
    }
  t.deepEqual({ maps: dump(1), denied: denied() }, before)
  const recorded = Array.from({ length: events.drain(room) }, (_, i) => decodeEvent(room, i * eventSize))
  t.deepEqual(
    recorded.filter(({ protocol }) => protocol === 6),
    [],
  )
})

/**
 * The ring and the counters also hear the pods' own link chatter: of them only what is of the questions' kind is compared.
 * What is kept with sockets cannot be listed, and no packet program reads it.
 */
const notDumped = ['events_v1', 'counters_v2', 'connected_v1']

/** Every map of a node, byte for byte. */
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
