import type { Command } from 'commander'
import type { AgentFlags } from './agent/flags.ts'
import { collect } from './flags.ts'

export function addAgent(program: Command): void {
  program
    .command('agent')
    .description('one node: kubelet and network')
    .option('--part <part>', 'all; kubelet or network where the other is another program’s', 'all')
    .option('--cluster <name>', 'the cluster', 'weft')
    .requiredOption('--node <name>', 'name of this node')
    .requiredOption('--server <url>', 'the API server')
    .option(
      '--bootstrap-kubeconfig <file>',
      'with which this node asks for its certificate; --part network uses its pod’s service account',
    )
    .option('--data-dir <dir>', 'survives a reboot: volumes, logs, certificates')
    .requiredOption('--run-dir <dir>', 'sockets')
    .option('--cri-socket <path>', 'the container runtime', '/run/containerd/containerd.sock')
    .option('--cgroup <path>', 'below every hierarchy; pods go to PATH/pods', 'weft')
    .option('--cgroup-root <dir>', 'where the node’s hierarchies are mounted', '/sys/fs/cgroup')
    .option('--bpffs <dir>', 'where programs and maps are pinned', '/sys/fs/bpf')
    .option('--cni-bin-dir <dir>', 'where the runtime looks for plug-ins (cni/bin below --run-dir)')
    .option('--cni-conf-dir <dir>', 'where it looks for their configuration (cni/conf below --run-dir)')
    .option('--cache-dir <dir>', 'compiled programs', '/var/cache/weft/bpf')
    .option(
      '--metrics-port <port>',
      '/metrics and /healthz of --part network; the kubelet serves them otherwise',
      '9962',
    )
    .option('--device <name>', 'the device to the other nodes', 'eth0')
    .option('--node-ip <address>', 'this node, the main address first; may be repeated', collect, [])
    .option('--cluster-cidr <cidr>', 'network of the pods, one of each family', collect, [])
    .option('--service-cidr <cidr>', 'network of the Services, one of each family', collect, [])
    .option('--tunnel <mode>', 'how packets get to other nodes: native (by their routes), vxlan', 'native')
    .option('--xdp <mode>', 'Services from outside in the device’s driver: off, native, generic', 'off')
    .option(
      '--cable <mode>',
      'where --device is one end of a veth pair, to other nodes’ pods: straight to its other end, or by its queue, where tcpdump sees them: straight, queue',
      'straight',
    )
    .option('--masquerade-exclude-cidr <cidr>', 'outside, but pods keep their addresses; may be repeated', collect, [])
    .option('--external-ip-cidr <cidr>', 'external IPs that pods too may use; may be repeated', collect, [])
    .option('--resolver <address>', 'asked for names that are not of the cluster; may be repeated', collect, [])
    .option(
      '--resolv-conf <file>',
      "the node's own; its resolvers are asked where --resolver names none; '' for none",
      '/etc/resolv.conf',
    )
    .option('--golden-signals <mode>', 'requests of Gateways by route, backend, status and time: on, off', 'on')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(async (flags: AgentFlags) => {
      const { runAgent } = await import('./agent/run.ts')
      await runAgent(flags)
    })
}
