import type { Command } from 'commander'
import { layoutCluster } from './cluster/layout.ts'
import { lockCluster } from './cluster/lock.ts'
import { observe } from './cluster/observe.ts'
import { planUp } from './cluster/plan.ts'
import { bringsGatewayCrds, collect, parsePort, parseTunnel } from './flags.ts'

interface UpFlags {
  readonly name: string
  readonly nodes: string
  readonly agent: string
  readonly apiPort?: string
  readonly wait: string
  readonly loadBalancerPool: readonly string[]
  readonly resolver: readonly string[]
  readonly tunnel: string
  readonly gatewayCrds: string
}

export function addUp(program: Command): void {
  program
    .command('up')
    .description('bring up a cluster on this machine, or what is missing of it')
    .option('--name <name>', 'the cluster', 'weft')
    .option('--nodes <count>', 'how many nodes', '2')
    .option(
      '--agent <parts>',
      'full; none: nodes are a kubelet alone, their network comes from the chart in helm/',
      'full',
    )
    .option('--api-port <port>', 'port of the API server on 127.0.0.1 (6443, or the next free one)')
    .option('--wait <seconds>', 'how long each part may take to come up', '60')
    .option(
      '--load-balancer-pool <range>',
      'addresses of LoadBalancer Services, FIRST-LAST or a network; may be repeated (172.30.0.200-172.30.0.250 and fd00:172:30::200-fd00:172:30::2ff)',
      collect,
      [],
    )
    .option(
      '--resolver <address>',
      'in the fabric, asked for names that are not of the cluster; may be repeated (none: SERVFAIL)',
      collect,
      [],
    )
    .option('--tunnel <mode>', 'how packets get to other nodes: native (by their routes), vxlan', 'native')
    .option('--gateway-crds <whose>', "ours: the Gateway API's definitions are put in; none: you bring them", 'ours')
    .action(async (flags: UpFlags) => {
      const { resolver: resolvers } = flags
      const tunnel = parseTunnel(flags.tunnel)
      const agent = parseAgent(flags.agent)
      const gatewayCrds = bringsGatewayCrds(flags.gatewayCrds)
      const usual = { ...layoutCluster(flags.name, parseCount(flags.nodes)), agent, resolvers, tunnel, gatewayCrds }
      const { loadBalancerPool } = flags
      const layout = loadBalancerPool.length === 0 ? usual : { ...usual, loadBalancerPools: loadBalancerPool }
      const apiPort = flags.apiPort === undefined ? undefined : parsePort(flags.apiPort, '--api-port')
      const readyWithinMs = parseSeconds(flags.wait) * 1000
      // Loaded only now: they need native/, and say so in one line where it is not built.
      const { readMachine, requireMachine } = await import('./cluster/prerequisites.ts')
      requireMachine(readMachine(layout.stateDir))
      const { applyUp } = await import('./cluster/apply.ts')
      using _lock = await lockCluster(layout.name, 'up')
      const summary = await applyUp(layout, planUp({ layout }, observe(layout)), { apiPort, readyWithinMs })
      process.stdout.write(`${summary}\n`)
    })
}

/** Whether there can be so many, `layoutCluster` says. */
function parseCount(text: string): number {
  if (!/^\d+$/.test(text)) throw new RangeError(`--nodes ${text}: use a whole number`)
  return Number(text)
}

function parseAgent(text: string): 'full' | 'none' {
  if (text !== 'full' && text !== 'none') throw new RangeError(`--agent ${text}: use full or none`)
  return text
}

function parseSeconds(text: string): number {
  const seconds = Number(text)
  if (!Number.isInteger(seconds) || seconds < 1) throw new RangeError(`--wait ${text}: use a whole number of seconds`)
  return seconds
}
