import type { Registry } from 'prom-client'
import type { Datapath } from '#datapath/datapath.ts'
import type { TakenOver } from '#datapath/kernel.ts'
import type { Feature } from '#kernel/features.ts'
import type { Names, NamesStatus } from './dns/dns.ts'
import { registerNameMetrics } from './dns/metrics.ts'
import type { Endpoints } from './endpoints/endpoints.ts'
import type { Flows } from './flows/flows.ts'
import { registerFlowMetrics } from './flows/metrics.ts'
import type { Gateways, GatewaysStatus } from './gateway/gateway.ts'
import { registerGatewayMetrics } from './gateway/metrics.ts'
import type { HealthStatus, NodeHealth } from './health/health.ts'
import type { Hooks } from './hooks.ts'
import { AgentMetrics, registerMetrics, registerSweepMetrics } from './metrics.ts'
import type { Nodes } from './nodes/nodes.ts'
import type { Uplink } from './nodes/uplink.ts'
import type { Policies } from './policy/policy.ts'
import type { Services } from './services/services.ts'

/** What `weft status` and health checks ask. */
export interface AgentStatus {
  /** `starting` until the runtime is told that the network is ready. */
  readonly state: 'starting' | 'ready' | 'stopped'
  readonly endpoints: number
  readonly services: ReturnType<Services['status']> | undefined
  readonly nodes: ReturnType<Nodes['status']> | undefined
  readonly names: NamesStatus | undefined
  readonly gateways: GatewaysStatus | undefined
  readonly health: HealthStatus | undefined
  readonly policies: ReturnType<Policies['status']> | undefined
  readonly hooks: ReturnType<Hooks['status']> | undefined
  readonly uplink: ReturnType<Uplink['status']> | undefined
  readonly features: readonly Feature[]
}

/** What there is of an agent by now. Parts come one after the other, and may be asked for before they are there. */
export interface Running {
  state: AgentStatus['state']
  features: readonly Feature[]
  datapath?: Datapath | undefined
  takenOver?: TakenOver | undefined
  endpoints?: Endpoints
  services?: Services
  nodes?: Nodes
  names?: Names
  policies?: Policies
  gateways?: Gateways
  health?: NodeHealth
  hooks?: Hooks
  uplink?: Uplink
  flows?: Flows | undefined
}

export const statusOf = ({ state, features, ...parts }: Running): AgentStatus => ({
  state,
  endpoints: parts.endpoints?.size ?? 0,
  services: parts.services?.status(),
  nodes: parts.nodes?.status(),
  names: parts.names?.status(),
  policies: parts.policies?.status(),
  gateways: parts.gateways?.status(),
  health: parts.health?.status(),
  hooks: parts.hooks?.status(),
  uplink: parts.uplink?.status(),
  features,
})

/** Every family of every part, read when somebody scrapes. Returns what sweeps are told to. */
export function registerAll(registry: Registry, running: Running): ReturnType<typeof registerSweepMetrics> {
  const metrics = new AgentMetrics(registry)
  const troubleOf = (part: 'services' | 'nodes' | 'names' | 'policies' | 'gateways'): string =>
    running[part]?.status().trouble ?? ''
  registerMetrics(metrics, {
    datapath: () => running.datapath,
    endpoints: () => running.endpoints?.size ?? 0,
    services: () => running.services?.status(),
    nodes: () => running.nodes?.status().nodes,
    policies: () => running.policies?.status(),
    gateways: () => running.gateways?.status(),
    troubles: () => ({
      services: troubleOf('services'),
      nodes: troubleOf('nodes'),
      names: troubleOf('names'),
      policies: troubleOf('policies'),
      gateways: troubleOf('gateways'),
    }),
    features: () => running.features,
    ready: () => running.state === 'ready',
  })
  const observeSweep = registerSweepMetrics(metrics)
  registerFlowMetrics(metrics, () => running.flows)
  registerGatewayMetrics(
    metrics,
    async () => (await running.gateways?.signals()) ?? [],
    async () => (await running.gateways?.refused()) ?? new Map(),
  )
  metrics.value(
    'cilium_unreachable_nodes',
    'Nodes that do not answer from here',
    () => running.health?.status().unreachable.length,
  )
  metrics.gauge(
    'weft_old_maps',
    'Maps of another version that this agent found, by what became of them',
    ['state'],
    () =>
      (['removed', 'kept'] as const).map((state) => ({
        labels: { state },
        value: running.takenOver?.[state].length ?? 0,
      })),
  )
  metrics.counter('weft_programs_displaced_total', 'Programs of others that were found running before ours', [], () => {
    const found = running.hooks?.status().displaced
    return found === undefined ? [] : [{ value: found }]
  })
  registerNameMetrics(metrics, () => running.names?.status())
  return observeSweep
}
