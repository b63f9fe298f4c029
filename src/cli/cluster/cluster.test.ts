import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test from 'ava'
import type { Feature } from '#kernel/features.ts'
import { listenOnLoopback } from './apply.ts'
import { agentSpec, serverSpec } from './commands.ts'
import { addressOf, layoutCluster } from './layout.ts'
import { lockCluster } from './lock.ts'
import { connectedMarker, logFile, pidFile, processNames } from './observe.ts'
import { type Action, type Observed, planUp } from './plan.ts'
import { type MachineFacts, portTaken, programs, readMachine, requireMachine } from './prerequisites.ts'
import { findProcess, logTail, searchPath } from './processes.ts'

const feature = (name: string, available: boolean, required = true, reason = 'EINVAL'): Feature => ({
  name,
  since: name === 'btf' ? '5.4' : '6.6',
  required,
  cost: 'nothing works',
  available,
  reason: available ? '' : reason,
})

const good: MachineFacts = {
  root: true,
  programs: new Set(Object.keys(programs)),
  features: [feature('btf', true), feature('tcx', true), feature('netkit', false, false)],
  mounts: 'cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n',
  hostsFile: true,
  disk: { path: '/var/lib', freeBytes: 20e9 },
}
const without = (...names: string[]): ReadonlySet<string> =>
  new Set(Object.keys(programs).filter((name) => !names.includes(name)))

test('a machine that has everything is taken, whatever optional ability its kernel lacks', (t) => {
  t.notThrows(() => requireMachine(good))
})

const bad: readonly (readonly [what: string, facts: Partial<MachineFacts>, says: string])[] = [
  [
    'no root',
    { root: false, features: [] },
    'weft up makes network namespaces, mounts and BPF programs: run it as root (sudo npx weft up)',
  ],
  [
    'no containerd',
    { programs: without('containerd', 'ctr') },
    'missing on this machine: containerd, ctr. Run npm start once, or apt-get install --no-install-recommends containerd',
  ],
  [
    'no runc, no clang, no nsenter',
    { programs: without('runc', 'clang', 'nsenter') },
    'missing on this machine: runc, clang, nsenter. Run npm start once, or apt-get install --no-install-recommends runc clang util-linux',
  ],
  [
    'a kernel without BTF',
    { features: [feature('btf', false, true, 'ENOENT'), feature('tcx', true)] },
    'this kernel lacks btf (ENOENT; Linux 5.4 has it): use Linux 6.8 or later with BPF and BTF',
  ],
  [
    'an old kernel',
    { features: [feature('btf', true), feature('tcx', false)] },
    'this kernel lacks tcx (EINVAL; Linux 6.6 has it): use Linux 6.8 or later with BPF and BTF',
  ],
  [
    'root without its rights, as in a container',
    { features: [feature('btf', true), feature('tcx', false, true, 'EPERM')] },
    'this kernel lacks tcx (EPERM; Linux 6.6 has it): use Linux 6.8 or later with BPF and BTF, and run as root',
  ],
  [
    'no cgroup2',
    { mounts: 'cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n' },
    'Cannot find cgroup2 in /proc/self/mounts: mount it at /sys/fs/cgroup/unified',
  ],
  [
    'no /etc/hosts',
    { hostsFile: false },
    "there is no /etc/hosts, and containerd makes no sandbox without: echo '127.0.0.1 localhost' > /etc/hosts",
  ],
  [
    'a full disk',
    { disk: { path: '/var/lib', freeBytes: 12_345_678 } },
    '/var/lib has 12 MB free, Weft needs 536 MB: free some first',
  ],
]
for (const [what, facts, says] of bad)
  test(`bad machine: ${what}: one line that says what to do`, (t) => {
    const error = t.throws(() => requireMachine({ ...good, ...facts }))
    t.is(error?.message, says)
    t.false(says.includes('\n'))
  })

test('the first thing that is missing is named, in the order in which it can be mended', (t) => {
  const nothing: MachineFacts = {
    root: false,
    programs: new Set(),
    features: [],
    mounts: '',
    hostsFile: false,
    disk: { path: '/', freeBytes: 0 },
  }
  t.throws(() => requireMachine(nothing), { message: /run it as root/ })
  t.throws(() => requireMachine({ ...nothing, root: true }), { message: /missing on this machine/ })
  t.throws(() => requireMachine({ ...nothing, root: true, programs: good.programs }), { message: /cgroup2/ })
})

test('the facts of this machine are read where the state will lie, though nothing is there yet', (t) => {
  const facts = readMachine('/proc/sys/there/is/no/such/directory')
  t.is(facts.disk.path, '/proc/sys')
  t.is(facts.root, process.getuid?.() === 0)
  t.true(facts.mounts.includes('proc'))
  t.true(facts.programs.has('make'), 'npm run check built native/ with it')
})

test('programs are looked for in the sbin directories too, in the order of PATH first', (t) => {
  t.is(searchPath('/opt/bin:/usr/bin'), '/opt/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/bin')
  t.is(searchPath(''), '/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin')
})

test('a port that was asked for and is taken is an error; the usual one gives way to a free one', async (t) => {
  const taken = createServer()
  const port = await new Promise<number>((resolve) => {
    taken.listen(0, '127.0.0.1', () => resolve((taken.address() as { port: number }).port))
  })
  try {
    await t.throwsAsync(listenOnLoopback(port, 6443), { message: portTaken(port) })
    t.regex(portTaken(port), /^127\.0\.0\.1:\d+ is taken by another program: choose one with --api-port, or [^\n]*$/)
    const other = await listenOnLoopback(undefined, port)
    t.not((other.address() as { port: number }).port, port)
    await new Promise((resolve) => other.close(resolve))
  } finally {
    await new Promise((resolve) => taken.close(resolve))
  }
})

test('the layout is a function of name and size', (t) => {
  const layout = layoutCluster('demo', 2)
  t.is(layout.stateDir, '/var/lib/weft/demo')
  t.is(layout.runDir, '/run/weft/demo')
  t.is(layout.server.adminKubeconfig, '/var/lib/weft/demo/server/admin.kubeconfig')
  t.is(layout.fabric.netns, 'weft-demo-fabric')
  t.deepEqual(layout.nodes[1], {
    name: 'node-2',
    index: 2,
    netns: 'weft-demo-node-2',
    device: 'eth0',
    port: 'port2',
    addresses: ['172.30.0.12/24', 'fd00:172:30::12/64'],
    gateways: ['172.30.0.1', 'fd00:172:30::1'],
    dataDir: '/var/lib/weft/demo/node-2',
    runDir: '/run/weft/demo/node-2',
    cgroup: 'weft/demo/node-2',
    bpffs: '/run/weft/demo/node-2/bpf',
    cniSocket: '/run/weft/demo/node-2/cni.sock',
    criSocket: '/run/weft/demo/node-2/containerd.sock',
  })
  const one = (of: (node: (typeof layout.nodes)[number]) => string) =>
    new Set(layoutCluster('c', 64).nodes.map(of)).size
  t.is(
    one((n) => n.addresses.join()),
    64,
  )
  t.is(
    one((n) => n.netns),
    64,
  )
  t.is(addressOf('fd00:172:30::1/64'), 'fd00:172:30::1')
})

test('a name or size that cannot be is refused with what can', (t) => {
  for (const name of ['', 'Demo', '-a', 'a-', 'a/b', '..', 'a b', 'twenty-one-characters'])
    t.throws(() => layoutCluster(name, 1), { instanceOf: RangeError, message: /^--name .*: use at most 20 of/ }, name)
  for (const count of [0, -1, 1.5, 65, Number.NaN])
    t.throws(() => layoutCluster('a', count), { message: /^--nodes .*: use a whole number from 1 to 64$/ })
  t.is(layoutCluster('twenty-characters-ok', 64).nodes.length, 64)
})

test('the paths of a Unix socket stay within the 107 bytes that the kernel takes', (t) => {
  const last = layoutCluster('twenty-characters-ok', 64).nodes.at(-1)
  for (const socket of [last?.cniSocket, last?.criSocket, `${last?.criSocket}.ttrpc`])
    t.true(Buffer.byteLength(socket ?? '') <= 107, socket)
})

const layout = layoutCluster('weft', 2)
const nothing: Observed = {
  namespaces: new Set(),
  connected: new Set(),
  mounts: new Set(),
  imported: new Set(),
  running: new Set(),
  surplusNodes: [],
}
const everything: Observed = {
  namespaces: new Set(['weft-weft-fabric', 'weft-weft-node-1', 'weft-weft-node-2']),
  connected: new Set(['weft-weft-fabric', 'weft-weft-node-1', 'weft-weft-node-2']),
  mounts: new Set(['/run/weft/weft/node-1/bpf', '/run/weft/weft/node-2/bpf']),
  imported: new Set(['node-1', 'node-2']),
  running: new Set(processNames(layout)),
  surplusNodes: [],
}
/** One word an action, with its node where it has one. */
const words = (actions: readonly Action[]): string[] =>
  actions.map((a) => ('node' in a ? `${a.do} ${a.node.name}` : a.do === 'mount-bpffs' ? `${a.do} ${a.path}` : a.do))
const always = ['create-directories', 'create-cgroups']

test('plan: on an empty machine everything, namespaces before their processes, agents after the server', (t) => {
  t.deepEqual(words(planUp({ layout }, nothing)), [
    ...always,
    'create-fabric',
    'start-server',
    'create-node-namespace node-1',
    'mount-bpffs /run/weft/weft/node-1/bpf',
    'start-containerd node-1',
    'import-images node-1',
    'create-node-namespace node-2',
    'mount-bpffs /run/weft/weft/node-2/bpf',
    'start-containerd node-2',
    'import-images node-2',
    'wait-server',
    'start-agent node-1',
    'start-agent node-2',
    'wait-nodes',
  ])
})

test('plan: where everything runs, only what is idempotent and the waits', (t) => {
  t.deepEqual(words(planUp({ layout }, everything)), [...always, 'wait-server', 'wait-nodes'])
})

test('plan: a namespace that a crash left half-made is made anew; what is whole is left alone', (t) => {
  const halfway: Observed = {
    ...nothing,
    namespaces: new Set(['weft-weft-fabric', 'weft-weft-node-1']),
    connected: new Set(['weft-weft-fabric']),
    running: new Set(['server']),
  }
  t.deepEqual(words(planUp({ layout }, halfway)).slice(0, 6), [
    ...always,
    'create-node-namespace node-1',
    'mount-bpffs /run/weft/weft/node-1/bpf',
    'start-containerd node-1',
    'import-images node-1',
  ])
})

test('plan: images whose import was cut off are imported, though containerd runs', (t) => {
  t.deepEqual(words(planUp({ layout }, { ...everything, imported: new Set(['node-1']) })), [
    ...always,
    'import-images node-2',
    'wait-server',
    'wait-nodes',
  ])
})

test('plan: processes that died are started, nothing else is touched', (t) => {
  const running = new Set([...everything.running].filter((name) => name !== 'node-2/agent' && name !== 'server'))
  t.deepEqual(words(planUp({ layout }, { ...everything, running })), [
    ...always,
    'start-server',
    'wait-server',
    'start-agent node-2',
    'wait-nodes',
  ])
})

test('plan: a larger cluster is what is missing of it; a smaller one is refused, not cut down', (t) => {
  const three = words(planUp({ layout: layoutCluster('weft', 3) }, everything))
  t.deepEqual(
    three.filter((word) => word.includes('node-')),
    [
      'create-node-namespace node-3',
      'mount-bpffs /run/weft/weft/node-3/bpf',
      'start-containerd node-3',
      'import-images node-3',
      'start-agent node-3',
    ],
  )
  t.throws(() => planUp({ layout }, { ...everything, surplusNodes: ['weft-weft-node-3'] }), {
    instanceOf: RangeError,
    message: /runs with more nodes \(weft-weft-node-3\): run weft down --name weft first/,
  })
})

test('files of a process are named after it, one directory deep', (t) => {
  t.is(pidFile(layout, 'node-1/agent'), '/run/weft/weft/pids/node-1.agent')
  t.is(logFile(layout, 'server'), '/run/weft/weft/logs/server.log')
  t.is(connectedMarker(layout, 'weft-weft-node-1'), '/run/weft/weft/connected/weft-weft-node-1')
  t.deepEqual(processNames(layout), [
    'server',
    'node-1/containerd',
    'node-1/agent',
    'node-2/containerd',
    'node-2/agent',
  ])
})

test('command lines: the server listens on its descriptor, an agent knows its server by address', (t) => {
  const server = serverSpec(layout, 17, 7443)
  t.is(server.netns, 'weft-weft-fabric')
  t.is(server.listenFd, 17)
  for (const flag of ['--listen-fd=3', '--external-url=https://127.0.0.1:7443', '--bind-address=fd00:172:30::1'])
    t.true(server.command.includes(flag), flag)
  const [node] = layout.nodes
  if (node === undefined) return t.fail()
  const agent = agentSpec(layout, node)
  t.true(agent.cgroupDir.endsWith('/weft/weft/node-1/system'))
  for (const flag of ['--server=https://172.30.0.1:6443', '--node-ip=172.30.0.11', '--bpffs=/run/weft/weft/node-1/bpf'])
    t.true(agent.command.includes(flag), flag)
})

test('a pid is ours only with the start time that was written beside it', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-cluster-'))
  try {
    const file = join(dir, 'pid')
    t.is(findProcess('x', file), undefined, 'no file')
    const stat = readFileSync('/proc/self/stat', 'utf8')
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    writeFileSync(file, `${process.pid} ${started}\n`)
    t.deepEqual(findProcess('x', file), { name: 'x', pid: process.pid })
    writeFileSync(file, `${process.pid} 1\n`)
    t.is(findProcess('x', file), undefined, 'the pid is somebody else’s by now')
    writeFileSync(file, '')
    t.is(findProcess('x', file), undefined, 'an empty file names nobody')
    writeFileSync(file, '4194305 \n')
    t.is(findProcess('x', file), undefined, 'ended before its start time could be written')
    writeFileSync(join(dir, 'log'), 'a\nb\nc\n')
    t.is(logTail(join(dir, 'log'), 2), 'b\nc')
    t.is(logTail(join(dir, 'none')), '(no log)')
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('one command at a time changes a cluster; another is told which, and a killed one holds nobody up', async (t) => {
  const name = `lock-${process.pid}`
  const lock = pathToFileURL(join(import.meta.dirname, 'lock.ts')).href
  const script = `const { lockCluster } = await import('${lock}')
    await lockCluster('${name}', 'up'); console.log('held'); setInterval(() => {}, 1e6)`
  const other = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(other.stdout, 'data')
  await t.throwsAsync(lockCluster(name, 'down'), {
    message: `weft up (pid ${other.pid}) is at work on cluster "${name}": run weft down again when it has ended`,
  })
  other.kill('SIGKILL')
  await once(other, 'exit')
  for (const command of ['up', 'down']) {
    using _lock = await lockCluster(name, command)
    await t.throwsAsync(lockCluster(name, 'up'), { message: new RegExp(`weft ${command} \\(pid ${process.pid}\\)`) })
  }
})
