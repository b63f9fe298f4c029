import { type Clock, systemClock } from '#base/clock.ts'
import { noMetrics, type QueueMetrics } from './metrics.ts'

export interface WorkQueueOptions {
  readonly clock?: Clock
  readonly metrics?: QueueMetrics
  /** Milliseconds: the first pause after a failure, doubling up to the last. Upstream's 5 ms and 1000 s. */
  readonly retryFirstMs?: number
  readonly retryMaxMs?: number
}

/** All retries of a queue together: upstream's bucket of 100, refilled with 10 a second. */
const retryBurst = 100
const retriesPerSecond = 10

/**
 * Keys to look at again. A key waits at most once, however often it is added; a key that is being worked on is not
 * given to a second worker, but waits for the first to be done. So the queue is never longer than there are keys.
 */
export class WorkQueue {
  readonly #clock: Clock
  readonly #metrics: QueueMetrics
  readonly #retryFirstMs: number
  readonly #retryMaxMs: number
  /** Waiting, in order, with the time of being added. */
  readonly #ready = new Map<string, number>()
  /** Being worked on, with the time of being taken. */
  readonly #working = new Map<string, number>()
  /** Added while being worked on. */
  readonly #dirty = new Map<string, number>()
  readonly #later = new Map<string, { readonly at: number; readonly cancel: () => void }>()
  readonly #failures = new Map<string, number>()
  readonly #takers: ((key: string | undefined) => void)[] = []
  #tokens = retryBurst
  #tokensAt: number
  #closed = false

  constructor(options: WorkQueueOptions = {}) {
    this.#clock = options.clock ?? systemClock
    this.#metrics = options.metrics ?? noMetrics
    this.#retryFirstMs = options.retryFirstMs ?? 5
    this.#retryMaxMs = options.retryMaxMs ?? 1_000_000
    this.#tokensAt = this.#clock.monotonic()
  }

  get size(): number {
    return this.#ready.size
  }

  /** Nothing waits and nothing is being worked on; what is to come later does not count. */
  get idle(): boolean {
    return this.#ready.size === 0 && this.#working.size === 0
  }

  add(key: string): void {
    if (this.#closed || this.#ready.has(key) || this.#dirty.has(key)) return
    this.#metrics.added()
    const now = this.#clock.monotonic()
    if (this.#working.has(key)) {
      this.#dirty.set(key, now)
      return
    }
    this.#ready.set(key, now)
    this.#metrics.depth(this.#ready.size)
    this.#give()
  }

  /** Adds after `ms`; of several times asked for, the earliest counts. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return
    if (ms <= 0) {
      this.add(key)
      return
    }
    const at = this.#clock.monotonic() + ms
    const known = this.#later.get(key)
    if (known !== undefined && known.at <= at) return
    known?.cancel()
    const cancel = this.#clock.schedule(ms, () => {
      this.#later.delete(key)
      this.add(key)
    })
    this.#later.set(key, { at, cancel })
  }

  /** Adds after a pause that doubles with each failure of the key. Returns the milliseconds. */
  retry(key: string): number {
    const failures = this.#failures.get(key) ?? 0
    this.#failures.set(key, failures + 1)
    this.#metrics.retried()
    const own = Math.min(this.#retryMaxMs, this.#retryFirstMs * 2 ** failures)
    const ms = Math.max(own, this.#reserve())
    this.addAfter(key, ms)
    return ms
  }

  /** The key succeeded: the next failure is a first one. */
  forget(key: string): void {
    this.#failures.delete(key)
  }

  /** Failures of the key since it last succeeded. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0
  }

  /** The next key, in order; undefined once the queue is closed. Every key taken must be given back by `done`. */
  take(): Promise<string | undefined> {
    if (this.#closed) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      this.#takers.push(resolve)
      this.#give()
    })
  }

  done(key: string): void {
    const now = this.#clock.monotonic()
    const takenAt = this.#working.get(key)
    if (takenAt === undefined) throw new Error(`Cannot finish "${key}": nobody works on it`)
    this.#working.delete(key)
    this.#metrics.worked((now - takenAt) / 1000)
    this.#reportUnfinished(now)
    const dirtyAt = this.#dirty.get(key)
    if (dirtyAt === undefined || this.#closed) return
    this.#dirty.delete(key)
    this.#ready.set(key, dirtyAt)
    this.#metrics.depth(this.#ready.size)
    this.#give()
  }

  /** Nothing is given out any more; takers get undefined. */
  close(): void {
    this.#closed = true
    for (const { cancel } of this.#later.values()) cancel()
    this.#later.clear()
    this.#ready.clear()
    this.#metrics.depth(0)
    for (const taker of this.#takers.splice(0)) taker(undefined)
  }

  #give(): void {
    while (this.#takers.length > 0) {
      const [first] = this.#ready
      if (first === undefined) return
      const [key, addedAt] = first
      const now = this.#clock.monotonic()
      this.#ready.delete(key)
      this.#working.set(key, now)
      this.#metrics.depth(this.#ready.size)
      this.#metrics.waited((now - addedAt) / 1000)
      this.#reportUnfinished(now)
      this.#takers.shift()?.(key)
    }
  }

  #reportUnfinished(now: number): void {
    let sum = 0
    let longest = 0
    for (const at of this.#working.values()) {
      sum += now - at
      longest = Math.max(longest, now - at)
    }
    this.#metrics.unfinished(sum / 1000, longest / 1000)
  }

  /** Takes a token, on credit if need be; says in how many milliseconds it will be there. */
  #reserve(): number {
    const now = this.#clock.monotonic()
    this.#tokens = Math.min(retryBurst, this.#tokens + ((now - this.#tokensAt) / 1000) * retriesPerSecond)
    this.#tokensAt = now
    this.#tokens--
    return this.#tokens >= 0 ? 0 : (-this.#tokens / retriesPerSecond) * 1000
  }
}
