import type { Command } from 'commander'
import { collect } from './flags.ts'
import type { ServerFlags } from './server/flags.ts'

export function addServer(program: Command): void {
  program
    .command('server')
    .description('the control plane of one cluster: API server, controllers, scheduler')
    .option('--cluster <name>', 'name in kubeconfigs', 'weft')
    .requiredOption('--data-dir <dir>', 'store, keys and certificates')
    .requiredOption('--advertise-address <address>', 'where nodes and pods reach this server')
    .option('--bind-address <address>', 'address to listen on; may be repeated', collect, [])
    .option('--port <port>', 'port to listen on', '6443')
    .option('--listen-fd <number>', 'a listening socket that was inherited')
    .option('--external-url <url>', 'where the administrator reaches it (https://ADVERTISED:PORT)')
    .option('--cluster-cidr <cidr>', 'network of the pods, one of each family', collect, [])
    .option('--service-cidr <cidr>', 'network of the Services, one of each family', collect, [])
    .option(
      '--load-balancer-pool <range>',
      'addresses of LoadBalancer Services: FIRST-LAST or a network; may be repeated',
      collect,
      [],
    )
    .option('--gateway-crds <whose>', "ours: the Gateway API's definitions are put in; none: you bring them", 'ours')
    .option('--controllers <list>', '*: all; NAME: this one; -NAME: not this one; separated by commas', '*')
    .option('--machine-namespace <path>', "where Gateways get ports on 127.0.0.1: a network namespace's file")
    .option('--loopback-ports <file>', 'where those ports are written down')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(async (flags: ServerFlags) => {
      const { runServer } = await import('./server/run.ts')
      await runServer(flags)
    })
}
