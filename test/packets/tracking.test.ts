import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { EndpointMap } from '#datapath/maps/endpoints.ts'
import { flowFlags } from '#datapath/maps/flows.ts'
import type { PolicyEntry } from '#datapath/maps/policy.ts'
import { setNotReady } from '#datapath/maps/policy.ts'
import { gatewayMac } from '#datapath/object.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { openPin, Program } from '#kernel/bpf/program.ts'
import { formatMac, parseMac } from '#kernel/netlink/netlink.ts'
import { writeFrame } from '#test/model/frame.ts'
import { parsePacket } from '#test/model/packet-text.ts'
import { Asked, counted, type Verdict } from './asked.ts'
import type { AtOnce } from './at-once.ts'
import { type TestPod, Topology } from './topology.ts'

/** Histories of packets, told to the compiled programs one by one with a clock of our own. */
let topology: Topology
let asked: Asked
let a: TestPod
let b: TestPod
let far: TestPod
/** Each test has ports of its own: flows of one are not another's. */
let port = 20_000
const ports = (): number => ++port

const identity = { a: 300, b: 301, far: 302 } as const
const any = { protocol: undefined, port: 0, portBits: 0 } as const
let set = 10

test.before(async () => {
  topology = await Topology.create({ label: 't', direct: 'programs' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  const { datapath, addresses } = topology.node(1)
  datapath.upsertIdentities([
    ...[a.v4, a.v6].map((address) => ({ address, identity: identity.a, owner: 'a' })),
    ...[b.v4, b.v6].map((address) => ({ address, identity: identity.b, owner: 'b' })),
    ...[far.v4, far.v6].map((address) => ({ address, identity: identity.far, owner: 'far', node: 2 })),
    ...addresses.map((address) => ({ address, identity: 1, owner: 'node1' })),
    ...topology.node(2).addresses.map((address) => ({ address, identity: 3, owner: 'node2', node: 2 })),
  ])
  asked = new Asked(topology.node(1), topology.objects)
})
test.after.always(async () => {
  asked?.[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})
test.afterEach.always(() => {
  topology
    .node(1)
    .datapath.changePolicy({ endpoints: [a, b].map((p) => ({ addresses: [p.v4, p.v6], egressSet: 0, ingressSet: 0 })) })
})

/** Isolates a direction of a pod: what these elements say, and nothing else. */
function isolate(
  pod: TestPod,
  direction: 'egress' | 'ingress',
  ...allowed: readonly Omit<PolicyEntry, 'set' | 'rule'>[]
) {
  const number = ++set
  topology.node(1).datapath.changePolicy({
    entries: allowed.map((entry, i) => ({ ...entry, set: number, rule: 100 * number + i })),
    endpoints: [
      { addresses: [pod.v4, pod.v6], ...(direction === 'egress' ? { egressSet: number } : { ingressSet: number }) },
    ],
  })
}

const passed = ({ verdict, reason }: Verdict): boolean => verdict !== 'drop' && reason === 'Forwarded'
const flowsOf = (number: number) =>
  topology
    .node(1)
    .datapath.flows()
    .filter(({ tuple }) => tuple.sourcePort === number || tuple.destinationPort === number)

/** SYN, SYN+ACK, ACK between a pod and another of its node; sequence numbers 1000 and 5000. */
function connect(
  t: { true(value: boolean): void },
  from: TestPod,
  to: TestPod,
  source: number,
  destination = 80,
): void {
  t.true(passed(asked.sent(from, `${from.v4} > ${to.v4} tcp ${source} > ${destination} syn seq 1000`)))
  t.true(passed(asked.sent(to, `${to.v4} > ${from.v4} tcp ${destination} > ${source} syn ack seq 5000 acks 1001`)))
  t.true(passed(asked.sent(from, `${from.v4} > ${to.v4} tcp ${source} > ${destination} ack seq 1001 acks 5001`)))
}

test.serial('a flow is one entry, established once it is answered, and gone once both ends have closed it', (t) => {
  const p = ports()
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 1000`)))
  t.is(flowsOf(p).length, 1)
  t.is((flowsOf(p)[0]?.flags ?? 0) & 2, 0, 'nobody has answered')
  asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn ack seq 5000 acks 1001`)
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 10`)
  const [flow] = flowsOf(p)
  t.like(flow, {
    tuple: { source: a.v4, destination: b.v4, sourcePort: p, destinationPort: 80, protocol: 6 },
    client: { identity: identity.a, packets: 2 },
    server: { identity: identity.b, packets: 1 },
  })
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 fin ack seq 1011 acks 5001`)
  asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} fin ack seq 5001 acks 1012`)
  t.is(flowsOf(p).length, 1)
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1012 acks 5002`)
  t.is(flowsOf(p).length, 0)
})

test.serial('S8: a SYN on a tuple that is closing begins another connection, judged anew', (t) => {
  const p = ports()
  connect(t, a, b, p)
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 fin ack seq 1001 acks 5001`)
  asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} fin ack seq 5001 acks 1001`)
  const before = flowsOf(p)[0]
  asked.ms += 500
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 900000`)))
  const after = flowsOf(p)[0]
  t.true((after?.born ?? 0n) > (before?.born ?? 0n))
  t.is((after?.flags ?? 0) & 2, 0, 'not answered yet')
})

test.serial('a SYN on a connection that is alive passes and changes nothing', (t) => {
  const p = ports()
  connect(t, a, b, p)
  const before = flowsOf(p)[0]
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 900000`)))
  t.is(flowsOf(p)[0]?.born, before?.born)
  t.is(flowsOf(p)[0]?.flags, before?.flags)
})

test.serial('a reset outside of the window does not close, one inside does', (t) => {
  const p = ports()
  connect(t, a, b, p)
  for (const seq of [0, 900, 4000, 5002, 70000, 4294960000]) {
    asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} rst seq ${seq}`)
    t.is(flowsOf(p).length, 1, `sequence ${seq}`)
  }
  asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} rst seq 5001`)
  t.is(flowsOf(p).length, 0)
})

test.serial(
  'a connection that is half closed is still there after an hour of silence, one closed both ways is not',
  (t) => {
    const p = ports()
    connect(t, a, b, p)
    asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 fin ack seq 1001 acks 5001`)
    isolate(a, 'ingress')
    asked.ms += 3_600_000
    t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 5001 acks 1002 data 100`)))
    asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} fin ack seq 5101 acks 1002`)
    asked.ms += 11_000
    isolate(a, 'egress')
    t.is(
      asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 5102 acks 1002`).reason,
      'Unknown connection tracking state',
    )
  },
)

test.serial('two SYNs that cross are one connection', (t) => {
  const p = ports()
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 1000`)
  asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn seq 5000`)
  t.is(flowsOf(p).length, 1)
  isolate(a, 'ingress')
  isolate(b, 'ingress', { peer: identity.a, ...any })
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn ack seq 5000 acks 1001`)))
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn ack seq 1000 acks 5001`)))
})

test.serial('UDP is established by its answer, ping by its identifier, SCTP by the tags that were asked for', (t) => {
  const p = ports()
  isolate(a, 'ingress')
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} udp ${p} > 53 data 5`)))
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} udp 53 > ${p} data 5`)))
  t.is((flowsOf(p)[0]?.flags ?? 0) & 2, 2)
  t.is(asked.sent(b, `${b.v4} > ${a.v4} udp 53 > ${p + 5000} data 5`).reason, 'Policy denied')

  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} ping ${p} number 1`)))
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} pong ${p} number 1`)))
  t.is(
    asked.sent(b, `${b.v4} > ${a.v4} ping ${p} number 1`).reason,
    'Policy denied',
    'S4: the same identifier, asked by the other',
  )

  const s = ports()
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} sctp ${s} > 9 chunk 1 tag 0 initiate 77`)))
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} sctp 9 > ${s} chunk 2 tag 12 initiate 88`)))
  t.is((flowsOf(s)[0]?.flags ?? 0) & 2, 0, 'by another tag')
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} sctp 9 > ${s} chunk 2 tag 77 initiate 88`)))
  t.is((flowsOf(s)[0]?.flags ?? 0) & 2, 2)
})

test.serial(
  'P1: an answer whose flow was forgotten is judged both ways, and its connection goes on where either allows',
  (t) => {
    const p = ports()
    isolate(a, 'ingress')
    isolate(b, 'ingress', { peer: identity.a, protocol: 6, port: 80, portBits: 16 })
    t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 5001 acks 1001 data 10`)))
    t.is(flowsOf(p)[0]?.tuple.source, a.v4, 'the client is who may begin it')
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5011`)))
    t.is(asked.sent(b, `${b.v4} > ${a.v4} tcp 81 > ${p} ack seq 1 acks 1`).reason, 'Unknown connection tracking state')
  },
)

test.serial('an adopted connection is established by the other end only', (t) => {
  const p = ports()
  isolate(a, 'ingress')
  for (let i = 0; i < 3; i++) asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq ${5001 + i} acks 1001 data 1`)
  t.is((flowsOf(p)[0]?.flags ?? 0) & 2, 0)
  asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5004`)
  t.is((flowsOf(p)[0]?.flags ?? 0) & 2, 2)
})

test.serial('P2: a change of policies cuts an established connection, whichever end speaks next; others go on', (t) => {
  for (const speaker of ['client', 'server'] as const) {
    const [p, q] = [ports(), ports()]
    connect(t, a, b, p)
    connect(t, a, b, q, 81)
    isolate(b, 'ingress', { peer: identity.a, protocol: 6, port: 81, portBits: 16 })
    const cut =
      speaker === 'client'
        ? asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 50`)
        : asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 5001 acks 1001 data 50`)
    t.is(cut.reason, 'Policy denied')
    t.is(cut.verdict, 'redirect', 'the other end hears a reset')
    t.is(cut.data.length, 54)
    t.is(cut.data[47], 0x14, 'RST, ACK')
    t.is(cut.data.readUInt32BE(38), speaker === 'client' ? 1001 : 5001, 'in its window')
    t.is(flowsOf(p).length, 0)
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${q} > 81 ack seq 1001 acks 5001 data 50`)))
    topology.node(1).datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 0 }] })
  }
})

test.serial(
  'P2: what a policy meets half open ends at both ends: the reset that goes on is one its receiver takes',
  (t) => {
    const syn = (p: number) => asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 1000`)
    const synAck = (p: number) => asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn ack seq 5000 acks 1001`)
    const cases: [
      string,
      readonly ((p: number) => Verdict)[],
      (p: number) => Verdict,
      readonly [string, number, number, number],
    ][] = [
      // In SYN-SENT only what acknowledges the SYN is taken, in SYN-RECEIVED only the number behind it.
      ['the answer', [syn], synAck, [a.v4, 0x14, 5001, 1001]],
      ['the answer again', [syn, synAck], synAck, [a.v4, 0x14, 5001, 1001]],
      [
        'a SYN that crosses',
        [syn],
        (p) => asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn seq 5000`),
        [a.v4, 0x14, 5001, 1001],
      ],
      [
        'a reset',
        [syn],
        (p) => asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} rst ack seq 0 acks 1001`),
        [a.v4, 0x14, 0, 1001],
      ],
      [
        'an acknowledgement of something else',
        [syn],
        (p) => asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 77 acks 9`),
        [a.v4, 0x14, 77, 1001],
      ],
      ['the SYN again', [syn], syn, [b.v4, 0x04, 1001, 0]],
      ['the SYN again, answered', [syn, synAck], syn, [b.v4, 0x04, 1001, 0]],
      [
        'the last of three',
        [syn, synAck],
        (p) => asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001`),
        [b.v4, 0x14, 1001, 5001],
      ],
    ]
    for (const [what, before, next, wanted] of cases) {
      const p = ports()
      for (const step of before) t.true(passed(step(p)), what)
      isolate(b, 'ingress')
      const { reason, verdict, data } = next(p)
      t.is(`${reason} ${verdict} ${data.length}`, 'Policy denied redirect 54', what)
      t.deepEqual(
        [data.subarray(30, 34).join('.'), data[47], data.readUInt32BE(38), data.readUInt32BE(42)],
        wanted,
        what,
      )
      t.is(flowsOf(p).length, 0, what)
      topology.node(1).datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: 0 }] })
    }
    // Not yet known is not denied: who asks is to ask again.
    const p = ports()
    t.true(passed(syn(p)))
    topology.node(1).datapath.changePolicy({ endpoints: [{ addresses: [b.v4, b.v6], ingressSet: setNotReady }] })
    t.like(synAck(p), { reason: 'Host datapath not ready', verdict: 'drop' })
  },
)

test.serial('P3: the pod’s own node always reaches it, and is answered; another node does not', (t) => {
  const [node, other] = [topology.node(1).addresses[0], topology.node(2).addresses[0]]
  isolate(a, 'ingress')
  isolate(a, 'egress')
  const [p, q] = [ports(), ports()]
  t.is(asked.handed(a, `${node} > ${a.v4} tcp ${p} > 80 syn seq 1`).verdict, 'pass')
  t.true(passed(asked.sent(a, `${a.v4} > ${node} tcp 80 > ${p} syn ack seq 5 acks 2`)))
  t.is(asked.handed(a, `${node} > ${a.v4} udp ${p} > 53 data 1`).verdict, 'pass')
  t.true(passed(asked.sent(a, `${a.v4} > ${node} udp 53 > ${p} data 1`)))
  t.is(
    asked.arrived(`${other} > ${a.v4} tcp ${q} > 80 syn seq 1`).reason,
    'Policy denied',
    'P4: nor do its host-network pods',
  )
})

test.serial('P12: another pod with the address has nothing of the old one’s connections', async (t) => {
  const p = ports()
  isolate(a, 'ingress')
  t.true(passed(asked.sent(a, `${a.v4} > ${far.v4} udp ${p} > 53 data 1`)))
  t.true(passed(asked.arrived(`${far.v4} > ${a.v4} udp 53 > ${p} data 1`)))
  // Far's address is now another pod's of the very same labels.
  const { datapath } = topology.node(1)
  datapath.upsertIdentities([{ address: far.v4, identity: identity.far, owner: 'another', node: 2 }])
  t.is(asked.arrived(`${far.v4} > ${a.v4} udp 53 > ${p} data 1`).reason, 'Policy denied')
  // A change of labels is no change of pods.
  const q = ports()
  t.true(passed(asked.sent(a, `${a.v4} > ${far.v4} udp ${q} > 53 data 1`)))
  t.true(passed(asked.arrived(`${far.v4} > ${a.v4} udp 53 > ${q} data 1`)))
  datapath.upsertIdentities([{ address: far.v4, identity: 399, owner: 'another', node: 2 }])
  t.true(passed(asked.arrived(`${far.v4} > ${a.v4} udp 53 > ${q} data 1`)), 'P13: labels change without a loss')
  datapath.upsertIdentities([{ address: far.v4, identity: identity.far, owner: 'far', node: 2 }])
})

test.serial(
  'P6, P7: a network’s rule matches pods too, its exception does not, and one family opens nothing of the other',
  (t) => {
    const { datapath } = topology.node(1)
    datapath.changePolicy({
      networks: new Map([
        ['10.244.2.0/24', 2 ** 24],
        [`${far.v4}/32`, 2 ** 24 + 1],
      ]),
    })
    isolate(a, 'egress', { peer: 2 ** 24, ...any })
    t.true(passed(asked.sent(a, `${a.v4} > 10.244.2.77 tcp ${ports()} > 80 syn`)))
    t.is(asked.sent(a, `${a.v4} > ${far.v4} tcp ${ports()} > 80 syn`).reason, 'Policy denied')
    t.is(asked.sent(a, `${a.v6} > ${far.v6} tcp ${ports()} > 80 syn`).reason, 'Policy denied')
    datapath.changePolicy({ removedNetworks: ['10.244.2.0/24', `${far.v4}/32`] })
  },
)

test.serial('P10: a range of ports is its prefixes, 0 and 65535 included', (t) => {
  isolate(
    a,
    'egress',
    { peer: identity.b, protocol: 17, port: 8192, portBits: 3 },
    { peer: identity.b, protocol: 17, port: 65535, portBits: 16 },
    { peer: identity.b, protocol: 17, port: 0, portBits: 16 },
  )
  const udp = (destination: number) => passed(asked.sent(a, `${a.v4} > ${b.v4} udp ${ports()} > ${destination} data 1`))
  t.deepEqual([0, 1, 8191, 8192, 16383, 16384, 65534, 65535].filter(udp), [0, 8192, 16383, 65535])
})

test.serial(
  'P18, S3: a rule for ports allows no ping; an error about an allowed flow passes, one about another does not',
  (t) => {
    const p = ports()
    isolate(a, 'egress', { peer: identity.b, protocol: 17, port: 53, portBits: 16 })
    isolate(a, 'ingress')
    t.is(asked.sent(a, `${a.v4} > ${b.v4} ping ${p} number 1`).reason, 'Policy denied')
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} udp ${p} > 53 data 30`)))
    const about = (port: number) => `( ${a.v4} > ${b.v4} udp ${p} > ${port} data 30 )`
    t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} unreachable code 3 about ${about(53)} quoting 28`)))
    t.is(
      asked.sent(b, `${b.v4} > ${a.v4} unreachable code 3 about ${about(54)} quoting 28`).reason,
      'Forbidden ICMP message',
    )
    t.is(
      asked.sent(b, `${b.v4} > ${a.v4} unreachable code 3 about ${about(53)} quoting 22`).reason,
      'CT: Truncated or invalid header',
    )
    t.is(
      asked.sent(
        b,
        `${b.v4} > ${a.v4} unreachable code 3 about ( ${a.v4} > ${far.v4} udp ${p} > 53 data 30 ) quoting 28`,
      ).reason,
      'Forbidden ICMP message',
      'of what was not sent to it',
    )
    t.true(
      passed(asked.arrived(`172.30.0.99 > ${a.v4} too-big code 4 mtu 1400 about ${about(53)} quoting 28`)),
      'any router may',
    )
  },
)

for (const [title, from, to] of [
  ['IPv4', () => a.v4, () => b.v4],
  ['IPv6', () => a.v6, () => b.v6],
] as const)
  test.serial(`S5: later fragments go where the first one went, and not without it (${title})`, (t) => {
    const p = ports()
    const [source, destination] = [from(), to()]
    isolate(b, 'ingress', { peer: identity.a, protocol: 17, port: 53, portBits: 16 })
    const fragment = (id: number, at: number, what: string) =>
      asked.sent(a, `${source} > ${destination} fragment ${id} at ${at} more ${what}`)
    t.is(fragment(7, 1480, 'protocol 17 data 100').reason, 'First logical datagram fragment not found')
    t.true(passed(fragment(7, 0, `udp ${p} > 53 data 1400`)))
    t.true(passed(fragment(7, 1480, 'protocol 17 data 100')))
    t.is(
      fragment(8, 1480, 'protocol 17 data 100').reason,
      'First logical datagram fragment not found',
      'of another datagram',
    )
    // Another datagram with the same identification: its own ports.
    t.is(fragment(7, 0, `udp ${p} > 54 data 1400`).reason, 'Policy denied')
    t.is(fragment(7, 1480, 'protocol 17 data 100').reason, 'Policy denied')
    t.true(passed(fragment(9, 0, `udp ${p} > 53 data 1400`)))
    asked.ms += 31_000
    t.is(fragment(9, 1480, 'protocol 17 data 100').reason, 'First logical datagram fragment not found', 'long ago')
    t.is(fragment(10, 8, 'protocol 6 data 100').reason, 'Invalid packet', 'over the first one’s flags (RFC 1858)')
  })

test.serial(
  'S28: ports are found behind IPv4 options and IPv6 extension headers; what cannot be judged goes no further',
  (t) => {
    isolate(b, 'ingress', { peer: identity.a, protocol: 6, port: 80, portBits: 16 })
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} options 40 tcp ${ports()} > 80 syn`)))
    t.is(asked.sent(a, `${a.v4} > ${b.v4} options 4 tcp ${ports()} > 81 syn`).reason, 'Policy denied')
    const six = (what: string) => asked.sent(a, `${a.v6} > ${b.v6} ${what}`)
    t.true(passed(six(`ext hop-by-hop ext destination ext routing ext authentication tcp ${ports()} > 80 syn`)))
    t.is(six(`ext destination tcp ${ports()} > 81 syn`).reason, 'Policy denied')
    t.is(six(`ext destination ext hop-by-hop tcp ${ports()} > 80 syn`).reason, 'Invalid IPv6 extension header')
    t.is(six(`ext routing lie segments tcp ${ports()} > 80 syn`).reason, 'Invalid IPv6 extension header')
    t.is(six(`${'ext destination '.repeat(9)}tcp ${ports()} > 80 syn`).reason, 'Invalid IPv6 extension header')
    t.is(asked.sent(a, `${a.v4} > ${b.v4} tcp ${ports()} > 80 syn short 19`).reason, 'CT: Truncated or invalid header')
    t.is(
      asked.sent(a, `${a.v4} > ${b.v4} lie offset tcp ${ports()} > 80 syn`).reason,
      'CT: Truncated or invalid header',
    )
    t.is(six(`tcp ${ports()} > 80 syn cut 60`).reason, 'Invalid packet')
  },
)

test.serial(
  'P20: a refusal is a reset or an ICMP error with right checksums, and nothing answers resets or errors',
  (t) => {
    isolate(b, 'ingress')
    const p = ports()
    const syn = asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 1000`)
    t.like(syn, { verdict: 'redirect', reason: 'Policy denied' })
    t.is(syn.data[47], 0x14)
    t.is(syn.data.readUInt32BE(42), 1001)
    t.deepEqual([syn.data.subarray(26, 30), syn.data.subarray(30, 34)], [bytes(b.v4), bytes(a.v4)])
    t.is(sum(syn.data.subarray(14, 34)), 0)
    t.is(sum(pseudo(syn.data, 20)), 0)
    const udp = asked.sent(a, `${a.v4} > ${b.v4} udp ${p} > 53 data 20`)
    t.is(udp.verdict, 'redirect')
    t.deepEqual([udp.data[34], udp.data[35]], [3, 13])
    t.is(sum(udp.data.subarray(34)), 0)
    t.is(udp.data.readUInt16BE(34 + 8 + 20), p, 'quoted')
    const six = asked.sent(a, `${a.v6} > ${b.v6} tcp ${p} > 80 syn seq 1000`)
    t.is(six.verdict, 'redirect')
    t.is(sum(pseudo6(six.data)), 0)
    const udp6 = asked.sent(a, `${a.v6} > ${b.v6} udp ${p} > 53 data 20`)
    t.deepEqual([udp6.data[54], udp6.data[55]], [1, 1])
    t.is(sum(pseudo6(udp6.data)), 0)
    isolate(a, 'ingress')
    t.is(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 rst seq 1000`).verdict, 'drop')
    t.is(
      asked.sent(a, `${a.v4} > ${b.v4} unreachable code 3 about ( ${b.v4} > ${a.v4} udp 53 > ${p} ) quoting 28`)
        .verdict,
      'drop',
    )
  },
)

test.serial('P20: a pod is answered a thousand times a second, then refused in silence and counted', (t) => {
  isolate(b, 'ingress')
  asked.ms += 10_000
  const answers = Array.from({ length: 1100 }, () => asked.sent(a, `${a.v4} > ${b.v4} udp 1 > 53 data 1`))
  t.is(answers.filter((x) => x.verdict === 'redirect').length, 1000)
  t.is(answers.filter((x) => x.reason === 'Rate limited').length, 100)
  asked.ms += 1_000
  t.is(asked.sent(a, `${a.v4} > ${b.v4} udp 1 > 53 data 1`).verdict, 'redirect')
})

test.serial(
  'P21: what is not known is not allowed: sets that are not there yet, and pods that nobody has named',
  (t) => {
    const { datapath } = topology.node(1)
    datapath.changePolicy({ endpoints: [{ addresses: [a.v4], ingressSet: setNotReady, egressSet: 9_999 }] })
    const refused = counted(topology.node(1), () => {
      t.is(asked.sent(b, `${b.v4} > ${a.v4} tcp ${ports()} > 80 syn`).reason, 'Host datapath not ready')
    })
    t.deepEqual(refused, ['INGRESS Host datapath not ready'])
    t.is(asked.sent(a, `${a.v4} > ${b.v4} tcp ${ports()} > 80 syn`).reason, 'Policy denied', 'a set without an element')
    isolate(a, 'ingress', { peer: identity.b, ...any })
    t.is(asked.arrived(`10.244.2.88 > ${a.v4} tcp ${ports()} > 80 syn`).reason, 'Unknown sender')
  },
)

test.serial(
  'P25: an address of this node does not come from outside, not even into a connection that there is',
  (t) => {
    const p = ports()
    connect(t, a, b, p)
    for (const text of [
      `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 5`,
      `${a.v4} > ${b.v4} tcp ${ports()} > 80 syn`,
      `${topology.node(1).addresses[0]} > ${b.v4} tcp ${ports()} > 80 syn`,
      `${topology.node(1).addresses[1]} > ${b.v6} udp ${ports()} > 53`,
    ])
      t.is(asked.arrived(text).reason, 'Invalid identity')
  },
)

test.serial(
  'flows that are over are swept; a pod that holds its share is refused another, which is nobody else’s',
  async (t) => {
    using small = new Asked(topology.node(1), topology.objects, { flowShare: 20 })
    // The sweep has the kernel's clock: these are as old as an answered UDP flow gets, and a second.
    small.ms = Number(process.hrtime.bigint() / 1_000_000n) - 181_000
    await topology.node(1).datapath.sweepFlows()
    const open = (from: TestPod, n: number) => {
      small.sent(from, `${from.v4} > ${far.v4} udp ${n} > 53 data 1`)
      return small.arrived(`${far.v4} > ${from.v4} udp 53 > ${n} data 1`).reason
    }
    const answers = Array.from({ length: 60 }, (_, i) => open(b, 30_000 + i))
    t.true(answers.filter((reason) => reason === 'CT: Pod holds its share of flows').length >= 40)
    t.true(answers.includes('Forwarded'))
    small.ms += 181_000 - 10_000
    t.is(open(a, 31_000), 'Forwarded')
    const { removed } = await topology.node(1).datapath.sweepFlows()
    t.true(removed >= answers.filter((reason) => reason === 'Forwarded').length)
    t.is(flowsOf(31_000).length, 1)
    t.is(open(b, 31_001), 'Forwarded', 'there is room again')
    // What two processors count off at once is less than nothing for a moment, and must not be more than everything.
    const pinned = (name: string): BpfMap => new BpfMap(openPin(join(topology.node(1).pinDir, 'maps', name)) ?? -1)
    using endpoints = pinned('endpoints_v2')
    using shares = pinned('shares_v1')
    const number = Buffer.alloc(4)
    number.writeUInt32LE(new EndpointMap(endpoints).get(b.v4)?.number ?? 0)
    const before = shares.lookup(number) ?? Buffer.alloc(4)
    shares.update(number, Buffer.from('feffffff', 'hex'))
    t.is(open(b, 31_002), 'Forwarded')
    shares.update(number, before)
  },
)

test.serial(
  'P21, L2: where there is no room for another established flow, it is refused and said; those that there are go on',
  (t) => {
    const node = topology.node(1)
    const dir = join(node.pinDir, 'small')
    mkdirSync(dir)
    using small = new Asked(node, topology.objects, {}, { dir, flowsMax: 64 })
    using map = new BpfMap(openPin(join(dir, 'endpoints_v2')) ?? -1)
    const entries = new EndpointMap(map)
    for (const [i, { v4, endpoint }] of [a, b].entries())
      entries.set(v4, {
        identity: 300,
        egressSet: 0,
        ingressSet: 0,
        since: 0,
        owner: 1,
        ifindex: endpoint.ifindex,
        mac: endpoint.mac,
        number: i + 1,
      })
    const answered = (n: number): string => {
      small.sent(a, `${a.v4} > ${b.v4} tcp ${n} > 80 syn seq 1000`)
      return small.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${n} syn ack seq 5000 acks 1001`).reason
    }
    const reasons = Array.from({ length: 100 }, (_, i) => answered(1_000 + i))
    t.is(reasons.filter((reason) => reason === 'Forwarded').length, 64)
    t.is(reasons.filter((reason) => reason === 'CT: Map insertion failed').length, 36)
    t.is(reasons.indexOf('CT: Map insertion failed'), 64)
    t.true(passed(small.sent(a, `${a.v4} > ${b.v4} tcp 1000 > 80 ack seq 1001 acks 5001 data 10`)))
    // One that ends makes room.
    small.sent(a, `${a.v4} > ${b.v4} tcp 1000 > 80 rst seq 1011`)
    t.is(answered(1_099), 'Forwarded')
    for (const name of readdirSync(dir)) rmSync(join(dir, name))
    rmSync(dir, { recursive: true })
  },
)

test.serial(
  'P25: another’s address is refused in a known connection, too; one that was given back is nobody’s at once, then its next owner’s',
  async (t) => {
    const p = ports()
    const { datapath } = topology.node(1)
    const leaving = await topology.node(1).addPod()
    const destination = ({ data }: Verdict): string => formatMac(data.subarray(0, 6))
    connect(t, a, leaving, p)
    const question = `${a.v4} > ${leaving.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 10`
    const answer = `${leaving.v4} > ${a.v4} tcp 80 > ${p} ack seq 5001 acks 1011 data 10`
    t.is(destination(asked.sent(a, question)), leaving.endpoint.mac)
    t.true(passed(asked.sent(leaving, answer)))
    t.is(asked.sent(b, question).reason, 'Invalid source ip')
    datapath.removeEndpoint(leaving.endpoint)
    t.is(asked.sent(leaving, answer).reason, 'Invalid source ip')
    t.not(destination(asked.sent(a, question)), leaving.endpoint.mac)
    const next = { ...leaving.endpoint, mac: '02:00:00:00:77:01', owner: 'the next' }
    await datapath.upsertEndpoint(next)
    t.is(destination(asked.sent(a, `${a.v4} > ${leaving.v4} tcp ${ports()} > 80 syn seq 1000`)), next.mac)
    datapath.removeEndpoint(next)
  },
)

test.serial('two processors that make the same flow at once make one, whichever end is first', async (t) => {
  const node = topology.node(1)
  const programs = join(node.pinDir, 'programs')
  const version = readdirSync(programs).find((name) => name.startsWith('from_container-')) ?? ''
  const count = 1_500
  const turns = new SharedArrayBuffer(8)
  // SYNs that cross.
  const texts = (i: number) => [
    `${a.v4} > ${b.v4} tcp ${40_000 + i} > 7777 syn seq 1000`,
    `${b.v4} > ${a.v4} tcp 7777 > ${40_000 + i} syn seq 5000`,
  ]
  const frame = Buffer.alloc(4096)
  const run = (self: 0 | 1): Promise<readonly number[]> => {
    const from = self === 0 ? a : b
    const frames = new SharedArrayBuffer(54 * count)
    for (let i = 0; i < count; i++) {
      const packet = parsePacket(texts(i)[self] ?? '')
      const length = writeFrame(frame, packet, parseMac(gatewayMac), parseMac(from.endpoint.mac))
      new Uint8Array(frames, 54 * i, 54).set(frame.subarray(0, length))
    }
    const data: AtOnce = {
      program: join(programs, version, 'from_container'),
      namespace: topology.name('node1'),
      ifindex: from.endpoint.ifindex,
      frames,
      frameLength: 54,
      count,
      turns,
      self,
    }
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./at-once.ts', import.meta.url), { workerData: data })
      worker.once('message', resolve)
      worker.once('error', reject)
    })
  }
  const verdicts = await Promise.all([run(0), run(1)])
  t.deepEqual(
    verdicts.map((list) => list.filter((verdict) => verdict !== 7).length),
    [0, 0],
  )
  const flows = node.datapath
    .flows()
    .filter(({ tuple: { sourcePort, destinationPort } }) => sourcePort === 7777 || destinationPort === 7777)
  t.is(flows.length, count)
  t.true(
    flows.every(({ flags }) => (flags & 2) === 2),
    'each has heard both',
  )
  t.true(new Set(flows.map(({ tuple }) => tuple.source)).size <= 2)
})

test.serial(
  'L2: in a flood, flows wait for their answers elsewhere, the oldest goes first, and all else is as ever',
  (t) => {
    using flooded = new Asked(topology.node(1), topology.objects, { unansweredMax: 0 })
    flooded.ms = asked.ms
    const [p, q] = [ports(), ports()]
    isolate(a, 'ingress')
    t.true(passed(flooded.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 syn seq 1000`)))
    t.is(flowsOf(p).length, 1)
    t.is((flowsOf(p)[0]?.flags ?? 0) & flowFlags.established, 0)
    t.true(passed(flooded.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} syn ack seq 5000 acks 1001`)))
    t.is(flowsOf(p).length, 1)
    t.not((flowsOf(p)[0]?.flags ?? 0) & flowFlags.established, 0)
    t.true(passed(flooded.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 5`)))
    t.true(passed(flooded.sent(a, `${a.v4} > ${b.v4} udp ${q} > 53 data 5`)))
    flooded.ms += 61_000
    t.is(flooded.sent(b, `${b.v4} > ${a.v4} udp 53 > ${q} data 5`).reason, 'Policy denied', 'too late')
  },
)

test.serial('S29: a checksum that was not made is not made here; one that was stays right', (t) => {
  const unsummed = asked.sent(a, `${a.v4} > ${b.v4} udp ${ports()} > 53 unsummed data 10`)
  t.true(passed(unsummed))
  t.is(unsummed.data.readUInt16BE(40), 0)
  const segment = asked.sent(a, `${a.v4} > ${b.v4} tcp ${ports()} > 80 syn seq 7`)
  t.is(sum(pseudo(segment.data, 20)), 0)
  const six = asked.sent(a, `${a.v6} > ${b.v6} udp ${ports()} > 53 data 10`)
  t.is(sum(pseudo6(six.data)), 0)
})

test.serial(
  'the short way is no way around: another pod’s name, a piece of a datagram, a connection that is over',
  (t) => {
    const p = ports()
    const [asks, answers] = [`${a.v4} > ${b.v4} udp ${p} > 53`, `${b.v4} > ${a.v4} udp 53 > ${p}`]
    asked.sent(a, `${asks} data 10`)
    asked.sent(b, `${answers} data 10`)
    // Whoever sent this is remembered, too.
    t.true(passed(asked.sent(b, `${answers} data 10`)))
    t.is(asked.sent(b, `${asks} data 10`).reason, 'Invalid source ip')
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} fragment 71 at 0 more udp ${p} > 53 data 1400`)))
    t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} fragment 71 at 1408 protocol 17 data 100`)))
    // The stack says that there is no hop left.
    t.is(asked.sent(a, `${a.v4} > ${b.v4} hops 1 udp ${p} > 53 data 10`).verdict, 'pass')
    isolate(b, 'egress')
    t.true(passed(asked.sent(b, `${answers} data 10`)))
    asked.ms += 179_000
    t.true(passed(asked.sent(b, `${answers} data 10`)))
    asked.ms += 181_000
    t.is(asked.sent(b, `${answers} data 10`).reason, 'Policy denied')
  },
)

test.serial('L7: a processor that looked at the clock a tick before another one loses no connection of theirs', (t) => {
  const tick = 4
  const p = ports()
  connect(t, a, b, p)
  isolate(b, 'egress')
  asked.sent(a, `${a.v4} > ${b.v4} udp ${p} > 53 data 10`)
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} udp 53 > ${p} data 10`)))
  asked.sent(a, `${a.v4} > ${b.v4} fragment 70 at 0 more udp ${p} > 9 data 16`)
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} tcp ${p} > 80 ack seq 1001 acks 5001 data 1`)))
  const before = flowsOf(p).map(({ born }) => born)
  asked.ms -= tick
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} udp 53 > ${p} data 10`)))
  t.true(passed(asked.sent(b, `${b.v4} > ${a.v4} tcp 80 > ${p} ack seq 5001 acks 1002`)))
  t.true(passed(asked.sent(a, `${a.v4} > ${b.v4} fragment 70 at 24 protocol 17 data 16`)))
  t.deepEqual(
    flowsOf(p).map(({ born }) => born),
    before,
  )
  asked.ms += tick
})

test.serial('L7: the programs’ clock is the one that user space reads, to within a second', (t) => {
  const before = process.hrtime.bigint()
  const real = node1Program('from_container')
  const p = ports()
  const frame = Buffer.alloc(4096)
  const packet = parsePacket(`${a.v4} > ${b.v4} udp ${p} > 53 data 1`)
  const length = writeFrame(frame, packet, parseMac(gatewayMac), parseMac(a.endpoint.mac))
  const context = Buffer.alloc(192)
  context.writeUInt32LE(a.endpoint.ifindex, 40)
  topology.node(1).namespace.within(() => real.testRun(frame.subarray(0, length), { context }))
  real[Symbol.dispose]()
  const seen = flowsOf(p)[0]?.seen ?? 0n
  const second = 1_000_000_000n
  t.true(seen > before - second && seen < before + second, `${seen} at ${before}`)
})

function node1Program(name: string): Program {
  const programs = join(topology.node(1).pinDir, 'programs')
  const version = readdirSync(programs).find((entry) => entry.startsWith(`${name}-`)) ?? ''
  const program = Program.openPin(join(programs, version, name))
  if (program === undefined) throw new Error(`${name} is not pinned`)
  return program
}

const bytes = (address: string): Buffer => Buffer.from(address.split('.').map(Number))

/** The complement's sum: 0 where the checksum in it is right. */
function sum(data: Buffer): number {
  let total = 0
  for (let i = 0; i < data.length; i += 2) total += (data[i] ?? 0) * 256 + (data[i + 1] ?? 0)
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16)
  return ~total & 0xffff
}

function pseudo(frame: Buffer, length: number): Buffer {
  const tail = Buffer.alloc(4)
  tail[1] = frame[23] ?? 0
  tail.writeUInt16BE(length, 2)
  return Buffer.concat([frame.subarray(26, 34), tail, frame.subarray(34, 34 + length)])
}

function pseudo6(frame: Buffer): Buffer {
  const rest = frame.subarray(54)
  const tail = Buffer.alloc(8)
  tail.writeUInt32BE(rest.length, 0)
  tail[7] = frame[20] ?? 0
  return Buffer.concat([frame.subarray(22, 54), tail, rest])
}
