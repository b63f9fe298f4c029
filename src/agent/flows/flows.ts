import { delay } from '#base/async/delay.ts'
import { Queue } from '#base/async/queue.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import { eventSize } from '#datapath/events/event.ts'
import { compileQuery, type FlowQuery } from './filter.ts'
import { httpFlow, type Requests } from './http.ts'
import { FlowLog } from './log.ts'
import type { Flow, Names } from './record.ts'

/** Where records come from: the kernel's ring, or a test. */
export interface EventSource {
  /** Copies what is there, oldest first, and returns how many records. Never waits. */
  drain(into: Uint8Array): number
  /** Records for which the kernel had no room, since it was loaded. */
  lost(): number
}

/** How often the ring is looked at: soon while there is something, seldom while there is not; its room is for seconds. */
const busyMs = 10
const idleMs = 160
/** Records taken with one call. */
const batch = 4096

/** At most so many requests wait for a reader; more are told of as missed. */
const requestsMax = 4096

export interface FlowsOptions {
  readonly source: EventSource
  readonly names: Names
  readonly nodeName: string
  readonly clock: Clock
  readonly entriesMax?: number
  /** Requests that the node's gateway answers; told of only while somebody follows. */
  readonly requests?: Requests
}

/** The node's connections and drops: drained on a timer, kept raw, named when somebody asks. */
export class Flows {
  readonly #options: FlowsOptions
  readonly #log: FlowLog
  readonly #buffer = Buffer.alloc(batch * eventSize)
  /** Wall clock minus CLOCK_MONOTONIC, ms; looked at with each drain, so that a clock that was set shows from then on. */
  #offset: number
  #read = 0

  constructor(options: FlowsOptions) {
    this.#options = options
    this.#log = new FlowLog(options.entriesMax)
    this.#offset = this.#clockOffset()
  }

  async run(signal: AbortSignal): Promise<void> {
    let pause = idleMs
    while (!signal.aborted) {
      pause = this.drain() > 0 ? busyMs : Math.min(idleMs, pause * 2)
      await delay(pause, signal, this.#options.clock)
    }
  }

  /** Takes all that is there now, and returns how many. */
  drain(): number {
    let sum = 0
    for (;;) {
      const count = this.#options.source.drain(this.#buffer)
      if (count > 0 && sum === 0) this.#offset = this.#clockOffset()
      this.#log.append(this.#buffer, count)
      sum += count
      // A full batch: more may have come; what comes without end is left for the next time.
      if (count < batch || sum >= 16 * batch) break
    }
    this.#read += sum
    return sum
  }

  status(): { readonly read: number; readonly lost: number; readonly kept: number } {
    return { read: this.#read, lost: this.#options.source.lost(), kept: this.#log.end - this.#log.start }
  }

  counts(): ReturnType<FlowLog['counts']> {
    return this.#log.counts()
  }

  /** The newest `last` that match and are not older than `sinceMs`, oldest first. Throws a RangeError for a bad query. */
  recent(
    query: FlowQuery,
    { last = 20, sinceMs = 0 }: { readonly last?: number; readonly sinceMs?: number } = {},
  ): Flow[] {
    this.drain()
    const wanted = compileQuery(query)
    const found: Flow[] = []
    for (let position = this.#log.end - 1; position >= this.#log.start && found.length < last; position--) {
      const flow = this.#flow(position)
      if (flow === undefined || flow.time < sinceMs) break
      if (wanted(flow)) found.push(flow)
    }
    return found.reverse()
  }

  /** The position behind the newest: where `follow` goes on without a gap. */
  get end(): number {
    return this.#log.end
  }

  /**
   * What matches from that position on, until `signal` aborts. Who reads too slowly misses what is overwritten meanwhile, and is told
   * how many; nothing is kept for him.
   */
  async *follow(
    query: FlowQuery,
    from: number,
    signal: AbortSignal,
  ): AsyncGenerator<Flow | { readonly missed: number }> {
    const wanted = compileQuery(query)
    let position = from
    signal.addEventListener('abort', () => this.#log.wake(), { once: true })
    while (!signal.aborted) {
      const missed = this.#log.start - position
      if (missed > 0) {
        yield { missed }
        position = this.#log.start
      }
      const flow = position < this.#log.end ? this.#flow(position) : undefined
      if (flow === undefined) {
        await this.#log.grown()
        continue
      }
      position++
      if (wanted(flow)) yield flow
    }
  }

  /** Connections, drops and requests in one stream, as they come. */
  async *followAll(
    query: FlowQuery,
    from: number,
    signal: AbortSignal,
  ): AsyncGenerator<Flow | { readonly missed: number }> {
    const { requests, names, nodeName } = this.#options
    if (requests === undefined) {
      yield* this.follow(query, from, signal)
      return
    }
    const wanted = compileQuery(query)
    const queue = new Queue<Flow | { readonly missed: number }>(requestsMax)
    let missed = 0
    const offer = (flow: Flow | { readonly missed: number }): void => {
      if (missed > 0 && queue.push({ missed })) missed = 0
      if (!queue.push(flow)) missed += 'missed' in flow ? flow.missed : 1
    }
    requests((event) => {
      const flow = httpFlow(event, names, nodeName)
      if (wanted(flow)) offer(flow)
    }, signal)
    await using scope = new Scope(signal)
    scope.start(async (stop) => {
      try {
        for await (const flow of this.follow(query, from, stop)) offer(flow)
        queue.close()
      } catch (error) {
        queue.close(error)
      }
    })
    yield* queue
  }

  #flow(position: number): Flow | undefined {
    const event = this.#log.get(position)
    if (event === undefined) return undefined
    const { names, nodeName } = this.#options
    const time = Number(event.time / 1000n) / 1000 + this.#offset
    const { frontend } = event
    const rule = names.rule(event.rule)
    return {
      event,
      time,
      node: nodeName,
      source: names.party(event.source, event.sourceIdentity, time),
      destination: names.party(event.destination, event.destinationIdentity, time),
      service: frontend && names.service(frontend.address, frontend.port, event.protocol),
      allowedBy: rule === undefined ? [] : [rule],
      // A sender whom nobody knows and an answer that is spared were denied by policies, too.
      deniedBy: event.kind === 'drop' ? names.set(event.set) : [],
    }
  }

  #clockOffset(): number {
    // hrtime is CLOCK_MONOTONIC, as bpf_ktime_get_ns() is.
    return this.#options.clock.now() - Number(process.hrtime.bigint() / 1000n) / 1000
  }
}
