import { join, resolve } from 'node:path'
import { findCgroups } from '#kernel/cgroup.ts'
import { addressOf, type ClusterLayout, type NodeLayout } from './layout.ts'
import { logFile, pidFile } from './observe.ts'
import { agentProcess, containerdProcess, serverProcess } from './plan.ts'
import type { ProcessSpec } from './processes.ts'

/** The checkout (or package) that this program runs from. */
export const installDir = resolve(import.meta.dirname, '../../..')
const main = join(installDir, 'src/cli/main.ts')
/** Compiled code is kept between starts: half of a start is parsing otherwise. */
const nodeEnv = { NODE_COMPILE_CACHE: '/var/cache/weft/node', NODE_OPTIONS: '--disable-warning=ExperimentalWarning' }

function processSpec(
  layout: ClusterLayout,
  name: string,
  netns: string,
  cgroup: string,
  command: readonly string[],
): ProcessSpec {
  return {
    name,
    command,
    env: nodeEnv,
    netns,
    cgroupDir: join(findCgroups().unified, cgroup),
    pidFile: pidFile(layout, name),
    logFile: logFile(layout, name),
  }
}

/** Which ports of 127.0.0.1 lead to Gateways: written by the server, read by `weft status`. */
export const loopbackPortsFile = ({ server }: ClusterLayout): string => join(server.runDir, 'gateway-ports.json')

/** `weft server` in the fabric's namespace; descriptor 3 is its socket on the machine's loopback, 4 the machine's namespace. */
export function serverSpec(layout: ClusterLayout, listenFd: number, apiPort: number): ProcessSpec {
  const { server, fabric } = layout
  const [v4] = fabric.addresses
  const command = [
    process.execPath,
    // Room for the garbage of one burst of requests, and small steps for what survives it: two thirds of the memory
    // after a storm, at the same speed.
    '--max-semi-space-size=16',
    '--heap-growing-percent=20',
    main,
    'server',
    `--cluster=${layout.name}`,
    `--data-dir=${server.dataDir}`,
    `--advertise-address=${addressOf(v4 ?? '')}`,
    ...fabric.addresses.map((a) => `--bind-address=${addressOf(a)}`),
    `--port=${server.port}`,
    '--listen-fd=3',
    `--external-url=https://127.0.0.1:${apiPort}`,
    ...layout.podCidrs.map((c) => `--cluster-cidr=${c}`),
    ...layout.serviceCidrs.map((c) => `--service-cidr=${c}`),
    ...layout.loadBalancerPools.map((range) => `--load-balancer-pool=${range}`),
    ...(layout.gatewayCrds ? [] : ['--gateway-crds=none']),
    // The network's own come with the network.
    ...(layout.agent === 'none' ? ['--controllers=*,-gateway-controller,-service-controller'] : []),
    '--machine-namespace=/proc/self/fd/4',
    `--loopback-ports=${loopbackPortsFile(layout)}`,
  ]
  const spec = processSpec(layout, serverProcess, fabric.netns, server.cgroup, command)
  return { ...spec, listenFd, keepsNamespace: true }
}

export function containerdSpec(layout: ClusterLayout, node: NodeLayout): ProcessSpec {
  return processSpec(layout, containerdProcess(node), node.netns, `${node.cgroup}/system`, [
    'containerd',
    '--config',
    containerdConfigPath(node),
  ])
}

export const containerdConfigPath = (node: NodeLayout): string => join(node.runDir, 'containerd.toml')
export const containerdStateDir = (node: NodeLayout): string => join(node.runDir, 'containerd')
export const cniBinDir = (node: NodeLayout): string => join(node.runDir, 'cni/bin')
export const cniConfDir = (node: NodeLayout): string => join(node.runDir, 'cni/conf')

/** `weft agent` in its node's namespace. */
export function agentSpec(layout: ClusterLayout, node: NodeLayout): ProcessSpec {
  const command = [
    process.execPath,
    '--max-semi-space-size=2',
    main,
    'agent',
    `--cluster=${layout.name}`,
    ...(layout.agent === 'none' ? ['--part=kubelet'] : []),
    `--node=${node.name}`,
    `--server=https://${addressOf(layout.fabric.addresses[0] ?? '')}:${layout.server.port}`,
    `--bootstrap-kubeconfig=${join(layout.server.dataDir, 'bootstrap.kubeconfig')}`,
    `--data-dir=${node.dataDir}`,
    `--run-dir=${node.runDir}`,
    `--cri-socket=${node.criSocket}`,
    `--cgroup=${node.cgroup}`,
    `--bpffs=${node.bpffs}`,
    `--device=${node.device}`,
    ...node.addresses.map((a) => `--node-ip=${addressOf(a)}`),
    ...layout.podCidrs.map((c) => `--cluster-cidr=${c}`),
    ...layout.serviceCidrs.map((c) => `--service-cidr=${c}`),
    ...(layout.tunnel === 'native' ? [] : [`--tunnel=${layout.tunnel}`]),
    // The machine's resolvers cannot be reached from here.
    '--resolv-conf=',
    ...layout.resolvers.map((r) => `--resolver=${r}`),
  ]
  return processSpec(layout, agentProcess(node), node.netns, `${node.cgroup}/system`, command)
}
