import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import type { Service } from '#datapath/datapath.ts'
import { ensureCgroup, findCgroups, removeCgroup } from '#kernel/cgroup.ts'
import { both, targetPort } from './frontends.ts'
import { inPod, load, onFabric, onNode, peerNames, serve, type TestPod, type TestServer, Topology } from './topology.ts'

let topology: Topology
let client: TestPod
let near: TestPod
let far: TestPod
const servers: TestServer[] = []
const vip = { v4: '10.96.0.10', v6: 'fd00:10:96::10' }

test.before(async () => {
  topology = await Topology.create({ label: 's' })
  client = await topology.node(1).addPod()
  near = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  for (const pod of [near, far])
    for (const address of [pod.v4, pod.v6]) servers.push(await serve(inPod(pod), address, targetPort))
  for (const node of topology.nodes) {
    node.datapath.changeServices(
      [...both(vip.v4, 80, [near.v4, far.v4]), ...both(vip.v6, 80, [near.v6, far.v6]), ...both('10.96.0.11', 80, [])],
      [],
    )
  }
})
test.after.always(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await topology?.[Symbol.asyncDispose]()
})

for (const family of ['v4', 'v6'] as const) {
  test(`a pod reaches a Service by TCP and UDP, and is told the name that it used (${family})`, async (t) => {
    for (const mode of ['rr', 'crr', 'urr', 'stream'] as const)
      t.true((await load(inPod(client), mode, vip[family], 80)) > 0)
    const name = `${vip[family]} 80`
    t.deepEqual(await peerNames(inPod(client), vip[family], 80), { tcp: name, udp: name, 'connected-udp': name })
  })

  test(`a process of the node, and a pod that is its own backend, reach the Service (${family})`, async (t) => {
    t.true((await load(onNode(topology, topology.node(1)), 'crr', vip[family], 80)) > 0)
    t.true((await load(inPod(near), 'crr', vip[family], 80)) > 0)
    t.true((await load(inPod(far), 'urr', vip[family], 80)) > 0)
  })
}

test('an IPv6 socket reaches an IPv4 Service by its mapped address', async (t) => {
  t.is((await peerNames(inPod(client), '::ffff:10.96.0.10', 80)).tcp, '::ffff:10.96.0.10 80')
})

test('a Service without endpoints, and a port that a Service does not have, refuse at once', async (t) => {
  for (const mode of ['crr', 'urr'] as const) {
    await t.throwsAsync(load(inPod(client), mode, '10.96.0.11', 80), { message: /connect: ECONNREFUSED/ })
    await t.throwsAsync(load(inPod(client), mode, '10.96.0.10', 81), { message: /connect: ECONNREFUSED/ })
    await t.throwsAsync(load(inPod(client), mode, 'fd00:10:96::77', 80), { message: /connect: ECONNREFUSED/ })
  }
})

test('S18: a process of the node cannot listen on a node port; a pod can, and on any other port everybody', async (t) => {
  const node = topology.node(2)
  for (const address of ['0.0.0.0', '::'])
    node.datapath.changeServices(both(address, 30555, [address === '::' ? far.v6 : far.v4]), [])
  for (const address of node.addresses)
    await t.throwsAsync(serve(onNode(topology, node), address, 30555), { message: /ended with/ })
  {
    await using _ = await serve(inPod(far), far.v4, 30555)
    t.pass()
  }
  await using _ = await serve(onNode(topology, node), node.addresses[0] ?? '', 30556)
})

test('a node port leads to a process of the node itself, and its answers come from there (host network)', async (t) => {
  const node = topology.node(2)
  const addresses = topology.nodes.flatMap((other) =>
    other.addresses.map((address) => ({ address, kind: other === node ? 'own' : 'node' }) as const),
  )
  for (const [i, address] of node.addresses.entries()) {
    const backends = (['TCP', 'UDP'] as const).map((protocol) => ({ address, port: 18_081, protocol }))
    node.datapath.changeServices(
      backends.map((b) => ({
        frontend: { address: i === 0 ? '0.0.0.0' : '::', port: 30_600, protocol: b.protocol },
        backends: [b],
        outside: { backends: [b] },
      })),
      [],
    )
  }
  node.datapath.setAddresses(addresses)
  await node.datapath.attachForServices()
  for (const address of node.addresses) {
    await using _ = await serve(onNode(topology, node), address, 18_081)
    for (const mode of ['rr', 'crr', 'urr', 'stream'] as const)
      t.true((await load(onFabric(topology), mode, address, 30_600)) > 0, `${mode} ${address}`)
  }
  const link = join(node.pinDir, 'links', 'egress-node-to_netdev')
  t.true(existsSync(link))
  node.datapath.changeServices(
    [],
    ['0.0.0.0', '::'].flatMap((address) =>
      (['TCP', 'UDP'] as const).map((protocol) => ({ address, port: 30_600, protocol })),
    ),
  )
  await node.datapath.attachForServices()
  t.false(existsSync(link), 'packets between nodes pay for it no longer')
})

test('S6, L16: sockets of a pod and of the node that talk to a backend that is gone are ended at once', async (t) => {
  const node = topology.node(1)
  const backend = { address: far.v4, port: 18_080 }
  await using _ = await serve(inPod(far), backend.address, backend.port)
  for (const [place, where] of [
    [inPod(client), client.namespace],
    [onNode(topology, node), node.namespace],
  ] as const) {
    const talk = load(place, 'rr', backend.address, backend.port, 10_000)
    const failed = t.throwsAsync(talk, { message: /ECONNABORTED|ECONNRESET/ })
    const end = performance.now() + 5_000
    // The connection is there a moment after the process has begun.
    let ended = 0
    while (ended === 0 && performance.now() < end) ended = await where.destroySockets('TCP', [backend])
    t.is(ended, 1)
    await failed
  }
  t.is(await client.namespace.destroySockets('TCP', [{ ...backend, port: 1 }]), 0)
})

test('processes outside the node are not touched', async (t) => {
  await t.throwsAsync(load(onFabric(topology), 'crr', vip.v4, 80), { message: /ENETUNREACH/ })
})

test('connections spread over the backends, and a backend that is taken away gets none', async (t) => {
  const { datapath } = topology.node(1)
  const [tcp] = both('10.96.0.20', 80, [near.v4, far.v4])
  const [alone] = both('10.96.0.20', 80, [far.v4])
  if (tcp === undefined || alone === undefined) throw new Error('unreachable')
  const forwarded = (): number =>
    datapath.counters().find((c) => c.reason === 'Forwarded' && c.direction === 'INGRESS')?.packets ?? 0
  datapath.changeServices([tcp], [])
  // Replies of the far backend come in by the uplink; those of the near one do not.
  const before = forwarded()
  const start = performance.now()
  const rate = await load(inPod(client), 'crr', '10.96.0.20', 80, 50)
  // On a machine with much to do it connects for longer than it was told to.
  const seconds = (performance.now() - start) / 1_000
  const some = forwarded() - before
  t.true(some > 0 && some < rate * seconds * 8, `${some} packets from the far backend at ${rate}/s in ${seconds} s`)
  datapath.changeServices([alone], [])
  t.deepEqual(
    datapath.services().find((s) => s.frontend.address === '10.96.0.20'),
    alone,
  )
  t.true((await load(inPod(client), 'crr', '10.96.0.20', 80)) > 0)
  datapath.changeServices([], [alone.frontend])
  await t.throwsAsync(load(inPod(client), 'crr', '10.96.0.20', 80), { message: /ECONNREFUSED/ })
})

test('ten thousand Services are written in a moment, one more in less, and all are gone again', (t) => {
  const { datapath } = topology.node(2)
  const before = datapath.services().length
  const many = Array.from({ length: 10_000 }, (_, i): Service => {
    const backend = (n: number) => ({
      address: `10.244.1.${1 + ((i + n) % 250)}`,
      port: 1000 + n,
      protocol: 'TCP' as const,
    })
    return {
      frontend: { address: `10.96.${16 + (i >> 8)}.${i & 255}`, port: 80, protocol: 'TCP' },
      backends: [backend(0), backend(1), backend(2)],
    }
  })
  const start = performance.now()
  datapath.changeServices(many, [])
  const all = performance.now() - start
  t.is(datapath.services().length, before + 10_000)
  datapath.changeServices(
    [],
    many.map((s) => s.frontend),
  )
  t.is(datapath.services().length, before)
  t.true(all < 5_000, `${all.toFixed(0)} ms`)
  t.log(`10,000 Services in ${all.toFixed(0)} ms`)
})

test.serial('L13: an agent that finds a new cgroup of the old name attaches to it', async (t) => {
  const again = await Topology.create({ label: 'g', direct: 'programs' })
  try {
    const node = again.node(1)
    const [client, server] = [await node.addPod(), await node.addPod()]
    await using _ = await serve({ namespace: server.name }, server.v4, targetPort)
    node.datapath.changeServices(both(vip.v4, 80, [server.v4]), [])
    node.closeDatapath()
    const tree = findCgroups()
    removeCgroup(tree, node.cgroup)
    ensureCgroup(tree, node.cgroup)
    const refusedByPacket = async (): Promise<number> => {
      const count = (): number =>
        node.datapath
          .counters()
          .filter((c) => c.reason === 'Service not found')
          .reduce((sum, c) => sum + c.packets, 0)
      const before = count()
      await t.throwsAsync(load(inPod(client), 'crr', vip.v4, 81), { message: /ECONNREFUSED/ })
      return count() - before
    }
    await node.openDatapath()
    t.is(await refusedByPacket(), 0, 'the socket hook refuses, no packet is made')
    t.true((await load(inPod(client), 'crr', vip.v4, 80)) > 0)
  } finally {
    await again[Symbol.asyncDispose]()
  }
})
