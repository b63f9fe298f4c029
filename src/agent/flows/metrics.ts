import { reasons } from '#datapath/maps/counters.ts'
import type { AgentMetrics, Sample } from '../metrics.ts'
import type { Flows } from './flows.ts'
import { protocolName, reasonCode } from './present.ts'

/** Under Hubble's names. Flows without a name of a pod or an address: their number has no bound. */
export function registerFlowMetrics(metrics: AgentMetrics, flows: () => Flows | undefined): void {
  const counts = () => flows()?.counts() ?? []
  metrics.counter(
    'hubble_flows_processed_total',
    'Connections and drops that were seen',
    ['protocol', 'type', 'verdict'],
    () =>
      sum(counts(), ({ protocol, kind }) => ({
        protocol: protocolLabel(protocol),
        type: kind === 'drop' ? 'Drop' : 'Trace',
        verdict: kind === 'drop' ? 'DROPPED' : 'FORWARDED',
      })),
  )
  metrics.counter('hubble_drop_total', 'Drops that were seen, by reason', ['protocol', 'reason'], () =>
    sum(
      counts().filter(({ kind }) => kind === 'drop'),
      ({ protocol, reason }) => ({
        protocol: protocolLabel(protocol),
        reason: reasonCode(reasons[reason] ?? 'unknown'),
      }),
    ),
  )
  metrics.counter('hubble_lost_events_total', 'Flows that found no room on their way here', ['source'], () => {
    const status = flows()?.status()
    return status === undefined ? [] : [{ labels: { source: 'ring_buffer' }, value: status.lost }]
  })
}

const known = new Set(['ICMPv4', 'TCP', 'UDP', 'ICMPv6', 'SCTP'])
/** A pod may send any protocol number: they share one name. */
const protocolLabel = (protocol: number): string => {
  const name = protocolName(protocol)
  return known.has(name) ? name : 'other'
}

type Count = ReturnType<Flows['counts']>[number]

function sum(counts: readonly Count[], labelsOf: (count: Count) => Record<string, string>): Sample[] {
  const sums = new Map<string, { labels: Record<string, string>; value: number }>()
  for (const count of counts) {
    const labels = labelsOf(count)
    const key = Object.values(labels).join(' ')
    const known = sums.get(key)
    if (known === undefined) sums.set(key, { labels, value: count.count })
    else known.value += count.count
  }
  return [...sums.values()]
}
