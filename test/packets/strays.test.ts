import { execFileSync } from 'node:child_process'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { gatewayMac } from '#datapath/object.ts'
import { parseMac } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import { frame } from './frames.ts'
import { inPod, load, onNode, serve, type TestPod, Topology } from './topology.ts'

/** Frames and packets that are where they do not belong: for another network or machine, out of hops, to where no route leads. */
let topology: Topology
let a: TestPod
let far: TestPod

test.before(async () => {
  topology = await Topology.create({ label: 'y' })
  a = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
})
test.after.always(() => topology?.[Symbol.asyncDispose]())

const nodeName = (): string => topology.name('node1')
const ip = (...words: readonly string[]): string =>
  execFileSync('ip', ['-n', nodeName(), ...words], { encoding: 'utf8' })
/** Packets that had this end on node 1. */
const counted = (reason: string): number =>
  topology
    .node(1)
    .datapath.counters()
    .filter((c) => c.reason === reason)
    .reduce((sum, c) => sum + c.packets, 0)

/** What a pod or the fabric sends by its device, with these addresses of the link. */
function send(from: Namespace, device: string, to: string, by: string, bytes: Buffer): void {
  parseMac(to).copy(bytes, 0)
  parseMac(by).copy(bytes, 6)
  from.sendFrame(from.ifindex(device), bytes)
}

/** The same frame on the network of that number (802.1Q). */
function tagged(bytes: Buffer, network: number): Buffer {
  const tag = Buffer.from([0x81, 0, network >> 8, network & 255])
  return Buffer.concat([bytes.subarray(0, 12), tag, bytes.subarray(12)])
}

test.serial(
  'a pod does not get onto another network of the link by a tag: it would leave the node with it',
  async (t) => {
    const refused = counted('Unsupported protocol')
    const began = (): number[] =>
      topology
        .node(1)
        .datapath.flows()
        .map(({ tuple }) => tuple.sourcePort)
    for (const [i, destination] of ['198.51.100.7', far.v4].entries()) {
      const [hidden, plain] = [41_101 + 2 * i, 41_102 + 2 * i]
      const asks = (sourcePort: number): Buffer =>
        frame({ source: a.v4, destination, protocol: 'UDP', sourcePort, destinationPort: 9000 })
      send(a.namespace, 'eth0', gatewayMac, a.endpoint.mac, tagged(asks(hidden), 5))
      // One device, one queue: what came first was looked at first.
      send(a.namespace, 'eth0', gatewayMac, a.endpoint.mac, asks(plain))
      await eventually(() => began().includes(plain))
      t.false(began().includes(hidden))
    }
    t.true(counted('Unsupported protocol') >= refused + 2)
  },
)

test.serial(
  'what a switch floods to a node that it is not for is served by the one that it is for alone',
  async (t) => {
    const { datapath, addresses } = topology.node(1)
    const backends = [{ address: far.v4, port: 9000, protocol: 'TCP' as const }]
    const frontend = { address: '0.0.0.0', port: 30_910, protocol: 'TCP' as const }
    datapath.changeServices([{ frontend, backends, outside: { backends } }], [])
    t.teardown(() => datapath.changeServices([], [frontend]))
    using fabric = Namespace.open(topology.name('fabric'))
    const own = /link\/ether (\S+)/.exec(ip('link', 'show', 'eth0'))?.[1] ?? ''
    const asks = (sourcePort: number, mac: string): void =>
      send(
        fabric,
        'port1',
        mac,
        '02:00:00:00:00:99',
        frame({ source: '172.30.0.1', destination: addresses[0] ?? '', sourcePort, destinationPort: 30_910 }),
      )
    const began = (): number[] => datapath.translations().map(({ from }) => from.sourcePort)
    asks(41_001, '02:00:00:00:00:77')
    // One device, one queue: what came first was looked at first.
    asks(41_002, own)
    await eventually(() => began().includes(41_002))
    t.false(began().includes(41_001))
  },
)

for (const [family, outside] of [
  ['v4', '198.51.100.7'],
  ['v6', '2001:db8::7'],
] as const)
  test.serial(`a pod that asks who is on its way to the outside hears of its node first (${family})`, (t) => {
    const words = ['-n', '-m', '1', '-q', '2', '-w', '1', outside]
    const program = family === 'v4' ? 'traceroute' : 'traceroute6'
    const said = execFileSync('ip', ['netns', 'exec', a.name, 'busybox', program, ...words], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    t.true(said.includes(`1  ${topology.node(1).addresses[family === 'v4' ? 0 : 1]} `), said)
  })

test.serial(
  'a pod reaches an address of its node that nobody has told of, and hears at once where no route leads',
  async (t) => {
    ip('link', 'add', 'second', 'type', 'bridge')
    ip('addr', 'add', '172.31.0.1/24', 'dev', 'second')
    ip('addr', 'add', 'fd00:172:31::1/64', 'dev', 'second', 'nodad')
    ip('link', 'set', 'second', 'up')
    for (const network of ['203.0.113.0/24', '2001:db8:113::/48']) ip('route', 'add', 'unreachable', network)
    for (const address of ['172.31.0.1', 'fd00:172:31::1']) {
      await using _ = await serve(onNode(topology, topology.node(1)), address, 9100)
      for (const mode of ['crr', 'urr'] as const) t.true((await load(inPod(a), mode, address, 9100)) > 0)
    }
    for (const address of ['203.0.113.9', '2001:db8:113::9'])
      await t.throwsAsync(load(inPod(a), 'crr', address, 9100), { message: /EHOSTUNREACH|ENETUNREACH/ })
  },
)
