import type { Command } from 'commander'
import { collect } from './flags.ts'
import type { OperatorFlags } from './operator/run.ts'

export function addOperator(program: Command): void {
  program
    .command('operator')
    .description('the network’s controllers by themselves, in a pod of a Kubernetes that is somebody else’s')
    .requiredOption('--server <url>', 'the API server')
    .option(
      '--load-balancer-pool <range>',
      'addresses of LoadBalancer Services: FIRST-LAST or a network; may be repeated',
      collect,
      [],
    )
    .requiredOption('--agent-service-account <namespace/name>', 'who serves the certificates of Gateways')
    .option('--health-port <port>', '/healthz and /metrics', '9963')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .action(async (flags: OperatorFlags) => {
      const { runOperator } = await import('./operator/run.ts')
      await runOperator(flags)
    })
}
