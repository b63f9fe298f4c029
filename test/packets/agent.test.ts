import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import test from 'ava'
import { type Agent, createAgent } from '#agent/agent.ts'
import { endpointSlices, nodes, pods, services } from '#api/gen/resources.ts'
import { eventually } from '#base/async/eventually.ts'
import { systemClock } from '#base/clock.ts'
import { FakeClient } from '#client/fake.ts'
import { createNamespace, deleteNamespace, Namespace, namespaceDir } from '#kernel/netns.ts'
import { load, type Place, serve, serviceCidrs, type TestNode, Topology } from './topology.ts'

/** The agent itself, on an API in memory and a real kernel, called by the real plug-in as a runtime would call it. */
const plugin = resolve(import.meta.dirname, '../../native/build/weft-cni')

let topology: Topology
const client = new FakeClient({ clock: systemClock })
const running = new Map<
  TestNode,
  { readonly agent: Agent; readonly stop: AbortController; readonly ended: Promise<void> }
>()
const sandboxes: string[] = []

async function startAgent(node: TestNode): Promise<Agent> {
  const stop = new AbortController()
  const agent = createAgent({
    nodeName: `node-${node.index}`,
    client,
    uplink: 'eth0',
    cgroup: node.cgroup,
    pinDir: node.pinDir,
    serviceCidrs,
    runDir: runDirOf(node),
    namespace: node.namespace,
  })
  const ended = Promise.withResolvers<void>()
  const ready = Promise.withResolvers<void>()
  agent.run(stop.signal, ready.resolve).then(ended.resolve, (error) => {
    if (stop.signal.aborted) return ended.resolve()
    ready.reject(error)
    ended.reject(error)
  })
  running.set(node, { agent, stop, ended: ended.promise })
  await ready.promise
  return agent
}

async function stopAgent(node: TestNode): Promise<void> {
  const known = running.get(node)
  known?.stop.abort()
  await known?.ended
  running.delete(node)
}

const runDirOf = (node: TestNode): string => join(topology.dir, `run${node.index}`)

/** Calls the plug-in as containerd does. */
async function cni(
  node: TestNode,
  command: string,
  sandbox: string,
  pod = sandbox,
): Promise<{ readonly code: number; readonly output: Record<string, unknown> }> {
  const config = { cniVersion: '1.0.0', name: 'weft', type: 'weft-cni', weftSocket: join(runDirOf(node), 'cni.sock') }
  return new Promise((done, fail) => {
    const child = execFile(
      plugin,
      {
        env: {
          CNI_COMMAND: command,
          CNI_CONTAINERID: sandbox,
          CNI_NETNS: join(namespaceDir, topology.name(sandbox)),
          CNI_IFNAME: 'eth0',
          CNI_ARGS: `K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod};K8S_POD_INFRA_CONTAINER_ID=${sandbox}`,
        },
      },
      (error, stdout) => {
        if (error !== null && typeof error.code !== 'number') return fail(error)
        done({ code: (error?.code as number | undefined) ?? 0, output: stdout === '' ? {} : JSON.parse(stdout) })
      },
    )
    child.stdin?.end(JSON.stringify(config))
  })
}

function addSandbox(id: string): Place {
  createNamespace(topology.name(id))
  sandboxes.push(topology.name(id))
  return { namespace: topology.name(id) }
}

function seedPod(node: TestNode, name: string, ips?: string): void {
  client.seed(pods, {
    metadata: {
      name,
      namespace: 'default',
      ...(ips === undefined ? {} : { annotations: { 'weft.dev/pod-ips': ips } }),
    },
    spec: { nodeName: `node-${node.index}`, containers: [] },
  })
}

test.before(async () => {
  topology = await Topology.create({ label: 'a' })
  for (const node of topology.nodes) {
    // The agent finds what another has left.
    node.closeDatapath()
    client.seed(nodes, {
      metadata: { name: `node-${node.index}` },
      spec: { podCIDRs: [...node.podCidrs] },
      status: { addresses: node.addresses.map((address) => ({ type: 'InternalIP', address })) },
    })
    await startAgent(node)
  }
})
test.after.always(async () => {
  for (const node of topology?.nodes ?? []) await stopAgent(node)
  for (const name of sandboxes) deleteNamespace(name)
  await topology?.[Symbol.asyncDispose]()
})

test.serial('a sandbox is connected by one call, with the addresses that the control plane chose', async (t) => {
  const [one, two] = [topology.node(1), topology.node(2)]
  seedPod(one, 'web', '10.244.1.7,fd00:10:244:1::7')
  seedPod(two, 'peer', '10.244.2.9,fd00:10:244:2::9')
  const web = { ...addSandbox('web'), cgroup: one.cgroupPath }
  const peer = { ...addSandbox('peer'), cgroup: two.cgroupPath }
  const start = performance.now()
  const { code, output } = await cni(one, 'ADD', 'web')
  t.log(`ADD took ${(performance.now() - start).toFixed(1)} ms`)
  t.is(code, 0, JSON.stringify(output))
  t.deepEqual(
    (output.ips as { address: string }[]).map((ip) => ip.address),
    ['10.244.1.7/32', 'fd00:10:244:1::7/128'],
  )
  t.is((await cni(two, 'ADD', 'peer')).code, 0)
  t.is((await cni(one, 'CHECK', 'web')).code, 0)
  for (const address of ['10.244.2.9', 'fd00:10:244:2::9']) {
    await using _ = await serve(peer, address, 80)
    t.true((await load(web, 'crr', address, 80)) > 0)
  }
})

test.serial('a Service reaches the kernel with its slices, and leaves it with them', async (t) => {
  const one = topology.node(1)
  const web = { namespace: topology.name('web'), cgroup: one.cgroupPath }
  const peer = { namespace: topology.name('peer'), cgroup: topology.node(2).cgroupPath }
  const service = client.seed(services, {
    metadata: { name: 'peer', namespace: 'default' },
    spec: { clusterIPs: ['10.96.0.50'], ports: [{ name: 'http', port: 80, targetPort: 'web', protocol: 'TCP' }] },
  })
  await eventually(async () => /ECONNREFUSED/.test(await refusal(load(web, 'crr', '10.96.0.50', 80))))
  client.seed(endpointSlices, {
    metadata: { name: 'peer-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'peer' } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: [{ addresses: ['10.244.2.9'], conditions: { ready: true } }],
  })
  await using _ = await serve(peer, '10.244.2.9', 8080)
  await eventually(async () => (await refusal(load(web, 'crr', '10.96.0.50', 80))) === '')
  t.like(running.get(one)?.agent.status().services, { services: 1, backends: 1, trouble: '' })
  client.vanish(services, { namespace: 'default', name: service.metadata.name ?? '' })
  await eventually(async () => running.get(one)?.agent.status().services?.frontends === 0)
})

test.serial(
  'L11, L12: traffic goes on while the agent is away, and a sandbox that left meanwhile is forgotten',
  async (t) => {
    const [one, two] = [topology.node(1), topology.node(2)]
    const web = { namespace: topology.name('web'), cgroup: one.cgroupPath }
    const peer = { namespace: topology.name('peer'), cgroup: two.cgroupPath }
    seedPod(one, 'short', '10.244.1.8,fd00:10:244:1::8')
    addSandbox('short')
    t.is((await cni(one, 'ADD', 'short')).code, 0)
    await using _ = await serve(peer, '10.244.2.9', 81)
    const flow = load(web, 'rr', '10.244.2.9', 81, 600)
    await stopAgent(one)
    // The plug-in says what is the matter, in the specification's words.
    const away = await cni(one, 'ADD', 'short')
    t.is(away.code, 1)
    t.like(away.output, { code: 11, msg: 'The Weft agent of this node does not answer; the call is tried again' })
    deleteNamespace(topology.name('short'))
    await startAgent(one)
    t.true((await flow) > 0)
    const agent = running.get(one)?.agent
    t.is(agent?.status().endpoints, 1)
    t.deepEqual(
      readdirSync(join(one.pinDir, 'links')).filter((name) => name.startsWith('endpoint-short')),
      [],
    )
    t.true((await load(web, 'crr', '10.244.2.9', 81)) > 0)
  },
)

test.serial(
  'L11: a new sandbox of a pod takes the address over; the end of the old one does not take it away',
  async (t) => {
    const one = topology.node(1)
    const peer = { namespace: topology.name('peer'), cgroup: topology.node(2).cgroupPath }
    const again = { ...addSandbox('web-again'), cgroup: one.cgroupPath }
    t.is((await cni(one, 'ADD', 'web-again', 'web')).code, 0)
    t.is((await cni(one, 'DEL', 'web')).code, 0)
    t.is((await cni(one, 'DEL', 'web')).code, 0, 'nothing to do is fine')
    await using _ = await serve(again, '10.244.1.7', 82)
    t.true((await load(peer, 'crr', '10.244.1.7', 82)) > 0)
    t.true((await load({ namespace: topology.name('node1'), cgroup: one.cgroupPath }, 'crr', '10.244.1.7', 82)) > 0)
    t.is((await cni(one, 'CHECK', 'web-again', 'web')).code, 0)
    t.is((await cni(one, 'CHECK', 'web')).code, 1)
  },
)

test.serial('a pod without an address from the control plane gets a free one of the node', async (t) => {
  const one = topology.node(1)
  seedPod(one, 'plain')
  addSandbox('plain')
  const { output } = await cni(one, 'ADD', 'plain')
  t.deepEqual(
    (output.ips as { address: string }[]).map((ip) => ip.address),
    ['10.244.1.2/32', 'fd00:10:244:1::2/128'],
  )
  t.is((await cni(one, 'DEL', 'plain')).code, 0)
})

test.serial(
  'L12: a sandbox whose namespace went before it was connected is refused, and nothing of it is left',
  async (t) => {
    const one = topology.node(1)
    seedPod(one, 'ghost')
    const before = running.get(one)?.agent.status().endpoints
    const { code, output } = await cni(one, 'ADD', 'ghost')
    t.is(code, 1)
    t.regex(String(output.msg), /there is no namespace at/)
    t.is(running.get(one)?.agent.status().endpoints, before)
    t.deepEqual(
      readdirSync(join(one.pinDir, 'links')).filter((name) => name.startsWith('endpoint-ghost')),
      [],
    )
    t.is((await cni(one, 'DEL', 'ghost')).code, 0)
  },
)

test.serial(
  'L10: the runtime is told of a network when there is one, and of none by an agent that cannot make it',
  async (t) => {
    const one = topology.node(1)
    const runDir = join(topology.dir, 'run-none')
    const agent = createAgent({
      nodeName: 'node-1',
      client,
      uplink: 'eth7',
      cgroup: one.cgroup,
      pinDir: one.pinDir,
      serviceCidrs,
      runDir,
      namespace: one.namespace,
    })
    await t.throwsAsync(agent.run(new AbortController().signal), { message: /eth7: this node has no such device/ })
    t.false(existsSync(join(runDir, 'cni/conf')))
    t.true(existsSync(join(runDirOf(one), 'cni/conf/10-weft.conflist')))
  },
)

test.serial('M18: the agent counts what it forwards and drops', async (t) => {
  const registry = running.get(topology.node(1))?.agent.registry
  const text = (await registry?.metrics()) ?? ''
  t.regex(text, /cilium_forward_count_total\{direction="EGRESS"\} \d+/)
  t.regex(text, /cilium_drop_count_total\{direction="EGRESS",reason="Multicast or link-local destination"\} \d+/)
  t.regex(text, /cilium_endpoint 1/)
})

test.serial('the runtime finds the plug-in and its configuration', (t) => {
  const dir = join(runDirOf(topology.node(1)), 'cni')
  t.deepEqual(readdirSync(join(dir, 'bin')).toSorted(), ['loopback', 'weft-cni'])
  t.true(existsSync(join(dir, 'conf/10-weft.conflist')))
})

test('called as loopback the plug-in brings lo up', async (t) => {
  addSandbox('lo')
  const { code } = await new Promise<{ code: number }>((done) => {
    const env = { CNI_COMMAND: 'ADD', CNI_NETNS: join(namespaceDir, topology.name('lo')) }
    const child = execFile(join(runDirOf(topology.node(1)), 'cni/bin/loopback'), { env }, (error) =>
      done({ code: (error?.code as number | undefined) ?? 0 }),
    )
    child.stdin?.end('{"cniVersion":"0.3.1","name":"lo","type":"loopback"}')
  })
  t.is(code, 0)
  using namespace = Namespace.open(topology.name('lo'))
  using socket = namespace.listen('127.0.0.1', 4000)
  t.true(socket.number > 0)
  await using _ = await serve({ namespace: topology.name('lo') }, '127.0.0.1', 4001)
  t.true((await load({ namespace: topology.name('lo') }, 'rr', '127.0.0.1', 4001)) > 0)
})

const refusal = (attempt: Promise<unknown>): Promise<string> =>
  attempt.then(
    () => '',
    (error: Error) => error.message,
  )
