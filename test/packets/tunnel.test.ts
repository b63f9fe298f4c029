import { execFileSync, spawn } from 'node:child_process'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
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
