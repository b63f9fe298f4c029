import { execFileSync, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { Program, type TestRunResult } from '#kernel/bpf/program.ts'
import { formatMac } from '#kernel/netlink/netlink.ts'
import { type Around, frame, read, wrap } from './frames.ts'
import { ping } from './ping.ts'
import { inPod, load, onNode, serve, type TestNode, type TestPod, Topology } from './topology.ts'

/** Pods of two nodes, their packets wrapped: real sockets, one VXLAN device a node. */
let topology: Topology
let a: TestPod
let far: TestPod

test.before(async () => {
  topology = await Topology.create({ label: 'v', tunnel: 'vxlan' })
  a = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  for (const [i, node] of topology.nodes.entries()) {
    const other = topology.nodes[1 - i] as TestNode
    const tunnel = other.addresses[0] ?? ''
    const theirs = topology.pods.filter((pod) => pod.node === other)
    node.datapath.upsertIdentities([
      ...node.addresses.map((address) => ({ address, identity: 1, owner: 'self' })),
      ...other.addresses.map((address) => ({ address, identity: 3, owner: 'other', node: 1, tunnel })),
      // Where their pods are, and not who they are: that is in the packets.
      ...theirs.flatMap((pod) =>
        [pod.v4, pod.v6].map((address) => ({ address, identity: 999, owner: pod.name, node: 1, tunnel })),
      ),
    ])
    const own = topology.pods.filter((pod) => pod.node === node)
    for (const pod of own) await node.datapath.upsertEndpoint({ ...pod.endpoint, identity: 300 + i })
  }
})
test.after.always(() => topology?.[Symbol.asyncDispose]())

interface LinkStatistics {
  readonly address: string
  readonly mtu: number
  readonly stats64: { readonly rx: { readonly packets: number }; readonly tx: { readonly packets: number } }
}
const device = (node: TestNode, name = 'weft-vxlan'): LinkStatistics => {
  const inside = ['netns', 'exec', topology.name(`node${node.index}`), 'ip', '-s', '-j', 'link', 'show', name]
  const [found] = JSON.parse(execFileSync('ip', inside, { encoding: 'utf8' })) as LinkStatistics[]
  if (found === undefined) throw new Error(`${name} is not there`)
  return found
}

test.serial('pods of two nodes talk through the tunnel, both families, small and large', async (t) => {
  for (const address of [far.v4, far.v6]) {
    await using _server = await serve(inPod(far), address, 8080)
    const before = device(topology.node(2)).stats64.rx.packets
    for (const mode of ['rr', 'crr', 'urr'] as const) t.true((await load(inPod(a), mode, address, 8080, 50)) > 0)
    t.true((await load(inPod(a), 'stream', address, 8080, 100)) > 1e6)
    t.true(device(topology.node(2)).stats64.rx.packets - before > 100, 'they came out of the tunnel')
  }
})

test.serial(
  'M1: pods’ devices leave room for what is put around their packets, and a datagram larger than that passes in parts',
  (t) => {
    t.is(device(topology.node(1)).mtu, 1450)
    for (const address of [far.v4, far.v6])
      t.regex(ping(a, address, { size: 5_000, withinSeconds: 2 }), / 0% packet loss/)
  },
)

test.serial('M2: a packet that does not fit into the tunnel is answered, not lost', (t) => {
  // The pod's pair of devices believes that there is room for 1,500.
  const host = topology.name('node1')
  const links = JSON.parse(
    execFileSync('ip', ['netns', 'exec', host, 'ip', '-j', 'link'], { encoding: 'utf8' }),
  ) as readonly { readonly ifindex: number; readonly ifname: string }[]
  const device = links.find(({ ifindex }) => ifindex === a.endpoint.ifindex)?.ifname ?? ''
  const resize = (mtu: string): void => {
    execFileSync('ip', ['netns', 'exec', host, 'ip', 'link', 'set', device, 'mtu', mtu])
    execFileSync('ip', ['netns', 'exec', a.name, 'ip', 'link', 'set', 'eth0', 'mtu', mtu])
  }
  resize('1500')
  try {
    // The first is told of, by which the next are cut to size.
    for (const address of [far.v4, far.v6])
      t.regex(ping(a, address, { size: 1_450, count: 3 }), / [0-9]{1,2}% packet loss/)
  } finally {
    resize('1450')
  }
})

test.serial(
  'a node’s own processes reach pods of the other node, and pods reach the other node, through the tunnel',
  async (t) => {
    for (const [i, address] of [far.v4, far.v6].entries()) {
      await using _pod = await serve(inPod(far), address, 8081)
      t.true((await load(onNode(topology, topology.node(1)), 'crr', address, 8081)) > 0)
      const node = topology.node(2).addresses[i] ?? ''
      await using _node = await serve(onNode(topology, topology.node(2)), node, 8082)
      t.true((await load(inPod(a), 'crr', node, 8082)) > 0)
    }
  },
)

test.serial('M16, L18: who a packet is from is in the packet: the receiver’s policy asks for that', async (t) => {
  const entry = (set: number, peer: number) => ({ set, peer, protocol: 6, port: 8083, portBits: 16, rule: set })
  await using _server = await serve(inPod(far), far.v4, 8083)
  const { datapath } = topology.node(2)
  datapath.changePolicy({ entries: [entry(1, 300)], endpoints: [{ addresses: [far.v4], ingressSet: 1 }] })
  t.true((await load(inPod(a), 'crr', far.v4, 8083)) > 0)
  datapath.changePolicy({ entries: [entry(2, 999)], endpoints: [{ addresses: [far.v4], ingressSet: 2 }] })
  await t.throwsAsync(load(inPod(a), 'crr', far.v4, 8083), { message: /ECONNREFUSED/ })
  datapath.changePolicy({ endpoints: [{ addresses: [far.v4], ingressSet: 0 }] })
})

/** busybox' nc in the pod, past the socket hooks. */
const nc = (pod: TestPod, ...words: readonly string[]) =>
  spawn('ip', ['netns', 'exec', pod.name, 'busybox', 'nc', ...words], { stdio: ['pipe', 'ignore', 'ignore'] })
const sockets = (pod: TestPod, state: string): string =>
  execFileSync('ip', ['netns', 'exec', pod.name, 'ss', '-Htn', 'state', state], { encoding: 'utf8' })

test.serial(
  'P2: of a connection to a Service that is cut by what comes out of the tunnel both ends hear',
  async (t) => {
    const { datapath } = topology.node(1)
    const frontend = { address: '10.96.0.7', port: 80, protocol: 'TCP' as const }
    datapath.changeServices([{ frontend, backends: [{ address: far.v4, port: 8084, protocol: 'TCP' }] }], [])
    const running = [nc(far, '-l', '-p', '8084')]
    try {
      await eventually(() => sockets(far, 'listening').includes(':8084'))
      running.push(nc(a, frontend.address, '80'))
      await eventually(() => sockets(far, 'established') !== '')
      datapath.changePolicy({ endpoints: [{ addresses: [a.v4], egressSet: 9 }] })
      // The server speaks first: the copy of the reset goes back to it while the packet becomes the client's.
      running[0]?.stdin?.write('hello')
      await eventually(() => sockets(a, 'established') === '' && sockets(far, 'established') === '')
      t.is(sockets(a, 'established'), '')
    } finally {
      for (const child of running) child.kill()
      datapath.changePolicy({ endpoints: [{ addresses: [a.v4], egressSet: 0 }] })
      datapath.changeServices([], [frontend])
    }
  },
)
const both = [
  ['IPv4', (pod: TestPod) => pod.v4],
  ['IPv6', (pod: TestPod) => pod.v6],
] as const

const inside = (pod: TestPod, ...command: readonly string[]): string =>
  execFileSync('ip', ['netns', 'exec', pod.name, ...command], { encoding: 'utf8' })

/** Packets that the pod's kernel found a wrong sum in. */
function wrongSums(pod: TestPod): number {
  const lines = inside(pod, 'cat', '/proc/net/snmp').split('\n')
  const four = lines.flatMap((names, i) =>
    names.split(' ').flatMap((name, at) => (name === 'InCsumErrors' ? [Number(lines[i + 1]?.split(' ')[at])] : [])),
  )
  const six = [...inside(pod, 'cat', '/proc/net/snmp6').matchAll(/^\w+InCsumErrors\s+(\d+)/gm)].map((m) => Number(m[1]))
  return [...four, ...six].reduce((sum, n) => sum + n, 0)
}

for (const state of ['on', 'off'] as const)
  test.serial(
    `M20: large segments and datagrams handed over as one arrive whole, both ways, the uplinks’ offloads ${state}`,
    async (t) => {
      for (const { namespace } of topology.nodes) namespace.setOffloads('eth0', state)
      try {
        for (const [family, of] of both) {
          for (const [from, to] of [
            [a, far],
            [far, a],
          ] as const) {
            await using _server = await serve(inPod(to), of(to), 8087)
            t.true((await load(inPod(from), 'ugso', of(to), 8087, 20)) > 0, `datagrams by ${family}`)
            t.true((await load(inPod(from), 'stream', of(to), 8087, 40)) > 1e6, `a stream by ${family}`)
            // One byte: with its headers less than the shortest frame that Ethernet has.
            for (const mode of ['rr', 'urr'] as const) t.true((await load(inPod(from), mode, of(to), 8087, 20)) > 0)
          }
        }
        for (const pod of [a, far]) t.is(wrongSums(pod), 0)
      } finally {
        for (const { namespace } of topology.nodes) namespace.setOffloads('eth0', 'on')
      }
    },
  )

test.serial('a known connection’s packets come past the stack and the tunnel’s device, others by them', async (t) => {
  const byDevice = () => device(topology.node(2)).stats64.rx.packets
  for (const [family, of] of both) {
    await using _server = await serve(inPod(far), of(far), 8085)
    // A way is remembered for a tick: where a busy machine takes longer for a transaction, all go by the stack.
    await eventually(async () => {
      const before = byDevice()
      const transactions = (await load(inPod(a), 'urr', of(far), 8085, 100)) / 10
      const came = byDevice() - before
      t.true(came > 0, family)
      if (came >= transactions / 2) throw new Error(`${family}: ${came} of ${transactions}`)
    })
  }
  t.pass()
})

test.serial('what is around a packet may go in fragments', (t) => {
  const { namespace } = topology.node(1)
  const resize = (mtu: string): void => {
    for (const node of ['node1', 'node2'])
      execFileSync('ip', ['netns', 'exec', topology.name(node), 'ip', 'link', 'set', 'eth0', 'mtu', mtu])
  }
  const made = (): number => {
    const text = namespace.within(() => readFileSync('/proc/thread-self/net/snmp', 'utf8'))
    const [names = '', values = ''] = text.split('\n').filter((line) => line.startsWith('Ip:'))
    return Number(values.split(' ')[names.split(' ').indexOf('FragCreates')])
  }
  // The link takes less than the tunnel believes.
  resize('1400')
  try {
    const before = made()
    for (const [, of] of both) t.regex(ping(a, of(far), { size: 1_390, withinSeconds: 2 }), / 0% packet loss/)
    t.true(made() - before >= 4, 'they went in fragments')
  } finally {
    resize('1500')
  }
})

/** from_netdev of node 2, without anything being sent. */
function uplink(): { readonly mac: string; run(packet: Buffer, segments?: number): TestRunResult } & Disposable {
  const { pinDir, namespace } = topology.node(2)
  const dir = join(pinDir, 'programs')
  const version = readdirSync(dir).find((entry) => entry.startsWith('from_netdev-')) ?? ''
  const program = Program.openPin(join(dir, version, 'from_netdev'))
  if (program === undefined) throw new Error('from_netdev is not pinned')
  return {
    mac: device(topology.node(2), 'eth0').address,
    run(packet, segments = 0) {
      // struct __sk_buff: ifindex, gso_segs, gso_size.
      const context = Buffer.alloc(192)
      context.writeUInt32LE(namespace.ifindex('eth0'), 40)
      context.writeUInt32LE(segments, 164)
      context.writeUInt32LE(segments && 100, 176)
      return namespace.within(() => program.testRun(packet, { context }))
    },
    [Symbol.dispose]: () => program[Symbol.dispose](),
  }
}

const [pass, redirect] = [0, 7]

for (const [family, of] of both)
  test.serial(
    `M3: past the stack comes what a node has wrapped as we do, for a connection that is known: ${family}`,
    async (t) => {
      using netdev = uplink()
      const [source = '', destination = ''] = topology.nodes.map(({ addresses }) => addresses[0])
      const nodes = { mac: netdev.mac, source, destination }
      await using _server = await serve(inPod(far), of(far), 8086)
      await load(inPod(a), 'urr', of(far), 8086, 5)
      const known = topology
        .node(2)
        .datapath.flows()
        .find(({ tuple }) => tuple.destinationPort === 8086 && tuple.source === of(a))
      const sketch = { source: of(a), destination: of(far), protocol: 'UDP', destinationPort: 8086 } as const
      const sourcePort = known?.tuple.sourcePort ?? 0
      const inner = frame({ ...sketch, sourcePort })
      const good = wrap(inner, { ...nodes, sourcePort: 50_000 })

      // A processor remembers the pod from the first packet that it has seen for it; those behind go after that one, for a tick.
      const taken = await once(
        () => netdev.run(good),
        (result) => result.verdict === redirect,
      )
      t.is(taken.data.length, inner.length)
      t.is(formatMac(taken.data.subarray(0, 6)), far.endpoint.mac)
      t.deepEqual(taken.data.subarray(12, 14), inner.subarray(12, 14))
      t.is(taken.data[family === 'IPv4' ? 22 : 21], 63)
      t.deepEqual(read(taken.data), read(inner))

      const [shortened, lastHop, stranger] = [
        Buffer.from(inner.subarray(0, -4)),
        Buffer.from(inner),
        frame({ ...sketch, sourcePort: 1 }),
      ]
      lastHop[family === 'IPv4' ? 22 : 21] = 1
      const changes: Record<string, readonly [Buffer, Partial<Around>?]> = {
        'from nobody who is a node': [inner, { source: '172.30.0.99' }],
        'from a node by another’s address': [inner, { source: a.v4 }],
        'with a number that is no pod’s': [inner, { number: 255 }],
        'to another address': [inner, { destination: '172.30.0.99' }],
        'without a number': [inner, { flags: 0 }],
        'with more than a number': [inner, { flags: 0x08000001 }],
        'with a sum over it': [inner, { udpChecksum: 0x1234 }],
        'with a broken header': [inner, { hasWrongSum: true }],
        'in fragments': [inner, { fragment: 0x2000 }],
        'with a mark of congestion, which goes inside': [inner, { serviceType: 3 }],
        'with something behind it': [inner, { behind: Buffer.alloc(2) }],
        'cut short within': [shortened],
        'with its last hop': [lastHop],
        'of no connection that is known': [stranger],
      }
      for (const [i, [what, [bytes, around]]] of Object.entries(changes).entries()) {
        const port = 50_001 + i
        const asItShouldBe = await once(
          () => netdev.run(wrap(inner, { ...nodes, sourcePort: port })).verdict,
          (verdict) => verdict === redirect,
        )
        t.is(asItShouldBe, redirect)
        const packet = wrap(bytes, { ...nodes, sourcePort: port, ...around })
        const { verdict, data } = netdev.run(packet)
        t.is(verdict, pass, what)
        t.deepEqual(data, packet, what)
      }
      // Several in one are the stack's, and what comes behind them waits its turn.
      const behind = await once(
        () => [netdev.run(good, 2).verdict, netdev.run(good).verdict],
        (verdicts) => verdicts.every((verdict) => verdict === pass),
      )
      t.deepEqual(behind, [pass, pass])
    },
  )

/** Asks until it is so, as it has to be soon. */
async function once<T>(ask: () => T, isSo: (result: T) => boolean): Promise<T> {
  const end = performance.now() + 2_000
  for (;;) {
    const result = ask()
    if (isSo(result) || performance.now() > end) return result
    await setImmediate()
  }
}
