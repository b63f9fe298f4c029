import test from 'ava'
import type { Service } from '#datapath/datapath.ts'
import type { TestRunResult } from '#kernel/bpf/program.ts'
import { Attached } from './attached.ts'
import { at, frame, packet, plain, read, type Segment } from './frames.ts'
import { inPod, load, onFabric, serve, type TestPod, Topology } from './topology.ts'

/** XDP on the uplink: what it sends on by itself, and what it leaves to tc. */
const verdicts = { pass: 2, transmit: 3 } as const
const outside = { v4: '172.30.0.77', v6: 'fd00:172:30::77' } as const
const nextMac = '02:00:00:00:00:12'
const families = ['v4', 'v6'] as const

let topology: Topology
let near: TestPod
let far: TestPod
let attached: Attached

test.before(async () => {
  topology = await Topology.create({ label: 'x', direct: 'programs' })
  const node = topology.node(1)
  near = await node.addPod()
  far = await topology.node(2).addPod()
  node.closeDatapath()
  await node.openDatapath(undefined, { xdp: 'generic' })
  attached = new Attached(node)
  const deviceIndex = node.namespace.ifindex('eth0')
  for (const address of [outside.v4, outside.v6, ...topology.node(2).addresses])
    await node.netlink.setNeighbour({ address, mac: nextMac, deviceIndex })
  for (const [i, address] of ['0.0.0.0', '::'].entries())
    node.datapath.changeServices(
      [
        service(address, 30080, [i === 0 ? far.v4 : far.v6]),
        service(address, 30081, [i === 0 ? near.v4 : near.v6]),
        service(address, 30082, []),
      ].flat(),
      [],
    )
})
test.after.always(async () => {
  attached?.[Symbol.dispose]()
  await topology?.[Symbol.asyncDispose]()
})

const service = (address: string, port: number, backends: readonly string[]): Service[] =>
  (['TCP', 'UDP'] as const).map((protocol) => {
    const list = backends.map((b) => ({ address: b, port: 8080, protocol }))
    return { frontend: { address, port, protocol }, backends: list, outside: { backends: list } }
  })

/** struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex. */
function arrived(bytes: Buffer): TestRunResult {
  const context = Buffer.alloc(24)
  context.writeUInt32LE(bytes.length, 4)
  context.writeUInt32LE(topology.node(1).namespace.ifindex('eth0'), 12)
  return attached.within('xdp_entry', bytes, context)
}
const arrivedAtTc = (bytes: Buffer): TestRunResult =>
  attached.run('from_netdev', bytes, topology.node(1).namespace.ifindex('eth0'))

const own = (family: 'v4' | 'v6'): string => topology.node(1).addresses[family === 'v4' ? 0 : 1] ?? ''
let ports = 20_000

for (const family of families)
  for (const protocol of ['TCP', 'UDP'] as const)
    test.serial(
      `a backend on another node is reached from XDP, and its answers go back from there (${protocol}, ${family})`,
      (t) => {
        const sourcePort = ports++
        const ask = (flags: string): TestRunResult =>
          arrived(
            frame({
              source: outside[family],
              destination: own(family),
              sourcePort,
              destinationPort: 30080,
              protocol,
              flags,
            }),
          )
        const question = ask('S')
        t.is(question.verdict, verdicts.transmit)
        const seen = read(question.data)
        t.is(seen.to, at(far[family], 8080))
        const [node = '', port] = seen.from.split(' ')
        t.is(node, plain(own(family)))
        t.is(question.data.subarray(0, 6).toString('hex'), nextMac.replaceAll(':', ''))
        t.is(question.data[family === 'v4' ? 22 : 21], 63)
        t.is(ask('A').verdict, verdicts.transmit)
        const answer = arrived(
          frame({
            source: far[family],
            sourcePort: 8080,
            destination: node,
            destinationPort: Number(port),
            protocol,
            flags: 'SA',
          }),
        )
        t.is(answer.verdict, verdicts.transmit)
        const back = read(answer.data)
        t.deepEqual([back.from, back.to], [at(own(family), 30080), at(outside[family], sourcePort)])
        // The same maps: tc goes on where XDP began.
        const again = read(
          arrivedAtTc(
            frame({
              source: outside[family],
              destination: own(family),
              sourcePort,
              destinationPort: 30080,
              protocol,
              flags: 'A',
            }),
          ).data,
        )
        t.deepEqual([again.from, again.to], [seen.from, seen.to])
      },
    )

test.serial('what was chosen in XDP for a backend of this node is delivered by tc', (t) => {
  const s = { source: outside.v4, destination: own('v4'), sourcePort: ports++, destinationPort: 30081 }
  t.is(arrived(frame(s)).verdict, verdicts.pass)
  t.is(read(arrivedAtTc(frame(s)).data).to, at(near.v4, 8080))
})

test.serial('M5, M8: what XDP does not do goes on to tc untouched', (t) => {
  const to = (more: Partial<Segment>): Buffer =>
    frame({ source: outside.v4, destination: own('v4'), sourcePort: ports++, destinationPort: 30080, ...more })
  const fragment = to({})
  fragment.writeUInt16BE(0x2000, 20)
  const options = to({})
  options[14] = 0x46
  const lastHop = to({})
  lastHop[22] = 1
  const unfinished = to({ payload: Buffer.alloc(0) })
  // As a sender on this machine leaves it: the sum of the pseudo header, not turned over.
  const tcp = unfinished.subarray(34)
  const words = Buffer.concat([unfinished.subarray(26, 34), Buffer.from([0, 6, 0, tcp.length])])
  let sum = 0
  for (let i = 0; i < words.length; i += 2) sum += words.readUInt16BE(i)
  unfinished.writeUInt16BE((sum & 0xffff) + (sum >>> 16), 50)
  const cases: Record<string, Buffer> = {
    fragment,
    options,
    lastHop,
    unfinished,
    'no backend': to({ destinationPort: 30082 }),
    'no Service': to({ destinationPort: 30999 }),
    'middle of an unknown connection': to({ flags: 'A' }),
    ping: to({ protocol: 'ICMP', flags: 'question' }),
    'a pod': frame({ source: outside.v4, destination: near.v4 }),
    short: Buffer.concat([to({}).subarray(0, 36)]),
    arp: Buffer.concat([Buffer.alloc(12), Buffer.from('0806', 'hex'), Buffer.alloc(46)]),
  }
  for (const [name, bytes] of Object.entries(cases)) {
    const { verdict, data } = arrived(bytes)
    t.is(verdict, verdicts.pass, name)
    t.deepEqual(data, bytes, name)
  }
  t.true(
    packet({
      source: '1.1.1.1',
      destination: '2.2.2.2',
      protocol: 'UDP',
      sourcePort: 1,
      destinationPort: 2,
      flags: '',
      payload: Buffer.alloc(0),
    }).length > 0,
  )
})

test.serial('M5: with XDP in a veth pair real connections to a node port work, native and generic', async (t) => {
  const real = await Topology.create({ label: 'y' })
  try {
    const [one, two] = [real.node(1), real.node(2)]
    const [local, remote] = [await one.addPod(), await two.addPod()]
    for (const mode of ['native', 'generic'] as const) {
      one.closeDatapath()
      const datapath = await one.openDatapath(undefined, { xdp: mode })
      for (const [pod, port] of [
        [local, 30081],
        [remote, 30080],
      ] as const) {
        datapath.changeServices(service('0.0.0.0', port, [pod.v4]), [])
        datapath.changeServices(service('::', port, [pod.v6]), [])
        for (const [i, address] of [pod.v4, pod.v6].entries()) {
          await using _ = await serve(inPod(pod), address, 8080)
          for (const kind of ['rr', 'crr', 'urr', 'stream'] as const)
            t.true((await load(onFabric(real), kind, one.addresses[i] ?? '', port)) > 0, `${mode} ${kind} ${address}`)
        }
      }
    }
  } finally {
    await real[Symbol.asyncDispose]()
  }
})
