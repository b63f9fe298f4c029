import type { Command } from 'commander'
import type { AgentFlags } from './agent/flags.ts'
import { collect } from './flags.ts'

export function addAgent(program: Command): void {
  program
    .command('agent')
    .description('one node: kubelet and network')
    .option('--cluster <name>', 'the cluster', 'weft')
    .requiredOption('--node <name>', 'name of this node')
    .requiredOption('--server <url>', 'the API server')
    .requiredOption('--bootstrap-kubeconfig <file>', 'with which this node asks for its certificate')
    .requiredOption('--data-dir <dir>', 'survives a reboot: volumes, logs, certificates')
    .requiredOption('--run-dir <dir>', 'sockets')
    .option('--cri-socket <path>', 'the container runtime', '/run/containerd/containerd.sock')
    .option('--cgroup <path>', 'below every hierarchy; pods go to PATH/pods', 'weft')
    .option('--bpffs <dir>', 'where programs and maps are pinned', '/sys/fs/bpf')
    .option('--device <name>', 'the device to the other nodes', 'eth0')
    .option('--node-ip <address>', 'this node, the main address first; may be repeated', collect, [])
    .option('--cluster-cidr <cidr>', 'network of the pods, one of each family', collect, [])
    .option('--service-cidr <cidr>', 'network of the Services, one of each family', collect, [])
    .option('--resolver <address>', 'asked for names that are not of the cluster; may be repeated', collect, [])
    .option(
      '--resolv-conf <file>',
      "the node's own; its resolvers are asked where --resolver names none; '' for none",
      '/etc/resolv.conf',
    )
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(async (flags: AgentFlags) => {
      const { runAgent } = await import('./agent/run.ts')
      await runAgent(flags)
    })
}
