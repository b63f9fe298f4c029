/** What a work queue says about itself. */
export interface QueueMetrics {
  depth(items: number): void
  added(): void
  retried(): void
  /** Seconds between being added and being taken. */
  waited(seconds: number): void
  /** Seconds between being taken and being done. */
  worked(seconds: number): void
  /** Seconds of work that is under way, summed, and the longest of it. */
  unfinished(seconds: number, longestSeconds: number): void
}

export const noMetrics: QueueMetrics = {
  depth() {},
  added() {},
  retried() {},
  waited() {},
  worked() {},
  unfinished() {},
}

/**
 * One family as prom-client has it in JSON (`AggregatorRegistry.aggregate` takes it): plain data, so that a thread can
 * count without loading prom-client, which costs 16 MB, and the main thread shows it.
 */
export interface MetricFamily {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly aggregator: 'sum'
  readonly values: readonly MetricValue[]
}
export interface MetricValue {
  readonly value: number
  readonly labels: Readonly<Record<string, string | number>>
  /** `…_bucket`, `…_sum`, `…_count` of a histogram. */
  readonly metricName?: string
}

/** Upstream's: 10 ns to 10 s, in seconds. */
const buckets = Array.from({ length: 10 }, (_, i) => 10 ** (i - 8))

/** Label sets that one family may have: more would be somebody's names. */
const seriesMax = 1_000

class Histogram {
  readonly counts = new Array<number>(buckets.length + 1).fill(0)
  sum = 0

  observe(seconds: number): void {
    const at = buckets.findIndex((bound) => seconds <= bound)
    const index = at < 0 ? buckets.length : at
    this.counts[index] = (this.counts[index] ?? 0) + 1
    this.sum += seconds
  }

  values(family: string, more: MetricValue['labels']): MetricValue[] {
    let below = 0
    const rows: MetricValue[] = this.counts.map((count, i) => {
      below += count
      return { value: below, labels: { ...more, le: buckets[i] ?? '+Inf' }, metricName: `${family}_bucket` }
    })
    rows.push({ value: this.sum, labels: more, metricName: `${family}_sum` })
    rows.push({ value: below, labels: more, metricName: `${family}_count` })
    return rows
  }
}

class QueueCounts implements QueueMetrics {
  items = 0
  adds = 0
  retries = 0
  unfinishedSeconds = 0
  longestSeconds = 0
  readonly waits = new Histogram()
  readonly works = new Histogram()

  depth(items: number): void {
    this.items = items
  }
  added(): void {
    this.adds++
  }
  retried(): void {
    this.retries++
  }
  waited(seconds: number): void {
    this.waits.observe(seconds)
  }
  worked(seconds: number): void {
    this.works.observe(seconds)
  }
  unfinished(seconds: number, longestSeconds: number): void {
    this.unfinishedSeconds = seconds
    this.longestSeconds = longestSeconds
  }
}

/** A family that a part keeps by itself. */
interface OwnFamily {
  readonly help: string
  readonly series: Map<string, { readonly labels: MetricValue['labels']; count: number; readonly times: Histogram }>
}

/** Counts for all queues of a process, under upstream's names; each queue is a value of the label `name`. */
export class ReconcileMetrics {
  readonly #queues = new Map<string, QueueCounts>()
  readonly #counters = new Map<string, OwnFamily>()
  readonly #histograms = new Map<string, OwnFamily>()
  readonly #gauges = new Map<string, { readonly help: string; readonly read: () => readonly MetricValue[] }>()

  /** Adds one to a counter of a part's own. Labels take values of a closed set. */
  count(name: string, help: string, labels: MetricValue['labels']): void {
    const series = seriesOf(this.#counters, name, help, labels)
    if (series !== undefined) series.count++
  }

  /** A time for a histogram of a part's own. */
  observe(name: string, help: string, labels: MetricValue['labels'], seconds: number): void {
    seriesOf(this.#histograms, name, help, labels)?.times.observe(seconds)
  }

  /** A gauge of a part's own, read when somebody asks. */
  gauge(name: string, help: string, read: () => readonly MetricValue[]): void {
    this.#gauges.set(name, { help, read })
  }

  /** The same counts for the same name: a loop that is started again goes on counting. */
  queue(name: string): QueueMetrics {
    const counts = this.#queues.get(name) ?? new QueueCounts()
    this.#queues.set(name, counts)
    return counts
  }

  families(): MetricFamily[] {
    const all = [...this.#queues]
    const plain = (name: string, type: 'counter' | 'gauge', help: string, of: (q: QueueCounts) => number) => ({
      name,
      help,
      type,
      aggregator: 'sum' as const,
      values: all.map(([queue, counts]) => ({ value: of(counts), labels: { name: queue } })),
    })
    const histogram = (name: string, help: string, of: (q: QueueCounts) => Histogram) => ({
      name,
      help,
      type: 'histogram' as const,
      aggregator: 'sum' as const,
      values: all.flatMap(([queue, counts]) => of(counts).values(name, { name: queue })),
    })
    const own = (families: ReadonlyMap<string, OwnFamily>, type: 'counter' | 'histogram'): MetricFamily[] =>
      [...families].map(([name, { help, series }]) => ({
        name,
        help,
        type,
        aggregator: 'sum',
        values: [...series.values()].flatMap(({ labels, count, times }) =>
          type === 'counter' ? [{ value: count, labels }] : times.values(name, labels),
        ),
      }))
    const gauges = [...this.#gauges].map(
      ([name, { help, read }]): MetricFamily => ({ name, help, type: 'gauge', aggregator: 'sum', values: read() }),
    )
    return [
      ...own(this.#counters, 'counter'),
      ...own(this.#histograms, 'histogram'),
      ...gauges,
      plain('workqueue_depth', 'gauge', 'Keys that wait to be looked at', (q) => q.items),
      plain('workqueue_adds_total', 'counter', 'Keys added', (q) => q.adds),
      plain('workqueue_retries_total', 'counter', 'Keys added again after a failure', (q) => q.retries),
      histogram('workqueue_queue_duration_seconds', 'Time from being added to being taken', (q) => q.waits),
      histogram('workqueue_work_duration_seconds', 'Time from being taken to being done', (q) => q.works),
      plain('workqueue_unfinished_work_seconds', 'gauge', 'Work under way, summed', (q) => q.unfinishedSeconds),
      plain(
        'workqueue_longest_running_processor_seconds',
        'gauge',
        'The longest work under way',
        (q) => q.longestSeconds,
      ),
    ]
  }
}

function seriesOf(families: Map<string, OwnFamily>, name: string, help: string, labels: MetricValue['labels']) {
  const family: OwnFamily = families.get(name) ?? { help, series: new Map() }
  families.set(name, family)
  const key = JSON.stringify(labels)
  const known = family.series.get(key)
  if (known !== undefined || family.series.size >= seriesMax) return known
  const series = { labels, count: 0, times: new Histogram() }
  family.series.set(key, series)
  return series
}
