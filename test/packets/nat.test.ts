import test from 'ava'
import { type Service, serviceNumber } from '#datapath/datapath.ts'
import { openMap } from '#datapath/load.ts'
import { EndpointMap } from '#datapath/maps/endpoints.ts'
import { encodeTuple } from '#datapath/maps/flows.ts'
import { rewriteFlags } from '#datapath/maps/translations.ts'
import { Attached } from './attached.ts'
import {
  answer,
  at,
  frame,
  packet,
  plain,
  read,
  readPacket,
  type Seen,
  type Segment,
  type Sketch,
  sum16,
} from './frames.ts'
import { type TestPod, Topology } from './topology.ts'

/** Services and masquerade packet by packet: BPF_PROG_TEST_RUN on a node's own programs and maps, nothing is sent. */
const verdicts = { pass: 0, drop: 2, redirect: 7 } as const
const outside = { v4: '172.30.0.77', v6: 'fd00:172:30::77' } as const
const vip = { v4: '10.96.0.80', v6: 'fd00:10:96::80' } as const
const families = ['v4', 'v6'] as const
type Family = (typeof families)[number]

let topology: Topology
let a: TestPod
let b: TestPod
let far: TestPod
let attached: Attached
const own = (family: Family): string => topology.node(1).addresses[family === 'v4' ? 0 : 1] ?? ''

test.before(async () => {
  topology = await Topology.create({ label: 'n', direct: 'programs' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  attached = new Attached(topology.node(1))
  const [one] = topology.nodes
  for (const [destination, gateway] of [
    ['0.0.0.0/0', '172.30.0.12'],
    ['::/0', 'fd00:172:30::12'],
  ] as const)
    await one?.netlink.setRoute({ destination, gateway, deviceIndex: one.namespace.ifindex('eth0') })
  const { datapath } = topology.node(1)
  datapath.setAddresses([
    { address: own('v4'), kind: 'own' },
    { address: own('v6'), kind: 'own' },
    { address: '172.30.0.12', kind: 'node' },
    { address: 'fd00:172:30::12', kind: 'node' },
    { address: '172.30.0.200', kind: 'virtual' },
    { address: 'fd00:172:30::200', kind: 'virtual' },
    { address: '198.51.100.9', kind: 'external' },
  ])
})
test.after.always(async () => {
  attached?.[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})

interface Outcome {
  readonly verdict: number
  readonly reasons: readonly string[]
  /** The packet that came out, its checksums proved. */
  readonly seen: Seen
}

function outcome(name: string, s: Sketch, ifindex: number): Outcome {
  const counters = () => topology.node(1).datapath.counters()
  const before = counters()
  const { verdict, data } = attached.run(name, frame(s), ifindex)
  // The pods' own stacks say something now and then, by multicast.
  const reasons = counters().flatMap((c, i) =>
    c.packets > (before[i]?.packets ?? 0) && c.reason !== 'Multicast or link-local destination' ? [c.reason] : [],
  )
  return { verdict, reasons, seen: read(data) }
}

const sent = (from: TestPod, s: Omit<Sketch, 'source'> & { source?: string }): Outcome =>
  outcome('from_container', { source: s.destination.includes(':') ? from.v6 : from.v4, ...s }, from.endpoint.ifindex)
const arrived = (s: Sketch): Outcome => outcome('from_netdev', s, topology.node(1).namespace.ifindex('eth0'))

let ports = 20_000
/** A source port that no other test has used. */
const fresh = (): number => ports++

function serve(
  address: string,
  port: number,
  backends: readonly (readonly [string, number])[],
  more: Partial<Service> = {},
): void {
  topology.node(1).datapath.changeServices(
    (['TCP', 'UDP', 'SCTP'] as const).map((protocol): Service => {
      const list = backends.map(([ip, number]) => ({ address: ip, port: number, protocol }))
      const outsideOf = more.outside === undefined ? {} : { outside: { ...more.outside, backends: list } }
      return {
        number: serviceNumber(`test/${address}`),
        port,
        ...more,
        frontend: { address, port, protocol },
        backends: list,
        ...outsideOf,
      }
    }),
    [],
  )
}
const reachable = { outside: { backends: [] } }

for (const family of families) {
  test.serial(
    `S26: a pod’s packet to a cluster address goes to the backend, the answer comes from the address (${family})`,
    (t) => {
      serve(vip[family], 80, [[b[family], 8080]])
      for (const protocol of ['TCP', 'UDP'] as const) {
        const sourcePort = fresh()
        const question = sent(a, { destination: vip[family], sourcePort, protocol })
        t.deepEqual(question.reasons, ['Forwarded'])
        t.is(question.seen.to, at(b[family], 8080))
        t.is(question.seen.from, at(a[family], sourcePort))
        const back = sent(b, answer(question.seen, { protocol }))
        t.is(back.verdict, verdicts.redirect)
        t.is(back.seen.from, at(vip[family], 80))
        t.is(back.seen.to, at(a[family], sourcePort))
        t.is(sent(a, { destination: vip[family], sourcePort, protocol, flags: 'A' }).seen.to, at(b[family], 8080))
        const pair = topology.node(1).datapath.translations()
        const known = pair.filter(({ from, to }) =>
          [from, to].some((x) => x.sourcePort === sourcePort || x.destinationPort === sourcePort),
        )
        t.is(known.length, 2)
        t.deepEqual(new Set(known.map(({ service }) => service)), new Set([serviceNumber(`test/${vip[family]}`)]))
      }
    },
  )

  test.serial(`a backend on another node answers by the uplink, under the cluster address (${family})`, (t) => {
    serve(vip[family], 81, [[far[family], 8080]])
    const sourcePort = fresh()
    const question = sent(a, { destination: vip[family], destinationPort: 81, sourcePort })
    t.is(question.seen.to, at(far[family], 8080))
    const back = arrived(answer(question.seen))
    t.is(back.verdict, verdicts.redirect)
    t.deepEqual([back.seen.from, back.seen.to], [at(vip[family], 81), at(a[family], sourcePort)])
  })

  test.serial(
    `S1: a pod that is its own backend hears from a reserved address, and itself from the Service (${family})`,
    (t) => {
      serve(vip[family], 82, [[a[family], 8080]])
      const sourcePort = fresh()
      const hairpin = family === 'v4' ? '169.254.42.1' : 'fd00:169:254:42::1'
      const question = sent(a, { destination: vip[family], destinationPort: 82, sourcePort })
      t.is(question.verdict, verdicts.redirect)
      t.deepEqual([question.seen.from, question.seen.to], [at(hairpin, sourcePort), at(a[family], 8080)])
      const back = sent(a, answer(question.seen))
      t.is(back.verdict, verdicts.redirect)
      t.deepEqual([back.seen.from, back.seen.to], [at(vip[family], 82), at(a[family], sourcePort)])
    },
  )

  test.serial(`S13: a Service without endpoints refuses at once, from its own address (${family})`, (t) => {
    serve(vip[family], 83, [])
    const tcp = sent(a, { destination: vip[family], destinationPort: 83, sourcePort: 1234 })
    t.deepEqual(tcp.reasons, ['Service backend not found'])
    t.is(tcp.verdict, verdicts.redirect)
    t.deepEqual([tcp.seen.from, tcp.seen.to, tcp.seen.flags], [at(vip[family], 83), at(a[family], 1234), 'RA'])
    const udp = sent(a, { destination: vip[family], destinationPort: 83, sourcePort: 1234, protocol: 'UDP' })
    t.is(udp.seen.from.split(' ')[0], plain(vip[family]))
    t.regex(udp.seen.flags, family === 'v4' ? /^3\// : /^1\//)
  })

  test.serial(
    `S14: a port that a cluster address or a load balancer does not have is refused, not routed (${family})`,
    (t) => {
      const balancer = family === 'v4' ? '172.30.0.200' : 'fd00:172:30::200'
      for (const destination of [vip[family], balancer]) {
        const { reasons, seen } = sent(a, { destination, destinationPort: 9999 })
        t.deepEqual(reasons, ['Service not found'])
        t.is(seen.flags, 'RA')
      }
      const fromOutside = arrived({ source: outside[family], destination: balancer, destinationPort: 9999 })
      t.is(fromOutside.seen.flags, 'RA')
    },
  )

  test.serial(`a node port leads to a local backend with the client’s address, and back (${family})`, (t) => {
    serve(family === 'v4' ? '0.0.0.0' : '::', 30080, [[b[family], 8080]], reachable)
    const sourcePort = fresh()
    const question = arrived({ source: outside[family], destination: own(family), destinationPort: 30080, sourcePort })
    t.is(question.verdict, verdicts.redirect)
    t.deepEqual([question.seen.from, question.seen.to], [at(outside[family], sourcePort), at(b[family], 8080)])
    const back = sent(b, answer(question.seen))
    t.deepEqual([back.seen.from, back.seen.to], [at(own(family), 30080), at(outside[family], sourcePort)])
  })

  test.serial(`a node port leads to a backend elsewhere under the node’s address, and back (${family})`, (t) => {
    serve(family === 'v4' ? '0.0.0.0' : '::', 30081, [[far[family], 8080]], reachable)
    const sourcePort = fresh()
    const question = arrived({ source: outside[family], destination: own(family), destinationPort: 30081, sourcePort })
    t.is(question.verdict, verdicts.redirect)
    t.is(question.seen.to, at(far[family], 8080))
    const [node, port] = question.seen.from.split(' ')
    t.is(node, plain(own(family)))
    t.true(Number(port) >= 49_152)
    const back = arrived(answer(question.seen))
    t.is(back.verdict, verdicts.redirect)
    t.deepEqual([back.seen.from, back.seen.to], [at(own(family), 30081), at(outside[family], sourcePort)])
  })

  test.serial(
    `S15: one backend behind two node ports tells two connections from one client port apart (${family})`,
    (t) => {
      const any = family === 'v4' ? '0.0.0.0' : '::'
      for (const port of [30091, 30092]) serve(any, port, [[b[family], 8080]], reachable)
      const sourcePort = fresh()
      const questions = [30091, 30092].map((destinationPort) =>
        arrived({ source: outside[family], destination: own(family), destinationPort, sourcePort }),
      )
      t.not(questions[0]?.seen.from, questions[1]?.seen.from)
      for (const [i, destinationPort] of [30091, 30092].entries()) {
        const question = questions[i]
        if (question === undefined) return t.fail()
        t.is(question.seen.to, at(b[family], 8080))
        const back = sent(b, answer(question.seen))
        t.deepEqual([back.seen.from, back.seen.to], [at(own(family), destinationPort), at(outside[family], sourcePort)])
      }
    },
  )

  test.serial(
    `a pod talks to the outside under the node’s address, and hears the answer under its own (${family})`,
    (t) => {
      for (const protocol of ['TCP', 'UDP', 'ICMP'] as const) {
        const sourcePort = fresh()
        const flags = protocol === 'ICMP' ? 'question' : 'S'
        const question = sent(a, { destination: outside[family], sourcePort, protocol, flags })
        t.is(question.verdict, verdicts.redirect, protocol)
        const [node, port] = question.seen.from.split(' ')
        t.is(node, plain(own(family)))
        t.true(Number(port) >= 49_152)
        const back = arrived(answer(question.seen, { protocol, flags: protocol === 'ICMP' ? 'answer' : 'SA' }))
        t.is(back.verdict, verdicts.redirect, protocol)
        t.is(back.seen.to, at(a[family], sourcePort))
      }
    },
  )

  test.serial(
    `S2: an ICMP error about a masqueraded connection reaches the pod, about the pod’s own packet (${family})`,
    (t) => {
      for (const protocol of ['TCP', 'UDP'] as const) {
        const sourcePort = fresh()
        const question = sent(a, { destination: outside[family], sourcePort, protocol })
        const [source = '', port] = question.seen.from.split(' ')
        const quoted = packet({
          source,
          destination: outside[family],
          sourcePort: Number(port),
          destinationPort: 80,
          protocol,
          flags: 'S',
          payload: Buffer.alloc(0),
        })
        const router = family === 'v4' ? '172.30.0.1' : 'fd00:172:30::1'
        const error = arrived({
          source: router,
          destination: own(family),
          protocol: 'ICMP',
          flags: 'unreachable',
          payload: quoted.subarray(0, family === 'v4' ? 28 : 48),
        })
        t.is(error.verdict, verdicts.redirect, error.reasons.join())
        t.deepEqual([error.seen.from, error.seen.to], [at(router, 0), at(a[family], 0)])
        const inner = readPacket(error.seen.payload, false)
        t.deepEqual([inner.from, inner.to], [at(a[family], sourcePort), at(outside[family], 80)])
      }
    },
  )

  test.serial(`S2: a backend’s ICMP error about a Service’s packet comes from the Service (${family})`, (t) => {
    serve(vip[family], 84, [[b[family], 8080]])
    const sourcePort = fresh()
    const question = sent(a, { destination: vip[family], destinationPort: 84, sourcePort, protocol: 'UDP' })
    t.is(question.seen.to, at(b[family], 8080))
    const quoted = packet({
      source: a[family],
      destination: b[family],
      sourcePort,
      destinationPort: 8080,
      protocol: 'UDP',
      flags: '',
      payload: Buffer.alloc(0),
    })
    const error = sent(b, { destination: a[family], protocol: 'ICMP', flags: 'unreachable', payload: quoted })
    t.is(error.verdict, verdicts.redirect, error.reasons.join())
    t.is(error.seen.from, at(vip[family], 0))
    const inner = readPacket(error.seen.payload, false)
    t.deepEqual([inner.from, inner.to], [at(a[family], sourcePort), at(vip[family], 84)])
  })
}

test.serial('S4: two pods that ping one target with one identifier are told apart', (t) => {
  const ping = (from: TestPod): Outcome =>
    sent(from, { destination: outside.v4, sourcePort: 4242, protocol: 'ICMP', flags: 'question' })
  const [one, two] = [ping(a), ping(b)]
  t.not(one.seen.from, two.seen.from)
  for (const [pod, question] of [
    [a, one],
    [b, two],
  ] as const)
    t.is(arrived(answer(question.seen, { protocol: 'ICMP', flags: 'answer' })).seen.to, at(pod.v4, 4242))
})

test.serial('S8: a SYN on a closed connection’s tuple chooses anew; on an open one it does not', (t) => {
  serve(vip.v4, 85, [[b.v4, 1]])
  const sourcePort = fresh()
  const ask = (flags: string): Outcome => sent(a, { destination: vip.v4, destinationPort: 85, sourcePort, flags })
  const first = ask('S')
  t.is(first.seen.to, at(b.v4, 1))
  sent(b, answer(first.seen))
  serve(vip.v4, 85, [[b.v4, 2]])
  t.is(ask('S').seen.to, at(b.v4, 1), 'a repeated SYN of an open connection')
  t.is(ask('A').seen.to, at(b.v4, 1))
  ask('FA')
  sent(b, answer(first.seen, { flags: 'FA' }))
  t.is(ask('A').seen.to, at(b.v4, 1), 'the last acknowledgement')
  t.is(ask('S').seen.to, at(b.v4, 2))
})

test.serial('a reset outside of the window does not close a translation, one inside does', (t) => {
  const marked = (source: Sketch): boolean => {
    using map = openMap(topology.node(1).pinDir, 'translations_v1')
    const { destination, sourcePort = 0, destinationPort = 0 } = source
    const key = encodeTuple({ source: source.source, destination, sourcePort, destinationPort, protocol: 6 })
    const value = map.lookup(key)
    if (value === undefined) throw new Error('the connection is not translated')
    return (value.readUInt32LE(52) & rewriteFlags.reset) !== 0
  }
  serve(vip.v4, 86, [[b.v4, 1]])
  const question = { source: a.v4, destination: vip.v4, destinationPort: 86, sourcePort: fresh() }
  const ask = (more: Partial<Segment>): Outcome => sent(a, { ...question, ...more })
  const first = ask({ flags: 'S', sequence: 1_000 })
  const back = (more: Partial<Segment>): Outcome => sent(b, answer(first.seen, more))
  const both = [question, answer(first.seen)]

  back({ flags: 'RA', sequence: 0, acknowledgement: 7 })
  t.deepEqual(both.map(marked), [false, false], 'a refusal of a SYN that was not sent')
  back({ flags: 'SA', sequence: 5_000, acknowledgement: 1_001 })
  ask({ flags: 'A', sequence: 1_001, acknowledgement: 5_001 })
  ask({ flags: 'R', sequence: 1_001 + 70_000 })
  ask({ flags: 'R', sequence: 1_001 - 70_000 + 2 ** 32 })
  back({ flags: 'R', sequence: 0x7000_0000 })
  t.deepEqual(both.map(marked), [false, false])
  serve(vip.v4, 86, [[b.v4, 2]])
  t.is(ask({ flags: 'S', sequence: 1 }).seen.to, at(b.v4, 1), 'it goes on where it began')
  back({ flags: 'R', sequence: 5_001 })
  t.deepEqual(both.map(marked), [false, true])
  t.is(ask({ flags: 'S', sequence: 9_000 }).seen.to, at(b.v4, 2), 'another connection')
})

test.serial('S9, S10: a node without a backend of its own is silent where only that would do', (t) => {
  serve('0.0.0.0', 30083, [], { outside: { backends: [], isLocal: true } })
  const { verdict, reasons } = arrived({ source: outside.v4, destination: own('v4'), destinationPort: 30083 })
  t.is(verdict, verdicts.drop)
  t.deepEqual(reasons, ['No local backend'])
})

test.serial('S16: a client keeps its backend on all ports of a Service, until that leaves or time is over', (t) => {
  const backends = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => [`10.244.1.${100 + n}`, 8080] as const)
  const number = serviceNumber('test/affine')
  const both = { number, affinitySeconds: 100, ...reachable }
  serve('0.0.0.0', 30084, backends, { ...both, port: 80 })
  serve('172.30.0.200', 80, backends, { ...both, port: 80 })
  serve('172.30.0.200', 443, backends, { ...both, port: 443 })
  const chosen = (destination: string, destinationPort: number, source: string = outside.v4): string =>
    arrived({ source, destination, destinationPort, sourcePort: fresh() }).seen.to.split(' ')[0] ?? ''
  const first = chosen(own('v4'), 30084)
  for (let i = 0; i < 20; i++) t.is(chosen(own('v4'), 30084), first)
  t.is(chosen('172.30.0.200', 80), first)
  t.is(chosen('172.30.0.200', 443), first)
  const others = new Set(Array.from({ length: 20 }, (_, i) => chosen(own('v4'), 30084, `172.30.0.${100 + i}`)))
  t.true(others.size > 1)
  const left = backends.filter(([address]) => address !== first)
  serve('0.0.0.0', 30084, left, { ...both, port: 80 })
  serve('172.30.0.200', 80, left, { ...both, port: 80 })
  t.not(chosen(own('v4'), 30084), first, 'the backend has left')
})

test.serial('S11, S16: affinity does not lead around internalTrafficPolicy Local', (t) => {
  const number = serviceNumber('test/affine-local')
  const affine = { number, affinitySeconds: 100, port: 80 }
  serve(vip.v4, 90, [[far.v4, 8080]], affine)
  const ask = (destinationPort: number): string =>
    sent(a, { destination: vip.v4, destinationPort, sourcePort: fresh() }).seen.to
  t.is(ask(90), at(far.v4, 8080))
  serve(vip.v4, 91, [[b.v4, 8080]], { ...affine, isInsideLocal: true })
  t.is(ask(91), at(b.v4, 8080), 'the remembered backend is another node’s')
  t.is(ask(91), at(b.v4, 8080))
})

test.serial('S20: an external IP is served from outside; a pod’s packet to it goes past the Service', (t) => {
  serve('198.51.100.9', 80, [[b.v4, 8080]], { ...reachable, isOutsideOnly: true })
  const inward = arrived({ source: outside.v4, destination: '198.51.100.9', sourcePort: fresh() })
  t.is(inward.seen.to, at(b.v4, 8080))
  const past = sent(a, { destination: '198.51.100.9', sourcePort: fresh() })
  t.is(past.seen.to, at('198.51.100.9', 80))
  t.is(past.seen.from.split(' ')[0], plain(own('v4')))
})

test.serial('S21: source ranges are asked before anything is remembered', (t) => {
  serve('172.30.0.200', 8443, [[b.v4, 8080]], { outside: { backends: [], ranges: ['192.0.2.0/24'] } })
  const from = (source: string): Outcome =>
    arrived({ source, destination: '172.30.0.200', destinationPort: 8443, sourcePort: fresh() })
  const refused = from(outside.v4)
  t.deepEqual([refused.verdict, refused.reasons], [verdicts.drop, ['Denied by LB src range check']])
  t.is(from('192.0.2.5').seen.to, at(b.v4, 8080))
})

test.serial('S22: exhaustion is said to the sender, and those that are under way go on', (t) => {
  const target = '203.0.113.80'
  const used = new Map<string, number>()
  let refused: Outcome | undefined
  let tried = 0
  for (let i = 0; i < 40_000; i++) {
    const sourcePort = 1024 + i
    const frameOf = frame({ source: a.v4, destination: target, sourcePort, payload: Buffer.alloc(0) })
    const { data } = attached.run('from_container', frameOf, a.endpoint.ifindex)
    const seen = read(data)
    tried++
    if (seen.flags === 'RA') {
      refused = sent(a, { destination: target, sourcePort: 1024 + i + 1 })
      if (used.size > 16_000) break
      continue
    }
    t.false(used.has(seen.from), `${seen.from} twice`)
    used.set(seen.from, sourcePort)
  }
  t.log(`${used.size} of ${tried} connections to one place`)
  t.true(used.size > 15_500)
  t.is(refused?.seen.from, at(target, 80))
  t.true(
    topology
      .node(1)
      .datapath.counters()
      .some((c) => c.reason === 'No port left for NAT masquerade' && c.packets > 0),
  )
  for (const [from, sourcePort] of [...used].slice(0, 50)) {
    const [source = '', port] = from.split(' ')
    const back = arrived({
      source: target,
      sourcePort: 80,
      destination: source,
      destinationPort: Number(port),
      flags: 'SA',
    })
    t.is(back.seen.to, at(a.v4, sourcePort))
  }
})

test.serial('S22: a pod that sends to everybody leaves room for the others’ connections', async (t) => {
  const { datapath, pinDir } = topology.node(1)
  using shares = openMap(pinDir, 'pairs_v1')
  using endpoints = openMap(pinDir, 'endpoints_v2')
  const key = Buffer.alloc(4)
  key.writeUInt32LE(new EndpointMap(endpoints).get(a.v4)?.number ?? 0)
  const count = (): number => shares.lookup(key)?.readUInt32LE(0) ?? 0
  const ask = (pod: TestPod): Outcome =>
    sent(pod, { destination: '203.0.113.81', sourcePort: fresh(), protocol: 'UDP' })
  await datapath.sweepTranslations()
  const before = count()
  ask(a)
  t.is(count(), before + 1)
  // Of 131,072.
  const most = Buffer.alloc(4)
  most.writeUInt32LE(65_535)
  shares.update(key, most)
  t.is(ask(a).verdict, verdicts.redirect)
  const over = ask(a)
  t.deepEqual([over.verdict, over.reasons], [verdicts.drop, ['CT: Pod holds its share of flows']])
  t.is(ask(b).verdict, verdicts.redirect)
  await datapath.sweepTranslations()
  t.is(count(), before + 2, 'each sweep counts anew')
  t.is(ask(a).verdict, verdicts.redirect)
})

test.serial('S22: a connection of the node’s own is never taken over', async (t) => {
  const { namespace } = topology.node(1)
  using socket = namespace.listen(own('v4'), 50_000)
  t.true(socket.number > 0)
  const question = sent(a, { destination: '203.0.113.9', sourcePort: 50_000 })
  t.not(question.seen.from, at(own('v4'), 50_000))
  t.regex(namespace.getSysctl('net/ipv4/ip_local_reserved_ports'), /49152-65535/)
})

test.serial('S6: datagrams to a backend that is gone go to another one with the next packet', async (t) => {
  const { datapath } = topology.node(1)
  serve(vip.v4, 88, [[b.v4, 18088]])
  const sourcePort = fresh()
  const ask = (protocol: 'TCP' | 'UDP', flags = 'S'): Outcome =>
    sent(a, { destination: vip.v4, destinationPort: 88, sourcePort, protocol, flags })
  for (const protocol of ['TCP', 'UDP'] as const) t.is(ask(protocol).seen.to, at(b.v4, 18088))
  serve(vip.v4, 88, [[far.v4, 18088]])
  t.is(ask('UDP').seen.to, at(b.v4, 18088), 'it is known until it is swept')
  const number = serviceNumber(`test/${vip.v4}`)
  const left = { address: b.v4, port: 18088, protocol: 'UDP' } as const
  t.is((await datapath.sweepTranslations([{ ...left, service: serviceNumber('another') }])).removed, 0)
  t.is((await datapath.sweepTranslations([{ ...left, service: number }])).removed, 1)
  t.is(ask('UDP').seen.to, at(far.v4, 18088))
  t.is(ask('TCP', 'A').seen.to, at(b.v4, 18088), 'TCP goes on while its backend is only going')
  t.is((await datapath.sweepTranslations([{ ...left, protocol: 'TCP' }])).removed, 1)
  const over = ask('TCP', 'A')
  t.is(over.seen.flags, 'R', 'its client is told')
  t.is(over.seen.from, at(vip.v4, 88))
})

test.serial(
  'S23: where half of a pair is lost nothing goes out under a wrong name, and a new connection makes both',
  async (t) => {
    serve(vip.v4, 89, [[b.v4, 8080]])
    const sourcePort = fresh()
    const ask = (flags: string): Outcome => sent(a, { destination: vip.v4, destinationPort: 89, sourcePort, flags })
    const question = ask('S')
    using map = openMap(topology.node(1).pinDir, 'translations_v1')
    const key = encodeTuple({
      source: b.v4,
      destination: a.v4,
      sourcePort: 8080,
      destinationPort: sourcePort,
      protocol: 6,
    })
    t.true(map.delete(key))
    const lost = sent(b, answer(question.seen))
    t.deepEqual(lost.reasons, ['No mapping for NAT masquerade'])
    t.is(ask('S').seen.to, at(b.v4, 8080))
    t.is(sent(b, answer(question.seen)).seen.from, at(vip.v4, 89))
    map.delete(key)
    t.true((await topology.node(1).datapath.sweepTranslations()).removed >= 1)
    t.is(ask('A').seen.flags, 'R')
  },
)

test.serial('S27: an SCTP association keeps its ports; where that is impossible it is refused', (t) => {
  serve(vip.v4, 86, [[b.v4, 86]])
  const question = sent(a, { destination: vip.v4, destinationPort: 86, sourcePort: fresh(), protocol: 'SCTP' })
  t.is(question.seen.to, at(b.v4, 86))
  const back = sent(b, answer(question.seen, { protocol: 'SCTP', flags: 'A' }))
  t.is(back.seen.from, at(vip.v4, 86))
})

test.serial('S29: a UDP packet without a checksum stays without one', (t) => {
  serve(vip.v4, 87, [[b.v4, 8080]])
  const bytes = frame({ source: a.v4, destination: vip.v4, destinationPort: 87, sourcePort: fresh(), protocol: 'UDP' })
  bytes.writeUInt16BE(0, 40)
  const { data } = attached.run('from_container', bytes, a.endpoint.ifindex)
  t.is(data.readUInt16BE(40), 0)
  t.is(read(data).to, at(b.v4, 8080))
})

test.serial('between pods, nodes and pods, and for the answers of pods nothing is exchanged', (t) => {
  const same = (o: Outcome, from: string): boolean => t.is(o.seen.from.split(' ')[0], plain(from))
  same(sent(a, { destination: far.v4, sourcePort: fresh() }), a.v4)
  same(sent(a, { destination: '172.30.0.12', sourcePort: fresh() }), a.v4)
  same(sent(a, { destination: own('v4'), sourcePort: fresh() }), a.v4)
  const inward = arrived({ source: outside.v4, destination: a.v4, sourcePort: fresh() })
  t.is(inward.seen.to, at(a.v4, 80))
  same(sent(a, answer(inward.seen)), a.v4)
})

/** An IPv4 datagram in two pieces, the second from byte `at` of its transport on. */
function inTwo(whole: Buffer, at: number, id: number): [Buffer, Buffer] {
  const piece = (from: number, to: number | undefined, more: boolean): Buffer => {
    const bytes = Buffer.concat([
      whole.subarray(0, 34),
      whole.subarray(34 + from, to === undefined ? undefined : 34 + to),
    ])
    bytes.writeUInt16BE(bytes.length - 14, 16)
    bytes.writeUInt16BE(id, 18)
    bytes.writeUInt16BE((more ? 0x2000 : 0) | (from / 8), 20)
    bytes.writeUInt16BE(0, 24)
    bytes.writeUInt16BE(sum16(bytes.subarray(14, 34)), 24)
    return bytes
  }
  return [piece(0, at, true), piece(at, undefined, false)]
}

test.serial('S5: fragments of a masqueraded datagram and of its answer arrive as one, under the right names', (t) => {
  const payload = Buffer.from(Array.from({ length: 64 }, (_, i) => i))
  const sourcePort = fresh()
  const whole = frame({
    source: a.v4,
    destination: outside.v4,
    protocol: 'UDP',
    sourcePort,
    destinationPort: 53,
    payload,
  })
  const join4 = ([first, second]: readonly Buffer[]): Buffer => {
    const joined = Buffer.concat([first?.subarray(0) ?? Buffer.alloc(0), second?.subarray(34) ?? Buffer.alloc(0)])
    joined.writeUInt16BE(joined.length - 14, 16)
    joined.writeUInt16BE(0, 20)
    joined.writeUInt16BE(0, 24)
    joined.writeUInt16BE(sum16(joined.subarray(14, 34)), 24)
    return joined
  }
  const out = inTwo(whole, 32, 77).map((piece) => attached.run('from_container', piece, a.endpoint.ifindex))
  t.deepEqual(
    out.map((o) => o.verdict),
    [verdicts.redirect, verdicts.redirect],
  )
  const asked = read(join4(out.map((o) => o.data)))
  t.is(asked.from.split(' ')[0], plain(own('v4')))
  t.deepEqual(asked.payload, payload)
  const reply = frame({ ...answer(asked, { protocol: 'UDP', payload }) })
  const uplink = topology.node(1).namespace.ifindex('eth0')
  const back = inTwo(reply, 24, 78).map((piece) => attached.run('from_netdev', piece, uplink))
  t.deepEqual(
    back.map((o) => o.verdict),
    [verdicts.redirect, verdicts.redirect],
  )
  const heard = read(join4(back.map((o) => o.data)))
  t.deepEqual([heard.from, heard.to], [at(outside.v4, 53), at(a.v4, sourcePort)])
  const [, orphan] = inTwo(reply, 24, 79)
  t.is(attached.run('from_netdev', orphan, uplink).verdict, verdicts.pass, 'a later fragment of nothing is the stack’s')
})

test.serial('S28: ports behind IPv4 options and IPv6 extension headers are found and exchanged', (t) => {
  const sourcePort = fresh()
  const four = frame({ source: a.v4, destination: outside.v4, sourcePort })
  const withOptions = Buffer.concat([four.subarray(0, 34), Buffer.from([1, 1, 1, 0]), four.subarray(34)])
  withOptions[14] = 0x46
  withOptions.writeUInt16BE(withOptions.length - 14, 16)
  withOptions.writeUInt16BE(0, 24)
  withOptions.writeUInt16BE(sum16(withOptions.subarray(14, 38)), 24)
  const seen = read(attached.run('from_container', withOptions, a.endpoint.ifindex).data)
  t.is(seen.from.split(' ')[0], plain(own('v4')))
  t.is(seen.to, at(outside.v4, 80))

  const six = frame({ source: a.v6, destination: outside.v6, sourcePort })
  const extension = Buffer.from([6, 0, 1, 4, 0, 0, 0, 0])
  const extended = Buffer.concat([six.subarray(0, 54), extension, six.subarray(54)])
  extended[20] = 60
  extended.writeUInt16BE(extended.length - 54, 18)
  const { data } = attached.run('from_container', extended, a.endpoint.ifindex)
  // Without the extension again it is an ordinary packet, and its checksum must be right.
  const bare = Buffer.concat([data.subarray(0, 54), data.subarray(62)])
  bare[20] = 6
  bare.writeUInt16BE(bare.length - 54, 18)
  t.is(read(bare).from.split(' ')[0], plain(own('v6')))
})

test.serial('S3: an ICMP error about a packet that nobody sent reaches no pod', (t) => {
  const quoted = packet({
    source: own('v4'),
    destination: '203.0.113.200',
    sourcePort: 60_000,
    destinationPort: 80,
    protocol: 'TCP',
    flags: 'S',
    payload: Buffer.alloc(0),
  })
  const error = arrived({
    source: '172.30.0.1',
    destination: own('v4'),
    protocol: 'ICMP',
    flags: 'unreachable',
    payload: quoted,
  })
  t.is(error.verdict, verdicts.pass, 'it is the node’s own affair')
  t.is(error.seen.to, at(own('v4'), 0))
})
