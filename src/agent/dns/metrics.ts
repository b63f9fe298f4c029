import { Counter, Gauge, type Registry } from 'prom-client'
import type { NamesStatus } from './dns.ts'

/** What the resolver counts, read when somebody asks. Every label has a handful of values. */
export function registerNameMetrics(registry: Registry, status: () => NamesStatus | undefined): void {
  const counter = <L extends string>(
    name: string,
    help: string,
    label: L,
    values: (status: NamesStatus) => Readonly<Record<string, number>>,
  ): void => {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers: [registry],
      collect() {
        // The table holds the sum: ours starts from nothing each time.
        this.reset()
        const now = status()
        if (now === undefined) return
        for (const [value, count] of Object.entries(values(now)))
          this.inc({ [label]: value } as Record<L, string>, count)
      },
    })
  }
  counter('weft_dns_queries_total', 'Questions heard, by transport', 'transport', ({ queries }) => {
    const { queries: all = 0, tcp = 0 } = queries ?? {}
    return { udp: all - tcp, tcp }
  })
  counter(
    'weft_dns_answers_total',
    'Answers from the table: with records, without, or left to the resolver',
    'kind',
    (s) => ({
      records: s.queries?.answers ?? 0,
      negative: s.queries?.negative ?? 0,
      resolver: s.queries?.asked ?? 0,
      truncated: s.queries?.truncated ?? 0,
    }),
  )
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
  const gauge = (name: string, help: string, value: (status: NamesStatus) => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        const now = status()
        if (now !== undefined) this.set(value(now))
      },
    })
  }
  gauge('weft_dns_names', 'Names that this node answers for', ({ names }) => names)
  gauge('weft_dns_listening', 'Addresses at which the resolver listens', ({ listening }) => listening.length)
}
