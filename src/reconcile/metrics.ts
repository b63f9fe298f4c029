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

class Histogram {
  readonly counts = new Array<number>(buckets.length + 1).fill(0)
  sum = 0

  observe(seconds: number): void {
    const at = buckets.findIndex((bound) => seconds <= bound)
    const index = at < 0 ? buckets.length : at
    this.counts[index] = (this.counts[index] ?? 0) + 1
    this.sum += seconds
  }

  values(family: string, name: string): MetricValue[] {
    let below = 0
    const rows: MetricValue[] = this.counts.map((count, i) => {
      below += count
      return { value: below, labels: { name, le: buckets[i] ?? '+Inf' }, metricName: `${family}_bucket` }
    })
    rows.push({ value: this.sum, labels: { name }, metricName: `${family}_sum` })
    rows.push({ value: below, labels: { name }, metricName: `${family}_count` })
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

/** Counts for all queues of a process, under upstream's names; each queue is a value of the label `name`. */
export class ReconcileMetrics {
  readonly #queues = new Map<string, QueueCounts>()

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
      values: all.flatMap(([queue, counts]) => of(counts).values(name, queue)),
    })
    return [
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
