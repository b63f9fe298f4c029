import type { AgentMetrics, Sample } from '../metrics.ts'
import type { NamesStatus } from './dns.ts'

/** What the resolver counts. Every label has a handful of values. */
export function registerNameMetrics(metrics: AgentMetrics, status: () => NamesStatus | undefined): void {
  const counter = (
    name: string,
    help: string,
    label: string,
    values: (status: NamesStatus) => Readonly<Record<string, number>>,
  ): void =>
    metrics.counter(name, help, [label], (): Sample[] => {
      const now = status()
      if (now === undefined) return []
      return Object.entries(values(now)).map(([key, value]) => ({ labels: { [label]: key }, value }))
    })
  counter('weft_dns_queries_total', 'Questions heard, by transport', 'transport', ({ queries }) => {
    const { queries: all = 0, tcp = 0 } = queries ?? {}
    return { udp: all - tcp, tcp }
  })
  metrics.counter('hubble_dns_queries_total', 'Questions heard', [], () => {
    const value = status()?.queries?.queries
    return value === undefined ? [] : [{ value }]
  })
  // Those of the table; what is left to the resolver is counted in weft_dns_forward_total.
  counter('hubble_dns_responses_total', 'Answers by what they say', 'rcode', ({ queries: q }) => ({
    'No Error': (q?.answers ?? 0) + (q?.negative ?? 0),
    'Non-Existent Domain': q?.nxdomain ?? 0,
    'Format Error': q?.malformed ?? 0,
    'Server Failure': q?.overload ?? 0,
    Refused: q?.refused ?? 0,
  }))
  const answers = 'Answers from the table: with records, without, cut, or left to the resolver'
  counter('weft_dns_answers_total', answers, 'kind', ({ queries: q }) => ({
    records: q?.answers ?? 0,
    nodata: q?.negative ?? 0,
    nxdomain: q?.nxdomain ?? 0,
    truncated: q?.truncated ?? 0,
    resolver: q?.asked ?? 0,
  }))
  counter('weft_dns_refused_total', 'Questions refused or dropped', 'reason', ({ queries: q }) => ({
    malformed: q?.malformed ?? 0,
    unsupported: q?.refused ?? 0,
    dropped: q?.dropped ?? 0,
    overload: q?.overload ?? 0,
  }))
  counter('weft_dns_forward_total', 'Questions for upstream resolvers', 'outcome', ({ forward }) => ({
    answered: forward.answered,
    failed: forward.failed,
    overload: forward.overload,
  }))
  metrics.value('weft_dns_names', 'Names that this node answers for', () => status()?.names)
  metrics.value('weft_dns_listening', 'Addresses at which the resolver listens', () => status()?.listening.length)
}
