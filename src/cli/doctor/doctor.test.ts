import test from 'ava'
import type { AgentStatus } from '#agent/status.ts'
import { programs } from '#datapath/object.ts'
import { faultsOf } from '../status/faults.ts'
import { formatStatus } from '../status/format.ts'
import type { ClusterStatus } from '../status/read.ts'
import { type Check, formatChecks } from './check.ts'
import { checkMachine, type DoctorFacts } from './machine.ts'
import { checkNode, type NodeFacts } from './node.ts'

const feature = (name: string, available: boolean, required = false) => ({
  name,
  since: '6.6',
  required,
  cost: `no ${name}`,
  available,
  reason: available ? '' : 'ENOTSUP',
})

const goodMachine: DoctorFacts = {
  root: true,
  programs: new Set(['containerd', 'ctr', 'runc', 'clang', 'nsenter', 'gcc', 'make', 'busybox']),
  features: [feature('tcx', true, true), feature('netkit', true)],
  mounts: 'cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n',
  hostsFile: true,
  disk: { path: '/var/lib', freeBytes: 1e12 },
  release: '6.8.0-1',
  sysctls: new Map([
    ['fs/inotify/max_user_instances', '128'],
    ['net/core/bpf_jit_enable', '1'],
    ['net/ipv6/conf/all/disable_ipv6', '0'],
  ]),
  filesystems: new Set(['overlay']),
  memoryFreeBytes: 1e12,
  portsTaken: [],
  clusterRuns: false,
}
const bad = (checks: readonly Check[]): string[] =>
  checks.filter((c) => c.outcome !== 'ok').map((c) => `${c.outcome} ${c.name}: ${c.detail} -> ${c.remedy}`)

test('a machine that has everything has no fault, and each thing that it lacks is one with a remedy', (t) => {
  t.deepEqual(bad(checkMachine(goodMachine)), [])
  const cases: readonly (readonly [Partial<DoctorFacts>, RegExp])[] = [
    [{ root: false }, /^fault root: .*need root -> run this as root/],
    [{ release: '6.6.30' }, /^fault kernel: Linux 6\.6\.30 -> use Linux 6\.8 or later/],
    [{ release: '5.15.0' }, /^fault kernel/],
    [{ features: [feature('tcx', false, true)] }, /^fault BPF: lacks tcx \(ENOTSUP\): no tcx -> it is in Linux 6\.6/],
    [{ features: [feature('netkit', false)] }, /^warning BPF: lacks netkit/],
    [{ mounts: 'tmpfs / tmpfs rw 0 0\n' }, /^fault cgroups: /],
    [
      { programs: new Set(['ctr', 'containerd', 'runc', 'nsenter', 'gcc', 'make', 'busybox']) },
      /missing: clang -> apt-get install .* clang$/,
    ],
    [
      {
        sysctls: new Map([
          ['fs/inotify/max_user_instances', '16'],
          ['net/ipv6/conf/all/disable_ipv6', '0'],
        ]),
      },
      /^warning sysctl: fs\.inotify\.max_user_instances is 16: .* -> sysctl -w fs\.inotify\.max_user_instances=128/,
    ],
    [{ sysctls: new Map() }, /^warning sysctl: this kernel has no IPv6/],
    [{ filesystems: new Set(['ext4']) }, /^fault overlayfs: .* -> modprobe overlay/],
    [{ hostsFile: false }, /^fault \/etc\/hosts: /],
    [{ disk: { path: '/var', freeBytes: 1e6 } }, /^fault disk: 1 MB free below \/var, 536 are needed/],
    [{ memoryFreeBytes: 1e6 }, /^fault memory: /],
    [{ portsTaken: [6443] }, /^warning port: 127\.0\.0\.1:6443 is taken/],
  ]
  for (const [change, expected] of cases) {
    const found = bad(checkMachine({ ...goodMachine, ...change }))
    t.true(
      found.some((line) => expected.test(line)),
      `${expected} in ${found.join(' | ')}`,
    )
  }
})

const loops = { trouble: '' }
const agent = {
  state: 'ready',
  endpoints: 1,
  services: { ...loops, services: 3, frontends: 4, backends: 5 },
  nodes: { ...loops, nodes: 2 },
  names: { ...loops, listening: ['169.254.20.10'], names: 9, upstreams: [], queries: undefined, forward: {} },
  policies: { ...loops, policies: 1, identities: 4 },
  gateways: undefined,
  features: [],
} as unknown as AgentStatus

const goodNode: NodeFacts = {
  name: 'node-1',
  processes: [{ name: 'node-1/agent', pid: 7, log: '/log' }],
  agent,
  agentError: '',
  links: programs.map(({ place, name }) => ({
    name: `${place}-${place === 'endpoint' ? 'abc' : 'node'}-${name}`,
    attached: true,
  })),
  maps: [{ name: 'flows_v1', entries: 50, entriesMax: 100 }],
  tried: [
    {
      try: { what: 'name', server: '169.254.20.10', name: 'kubernetes.default.svc.cluster.local', transport: 'udp' },
      result: { ms: 1, error: '', answers: ['10.96.0.1'] },
    },
    { try: { what: 'connect', address: '172.30.0.12', port: 10250 }, result: { ms: 1, error: '', answers: [] } },
  ],
  apiAddress: '10.96.0.1',
}

test('a node that works has no fault, and each part that does not is one with a remedy', (t) => {
  t.deepEqual(bad(checkNode(goodNode)), [])
  const failed = (i: number, result: object): Partial<NodeFacts> => ({
    tried: goodNode.tried.map((one, k) => (k === i ? { ...one, result: { ...one.result, ...result } } : one)),
  })
  const cases: readonly (readonly [Partial<NodeFacts>, RegExp])[] = [
    [
      { processes: [{ name: 'node-1/agent', pid: undefined, log: '/log' }] },
      /^fault agent: does not run -> tail \/log/,
    ],
    [{ agent: null, agentError: 'gone' }, /^fault network: gone/],
    [{ agent: { ...agent, state: 'starting' } as AgentStatus }, /^fault network: is starting/],
    [
      { agent: { ...agent, services: { ...loops, trouble: 'E2BIG' } } as unknown as AgentStatus },
      /^fault services: E2BIG -> Services stay/,
    ],
    [
      { links: goodNode.links.filter((l) => !l.name.endsWith('from_netdev')) },
      /^fault programs: not attached: from_netdev \(uplink\)/,
    ],
    [
      { links: goodNode.links.map((l) => (l.name.endsWith('from_container') ? { ...l, attached: false } : l)) },
      /from_container \(endpoint\)/,
    ],
    [
      { maps: [{ name: 'flows_v1', entries: 95, entriesMax: 100 }] },
      /^warning maps: flows_v1 is 95 % full \(95 of 100\)/,
    ],
    [{ maps: [] }, /^fault maps: none is pinned/],
    [failed(0, { error: 'no answer within 2000 ms' }), /^fault names: 169\.254\.20\.10 by udp: no answer/],
    [failed(0, { answers: ['1.2.3.4'] }), /^fault names: .*1\.2\.3\.4 for kubernetes\.default.* -> another resolver/],
    [failed(1, { error: 'connect ECONNREFUSED' }), /^fault reaches: 172\.30\.0\.12:10250: connect ECONNREFUSED/],
  ]
  for (const [change, expected] of cases) {
    const found = bad(checkNode({ ...goodNode, ...change }))
    t.true(
      found.some((line) => expected.test(line)),
      `${expected} in ${found.join(' | ')}`,
    )
  }
})

test('formatChecks() has each place once, what to do below what is wrong, and the sum', (t) => {
  const text = formatChecks([
    { where: 'machine', name: 'root', outcome: 'ok', detail: 'yes', remedy: '' },
    { where: 'node-1', name: 'names', outcome: 'fault', detail: 'no answer', remedy: 'see the log' },
  ])
  t.is(
    text,
    [
      'machine',
      '  ok       root               yes',
      '',
      'node-1',
      '  FAULT    names              no answer',
      '                              -> see the log',
      '',
      '2 checks, 1 fault, 0 warnings',
      '',
    ].join('\n'),
  )
})

const status: ClusterStatus = {
  name: 'c',
  server: 'https://127.0.0.1:6443',
  processes: [
    { name: 'server', pid: 1, log: '/s.log' },
    { name: 'node-1/agent', pid: 2, log: '/a.log' },
  ],
  nodes: [{ name: 'node-1', ready: true, addresses: ['172.30.0.11'], podCidrs: ['10.244.1.0/24'], message: '' }],
  error: null,
  agents: [{ node: 'node-1', agent, error: '' }],
  gateways: [
    { gateway: 'shop/edge', listeners: ['http'], protocol: 'HTTP', address: '172.30.0.200', port: 80, loopback: 20001 },
  ],
  kernel: { release: '6.8.1-x', features: [feature('tcx', true), feature('netkit', false)] },
}

test('weft status says in one screen what works, what is wrong with what to do, and what the kernel lacks', (t) => {
  const good = formatStatus(status)
  t.deepEqual(faultsOf(status), [])
  t.true(good.startsWith('cluster c, API server at https://127.0.0.1:6443: everything works\n'))
  t.regex(
    good,
    /node-1 +Ready +172\.30\.0\.11 +pods 10\.244\.1\.0\/24\n +1 pod, 3 Services \(5 backends\), routes to 2 nodes\n/,
  )
  t.regex(good, /shop\/edge +http:\/\/127\.0\.0\.1:20001 +to 172\.30\.0\.200 port 80, http\n/)
  t.regex(good, /9 names at 169\.254\.20\.10/)
  t.regex(good, /kernel 6\.8\.1 +has tcx\n +lacks netkit \(Linux 6\.6\): no netkit\n$/)
  t.true(good.split('\n').length < 40)

  const wrong: ClusterStatus = {
    ...status,
    processes: [
      status.processes[0] ?? { name: '', pid: 0, log: '' },
      { name: 'node-1/agent', pid: null, log: '/a.log' },
    ],
    nodes: status.nodes.map((n) => ({ ...n, ready: false, message: 'no network' })),
    agents: [{ node: 'node-1', agent: null, error: 'ECONNREFUSED' }],
  }
  t.deepEqual(
    faultsOf(wrong).map((f) => f.where),
    ['node-1/agent', 'node-1'],
    'that it does not run is said once',
  )
  t.regex(formatStatus(wrong), /: 2 faults\n/)
  t.regex(
    formatStatus(wrong),
    /node-1\/agent +FAULT does not run\n +-> +tail \/a\.log says why; weft up --name c starts it again\n/,
  )
  const troubled = { ...agent, names: { ...agent.names, trouble: 'EADDRINUSE' } } as AgentStatus
  t.like(faultsOf({ ...status, agents: [{ node: 'node-1', agent: troubled, error: '' }] }), [
    { where: 'node-1/names', what: 'EADDRINUSE' },
  ])
})
