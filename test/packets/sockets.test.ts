import test from 'ava'
import type { Service } from '#datapath/datapath.ts'
import { inPod, load, onNode, peerNames, serve, type TestPod, type TestServer, Topology } from './topology.ts'

/** The node's loopback addresses by the socket hooks, and sockets of the kernel's own. */
let topology: Topology
let client: TestPod
let near: TestPod
let far: TestPod
const servers: TestServer[] = []
const targetPort = 8080

/** A frontend of both protocols. */
const both = (address: string, port: number, backends: readonly string[], more: Partial<Service> = {}): Service[] =>
  (['TCP', 'UDP'] as const).map((protocol) => ({
    frontend: { address, port, protocol },
    backends: backends.map((b) => ({ address: b, port: targetPort, protocol })),
    ...more,
  }))

test.before(async () => {
  topology = await Topology.create({ label: 'k' })
  client = await topology.node(1).addPod()
  near = await topology.node(1).addPod()
  far = await topology.node(2).addPod()
  for (const pod of [near, far])
    for (const address of [pod.v4, pod.v6]) servers.push(await serve(inPod(pod), address, targetPort))
  topology.node(1).datapath.changeServices(
    [
      // Policy Local with none here: those outside get no answer, this node's own processes do.
      ...both('0.0.0.0', 30_080, [far.v4], { outside: { backends: [], isLocal: true } }),
      ...both('::', 30_080, [far.v6], { outside: { backends: [], isLocal: true } }),
      ...both('0.0.0.0', 30_081, []),
      ...both('127.0.0.1', 8_880, [near.v4]),
      ...both('::1', 8_880, [near.v6]),
    ],
    [],
  )
})
test.after.always(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]()
  await topology?.[Symbol.asyncDispose]()
})

for (const [address, name] of [
  ['127.0.0.1', '127.0.0.1'],
  ['::1', '::1'],
  ['::ffff:127.0.0.1', '::ffff:127.0.0.1'],
  // The stack means its loopback by it, and says so.
  ['0.0.0.0', '127.0.0.1'],
  ['::', '::1'],
] as const)
  for (const [port, what] of [
    [30_080, 'a node port'],
    [8_880, 'a host port'],
  ] as const)
    test(`S18, S19: a process of the node reaches ${what} at ${address}, and is told the name that it used`, async (t) => {
      const here = onNode(topology, topology.node(1))
      for (const mode of ['rr', 'crr', 'urr'] as const) t.true((await load(here, mode, address, port)) > 0, mode)
      const peer = `${name} ${port}`
      t.deepEqual(await peerNames(here, address, port), { tcp: peer, udp: peer, 'connected-udp': peer })
    })

test('S18: a node port is at all of 127.0.0.0/8, a host port at 127.0.0.1 alone, and one without endpoints refuses', async (t) => {
  const here = onNode(topology, topology.node(1))
  t.true((await load(here, 'crr', '127.1.2.3', 30_080)) > 0)
  for (const mode of ['crr', 'urr'] as const) {
    await t.throwsAsync(load(here, mode, '127.0.0.2', 8_880), { message: /ECONNREFUSED/ })
    await t.throwsAsync(load(here, mode, '127.0.0.1', 30_081), { message: /connect: ECONNREFUSED/ })
  }
})

test('S18: a pod’s loopback is the pod’s', async (t) => {
  for (const port of [30_080, 8_880])
    for (const address of ['127.0.0.1', '::1', '0.0.0.0', '::']) {
      await t.throwsAsync(load(inPod(client), 'crr', address, port), { message: /ECONNREFUSED/ })
      await using _ = await serve(
        inPod(client),
        address === '0.0.0.0' || address === '127.0.0.1' ? '127.0.0.1' : '::1',
        port,
      )
      t.true((await load(inPod(client), 'crr', address, port)) > 0)
    }
})

test('S18: who listens on the node’s loopback keeps his port, and cannot take a node port', async (t) => {
  const here = onNode(topology, topology.node(1))
  await t.throwsAsync(serve(here, '127.0.0.1', 30_080), { message: /ended with/ })
  await using _ = await serve(here, '127.0.0.1', 30_090)
  t.true((await load(here, 'crr', '127.0.0.1', 30_090)) > 0)
})
