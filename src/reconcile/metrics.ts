import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** What a work queue says about itself, under upstream's names and with upstream's buckets (10 ns to 10 s). */
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

const buckets = Array.from({ length: 10 }, (_, i) => 10 ** (i - 8))

/** Makes the families once for a registry; each queue is a value of the label `name`. */
export class ReconcileMetrics {
  readonly #depth: Gauge<'name'>
  readonly #adds: Counter<'name'>
  readonly #retries: Counter<'name'>
  readonly #queueSeconds: Histogram<'name'>
  readonly #workSeconds: Histogram<'name'>
  readonly #unfinished: Gauge<'name'>
  readonly #longest: Gauge<'name'>

  constructor(registry: Registry) {
    const labelNames = ['name'] as const
    const registers = [registry]
    const gauge = (name: string, help: string) => new Gauge({ name, help, labelNames, registers })
    const counter = (name: string, help: string) => new Counter({ name, help, labelNames, registers })
    const histogram = (name: string, help: string) => new Histogram({ name, help, labelNames, registers, buckets })
    this.#depth = gauge('workqueue_depth', 'Keys that wait to be looked at')
    this.#adds = counter('workqueue_adds_total', 'Keys added')
    this.#retries = counter('workqueue_retries_total', 'Keys added again after a failure')
    this.#queueSeconds = histogram('workqueue_queue_duration_seconds', 'Time from being added to being taken')
    this.#workSeconds = histogram('workqueue_work_duration_seconds', 'Time from being taken to being done')
    this.#unfinished = gauge('workqueue_unfinished_work_seconds', 'Work under way, summed')
    this.#longest = gauge('workqueue_longest_running_processor_seconds', 'The longest work under way')
  }

  queue(name: string): QueueMetrics {
    const [depth, adds, retries] = [this.#depth.labels(name), this.#adds.labels(name), this.#retries.labels(name)]
    const [waited, worked] = [this.#queueSeconds.labels(name), this.#workSeconds.labels(name)]
    const [unfinished, longest] = [this.#unfinished.labels(name), this.#longest.labels(name)]
    return {
      depth: (items) => depth.set(items),
      added: () => adds.inc(),
      retried: () => retries.inc(),
      waited: (seconds) => waited.observe(seconds),
      worked: (seconds) => worked.observe(seconds),
      unfinished(seconds, longestSeconds) {
        unfinished.set(seconds)
        longest.set(longestSeconds)
      },
    }
  }
}
