import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Link } from '#kernel/bpf/program.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import { namespaceDir } from '#kernel/netns.ts'
import { inPod, load, onFabric, onNode, serve, serviceCidrs, type TestPod, Topology } from './topology.ts'

/** Root, a kernel of 6.8 or later, clang: `node scripts/test.js` says so where one is missing. */
let topology: Topology
let a: TestPod
let b: TestPod
let far: TestPod
const port = 8080

test.before(async () => {
  topology = await Topology.create({ label: 'd' })
  a = await topology.node(1).addPod()
  b = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
})
test.after.always(async () => {
  await topology?.[Symbol.asyncDispose]()
})

const families = ['v4', 'v6'] as const

for (const family of families) {
  test(`pods of one node talk (${family})`, async (t) => {
    await using _ = await serve(inPod(b), b[family], port)
    t.true((await load(inPod(a), 'rr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'crr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'urr', b[family], port)) > 0)
    t.true((await load(inPod(a), 'stream', b[family], port)) > 0)
  })

  test(`pods of two nodes talk (${family})`, async (t) => {
    await using _ = await serve(inPod(far), far[family], port)
    t.true((await load(inPod(a), 'rr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'crr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'urr', far[family], port)) > 0)
    t.true((await load(inPod(a), 'stream', far[family], port)) > 0)
  })
}

/** Packets that a node's uplink has sent, as its namespace counts them. */
function sentByUplink(on: Topology, index: number): number {
  const command = [`--net=${join(namespaceDir, on.name(`node${index}`))}`, 'cat', '/proc/net/dev']
  const line = execFileSync('nsenter', command, { encoding: 'utf8' })
    .split('\n')
    .find((l) => l.trim().startsWith('eth0:'))
  return Number(line?.split(':')[1]?.trim().split(/\s+/)[9])
}

for (const cable of ['straight', 'queue'] as const) {
  test.serial(`an uplink that is one end of a veth pair: to pods of another node ${cable}`, async (t) => {
    const pair = await Topology.create({ label: `c${cable[0]}`, datapath: { cable } })
    try {
      const [near, distant] = [await pair.node(1).addPod(), await pair.node(2).addPod()]
      for (const family of families) {
        await using _ = await serve(inPod(distant), distant[family], port)
        // The first ones ask the kernel for the neighbour, by its queue.
        await load(inPod(near), 'rr', distant[family], port)
        const before = sentByUplink(pair, 1)
        const exchanged = (await load(inPod(near), 'rr', distant[family], port, 200)) / 5
        t.true(exchanged > 100)
        const sent = sentByUplink(pair, 1) - before
        if (cable === 'queue') t.true(sent >= exchanged / 2, `${sent} packets for ${exchanged} exchanges`)
        else t.true(sent < exchanged / 10, `${sent} packets went through the queue`)
        t.true((await load(inPod(near), 'stream', distant[family], port)) > 0)
      }
    } finally {
      await pair[Symbol.asyncDispose]()
    }
  })
}

for (const [index, family] of families.entries()) {
  test(`a node and its pod talk, both ways (${family})`, async (t) => {
    const node = topology.node(1)
    const address = node.addresses[index] ?? ''
    {
      await using _ = await serve(inPod(b), b[family], port + 1)
      t.true((await load(onNode(topology, node), 'crr', b[family], port + 1)) > 0)
    }
    await using _ = await serve(onNode(topology, node), address, port + 1)
    t.true((await load(inPod(a), 'crr', address, port + 1)) > 0)
  })

  test(`a node and another node's pod talk, both ways (${family})`, async (t) => {
    const node = topology.node(1)
    const address = node.addresses[index] ?? ''
    {
      await using _ = await serve(inPod(far), far[family], port + 2)
      t.true((await load(onNode(topology, node), 'crr', far[family], port + 2)) > 0)
    }
    await using _ = await serve(onNode(topology, node), address, port + 2)
    t.true((await load(inPod(far), 'crr', address, port + 2)) > 0)
  })

  test(`the fabric and a pod talk, both ways, with the node answering for the pod's address (${family})`, async (t) => {
    const address = ['172.30.0.1', 'fd00:172:30::1'][index] ?? ''
    {
      await using _ = await serve(inPod(far), far[family], port + 3)
      t.true((await load(onFabric(topology), 'crr', far[family], port + 3)) > 0)
    }
    await using _ = await serve(onFabric(topology), address, port + 3)
    t.true((await load(inPod(a), 'crr', address, port + 3)) > 0)
  })

  test(`a pod that asks who its gateway is gets an answer (${family})`, async (t) => {
    const pod = await topology.node(2).addPod()
    await using _ = await serve(onNode(topology, topology.node(2)), topology.node(2).addresses[index] ?? '', port + 4)
    using inside = Netlink.open(pod.namespace)
    await inside.removeNeighbour(family === 'v4' ? '169.254.1.1' : 'fe80::1', pod.namespace.ifindex('eth0'))
    t.true((await load(inPod(pod), 'crr', topology.node(2).addresses[index] ?? '', port + 4)) > 0)
  })
}

test('nothing answers at an address of the pod network that no pod has', async (t) => {
  await t.throwsAsync(load(inPod(a), 'crr', '10.244.2.250', port), { message: /EHOSTUNREACH/ })
  await t.throwsAsync(load(inPod(a), 'crr', 'fd00:10:244:2::250', port), { message: /EHOSTUNREACH|ENETUNREACH|EACCES/ })
})

test('M20: traffic survives without segmentation and checksum offloads', async (t) => {
  const plain = await topology.node(1).addPod()
  plain.namespace.setOffloads('eth0', 'off')
  await using _ = await serve(inPod(plain), plain.v4, port)
  await using __ = await serve(inPod(plain), plain.v6, port)
  for (const from of [a, far]) {
    for (const address of [plain.v4, plain.v6]) t.true((await load(inPod(from), 'stream', address, port)) > 0)
  }
  await using ___ = await serve(inPod(far), far.v6, port + 5)
  t.true((await load(inPod(plain), 'stream', far.v6, port + 5)) > 0)
})

test.serial(
  'other programs take over under traffic, without a packet in between, and the old ones are gone',
  async (t) => {
    const exchange = await Topology.create({ label: 'x', direct: 'programs' })
    try {
      const node = exchange.node(1)
      const [client, near] = [await node.addPod(), await node.addPod()]
      const distant = await exchange.node(2).addPod()
      await using _ = await serve(inPod(near), near.v4, port)
      await using __ = await serve(inPod(distant), distant.v4, port)
      const versions = (): string[] => readdirSync(join(node.pinDir, 'programs')).toSorted()
      const running = (): number[] =>
        readdirSync(join(node.pinDir, 'links')).map((name) => {
          using link = Link.openPin(join(node.pinDir, 'links', name))
          return link?.info.programId ?? 0
        })
      const before = { versions: versions(), programs: running() }
      // What a kernel says to the multicast groups of a new device is never forwarded.
      const dropped = (): readonly string[] =>
        node.datapath
          .counters()
          .filter((c) => c.reason !== 'Forwarded' && c.reason !== 'Multicast or link-local destination')
          .map((c) => `${c.direction} ${c.reason} ${c.packets}`)
      const lost = dropped()
      const flows = [near.v4, distant.v4].map((address) => load(inPod(client), 'crr', address, port, 800))
      // Another Service network is another program; then the first again.
      for (const cidrs of [['10.97.0.0/16'], serviceCidrs]) {
        node.closeDatapath()
        await node.openDatapath(cidrs)
        t.false(running().some((id) => before.programs.includes(id)))
      }
      for (const rate of await Promise.all(flows)) t.true(rate > 0)
      t.deepEqual(dropped(), lost)
      t.deepEqual(versions(), before.versions)
      t.is(running().length, before.programs.length)
      node.closeDatapath()
      const now = running()
      await node.openDatapath()
      t.deepEqual(running(), now, 'the same agent again changes nothing')
    } finally {
      await exchange[Symbol.asyncDispose]()
    }
  },
)
