import type { Signals } from '#gateway/engine.ts'
import type { AgentMetrics, HistogramSample, Sample } from '../metrics.ts'

/** Rules and backends with labels of their own: those with the most requests. The others are counted together. */
const pairsMax = 500
const other = '(other)'

/**
 * Golden signals of routes: requests, codes and times by rule and backend, counted by the engine and read from it when
 * somebody scrapes. `route` is `kind/namespace/name`, `rule` its index, `backend` a Service's port; empty where the
 * gateway answered itself.
 */
export function registerGatewayMetrics(
  metrics: AgentMetrics,
  read: () => Promise<readonly Signals[]>,
  refused: () => Promise<ReadonlyMap<string, number>>,
): void {
  metrics.counter(
    'weft_gateway_refused_total',
    'What the engine refused or could not do since it was started: no requests (malformed, denied), programs that failed, deadlines that passed, mirrors, tunnels that no endpoint took',
    ['reason'],
    async () => [...(await refused())].map(([reason, value]): Sample => ({ labels: { reason }, value })),
  )
  // Both families of one scrape are of one reading.
  let reading: Promise<readonly Pair[]> | undefined
  const pairs = (): Promise<readonly Pair[]> => {
    reading ??= read()
      .then(pairsOf)
      .finally(() => {
        reading = undefined
      })
    return reading
  }
  metrics.counter(
    'weft_gateway_requests_total',
    'Requests by route, rule, backend and status code',
    ['route', 'rule', 'backend', 'code'],
    async () =>
      (await pairs()).flatMap(({ labels, codes }): Sample[] =>
        [...codes].map(([code, value]) => ({ labels: { ...labels, code }, value })),
      ),
  )
  metrics.histogramOf(
    'weft_gateway_request_duration_seconds',
    'Time from the request to the end of its answer, by route, rule and backend',
    async () => (await pairs()).map(({ labels, histogram }): HistogramSample => ({ labels, ...histogram })),
  )
}

interface Pair {
  readonly labels: { readonly route: string; readonly rule: string; readonly backend: string }
  readonly codes: ReadonlyMap<string, number>
  readonly histogram: Signals['histogram']
}

/** Bounded in number, whatever the number of routes. Pure. */
export function pairsOf(signals: readonly Signals[]): Pair[] {
  const total = ({ codes }: Signals): number => [...codes.values()].reduce((sum, count) => sum + count, 0)
  const busiest = signals.length <= pairsMax ? signals : signals.toSorted((a, b) => total(b) - total(a))
  const own = busiest.slice(0, pairsMax).map(
    ({ rule, backend, codes, histogram }): Pair => ({
      labels: { ...routeOf(rule), backend },
      codes,
      histogram,
    }),
  )
  const rest = busiest.slice(pairsMax)
  return rest.length === 0 ? own : [...own, together(rest)]
}

/** `HTTPRoute/shop/web/0`: its last part is the rule. */
function routeOf(rule: string): { readonly route: string; readonly rule: string } {
  const cut = rule.lastIndexOf('/')
  return cut < 0 ? { route: rule, rule: '' } : { route: rule.slice(0, cut), rule: rule.slice(cut + 1) }
}

function together(signals: readonly Signals[]): Pair {
  const codes = new Map<string, number>()
  for (const one of signals) for (const [code, count] of one.codes) codes.set(code, (codes.get(code) ?? 0) + count)
  const sum = (of: (histogram: Signals['histogram']) => number): number =>
    signals.reduce((total, { histogram }) => total + of(histogram), 0)
  const buckets = (signals[0]?.histogram.buckets ?? []).map(({ le }, i) => ({
    le,
    count: sum((histogram) => histogram.buckets[i]?.count ?? 0),
  }))
  const histogram = { buckets, count: sum((h) => h.count), sumSeconds: sum((h) => h.sumSeconds) }
  return { labels: { route: other, rule: '', backend: other }, codes, histogram }
}
