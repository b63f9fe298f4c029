import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { GoneBackends } from '#agent/services/gone.ts'
import { eventually } from '#base/async/eventually.ts'
import { systemClock } from '#base/clock.ts'
import { silentLog } from '#base/log/log.ts'
import type { Service } from '#datapath/datapath.ts'
import { namespaceDir } from '#kernel/netns.ts'
import { Socket } from '#test/model/run/sockets-libc.ts'
import { both, targetPort } from './frontends.ts'
import { inPod, load, onNode, peerNames, serve, type TestPod, type TestServer, Topology } from './topology.ts'

/** The node's loopback addresses by the socket hooks, and sockets of the kernel's own. */
let topology: Topology
let client: TestPod
let near: TestPod
let far: TestPod
const servers: TestServer[] = []

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

test('S6: datagram sockets that are connected to a backend that is gone are ended, a pod’s and the node’s, of both families', async (t) => {
  const node = client.node
  const gone = [far.v4, far.v6].map((address) => ({ address, port: 7, protocol: 'UDP' as const }))
  const places = [client.namespace, near.namespace, node.namespace]
  const open = (family: 4 | 6, address: string, port: number): Socket[] =>
    places.map((namespace) => {
      const socket = Socket.open(namespace, { family, protocol: 'UDP' })
      t.is(socket.connect({ address, port }), undefined)
      return socket
    })
  const sockets = [...open(4, far.v4, 7), ...open(6, far.v6, 7), ...open(6, `::ffff:${far.v4}`, 7)]
  const others = [...open(4, far.v4, 8), ...open(4, near.v4, 7)]
  const stop = new AbortController()
  const backends = new GoneBackends({
    datapath: node.datapath,
    isPresent: () => false,
    sandboxes: () => [client.namespace.path, near.namespace.path],
    namespace: node.namespace,
    clock: systemClock,
    log: silentLog,
  })
  const running = backends.run(stop.signal)
  backends.noteTaken(gone)
  try {
    for (const socket of sockets) await eventually(() => socket.error === 'ECONNABORTED')
    for (const socket of others) t.is(socket.error, undefined)
  } finally {
    stop.abort()
    await running
    for (const socket of [...sockets, ...others]) socket[Symbol.dispose]()
  }
})

const inside = (pod: TestPod, command: string, ...args: readonly string[]): string =>
  execFileSync('nsenter', [`--net=${join(namespaceDir, pod.name)}`, command, ...args], { encoding: 'utf8' })

/** One end of a multipath connection, until it is disposed of. */
async function multipath(pod: TestPod, role: 'server' | 'client', address: string): Promise<AsyncDisposable> {
  const script = join(import.meta.dirname, 'mptcp.ts')
  const args = [
    `--net=${join(namespaceDir, pod.name)}`,
    process.execPath,
    script,
    pod.node.cgroupPath,
    role,
    address,
    '9000',
  ]
  const child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const closed = once(child, 'close')
  await Promise.race([
    once(child.stdout, 'data'),
    closed.then(([code]) => Promise.reject(new Error(`the ${role} ended with ${code}`))),
  ])
  return {
    async [Symbol.asyncDispose]() {
      // It may wait in a call for somebody who never comes.
      child.kill()
      await closed
    },
  }
}

/*
 * Most of what connects by itself in the kernel (NFS, SMB, iSCSI, NBD, 9p, RDS, DLM) this kernel was built without; multipath
 * TCP it has. kernel_connect() works on a copy of its caller's address (Linux 6.6): the hook rewrites that one.
 */
test('S25: a connection that the kernel itself makes is led to a backend, or refused, as any process’s is', async (t) => {
  if (!existsSync('/proc/sys/net/mptcp')) {
    t.log('this kernel has no MPTCP (CONFIG_MPTCP), which is what connects here by itself')
    t.pass()
    return
  }
  const service = (last: number, backends: readonly string[]): Service => ({
    frontend: { address: `10.96.0.${last}`, port: 9000, protocol: 'TCP' },
    backends: backends.map((address) => ({ address, port: 9000, protocol: 'TCP' })),
  })
  const services = [service(50, [near.v4]), service(51, []), service(52, [near.v4])]
  const { datapath } = client.node
  for (const pod of [client, near])
    inside(pod, 'ip', 'mptcp', 'limits', 'set', 'subflow', '8', 'add_addr_accepted', '8')
  await using _server = await multipath(near, 'server', near.v4)
  await using _client = await multipath(client, 'client', near.v4)
  const peers = (): string[] =>
    inside(client, 'ss', '-Htn', 'dport', '=', ':9000')
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/)[4] ?? '')
  const failed = (): number => {
    const [names = '', values = ''] = inside(client, 'cat', '/proc/net/netstat')
      .split('\n')
      .filter((line) => line.startsWith('MPTcpExt'))
    return Number(values.split(' ')[names.split(' ').indexOf('MPJoinSynTxConnectErr')])
  }
  t.deepEqual(peers(), [`${near.v4}:9000`])
  /** The server says that it has this address too: the client's kernel connects to it. */
  const announce = (last: number): void => {
    inside(near, 'ip', 'mptcp', 'endpoint', 'add', `10.96.0.${last}`, 'signal')
  }
  const limits = { withinMs: 10_000, pauseMs: 20 }
  const are = async (count: number): Promise<void> => {
    await eventually(() => {
      if (peers().length !== count) throw new Error(`connections to ${peers().join(', ')}`)
    }, limits)
    t.deepEqual(peers(), Array(count).fill(`${near.v4}:9000`))
  }
  datapath.changeServices(services, [])
  announce(50)
  await are(2)
  t.is(failed(), 0)
  announce(51)
  await eventually(() => {
    if (failed() !== 1) throw new Error(`${failed()} connections were refused`)
  }, limits)
  t.is(peers().length, 2)
  announce(52)
  await are(3)
  datapath.changeServices(
    [],
    services.map((s) => s.frontend),
  )
})
