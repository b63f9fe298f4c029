import { type EngineState, latencyBuckets, type Route, type Signals } from '#gateway/engine.ts'
import { type Cli, EngineError } from './cli.ts'
import { noSignal, signalKey } from './program.ts'

/** Rules come and go for months: names of those that are gone are forgotten in one go. */
const namesMax = 50_000

/** The rule and the backend behind a signal key. */
export interface SignalNames {
  readonly rule: string
  readonly backend: string
}

/** Sums of one rule and backend. */
interface Sums {
  readonly codes: Map<string, number>
  readonly buckets: number[]
}

/**
 * Golden signals out of HAProxy: its stick table has a row for each rule, backend, status and latency bucket that occurred, with a
 * count; what no backend answered comes as events. Counts of a process that ends are kept, as far as they were read.
 */
export class SignalReader {
  readonly #names = new Map<string, SignalNames>([[noSignal, { rule: '', backend: '' }]])
  /** Of the process that runs now, by row. */
  #now = new Map<string, number>()
  /** Of processes before it, and of events: what only grows. */
  readonly #before = new Map<string, number>()
  #routes: EngineState['routes'] | undefined
  #learned = new WeakSet<Route>()

  /** A new process counts from nothing. */
  restart(): void {
    for (const [key, count] of this.#now) this.#before.set(key, (this.#before.get(key) ?? 0) + count)
    this.#now = new Map()
  }

  /** An answer that HAProxy gave in a backend's place. */
  note(row: string, code: string): void {
    const key = `${row}|${code}|`
    this.#before.set(key, (this.#before.get(key) ?? 0) + 1)
  }

  async read(cli: Cli, state: EngineState | undefined): Promise<void> {
    this.learn(state)
    const [head = '', ...lines] = (await cli.command('show table signals')).split('\n')
    // One that an agent started which counted nothing, and that is about to be replaced.
    if (head.startsWith('No such table')) return
    if (!head.startsWith('# table: signals')) throw new EngineError(`HAProxy does not show its signals: ${head}`)
    this.#now = new Map(
      lines.flatMap((line) => {
        const [, key, count] = /^0x[0-9a-f]+: key=(\S+) .*http_req_cnt=(\d+)/.exec(line) ?? []
        return key === undefined ? [] : [[key, Number(count)] as const]
      }),
    )
  }

  names(key: string): SignalNames | undefined {
    return this.#names.get(key)
  }

  learn(state: EngineState | undefined): void {
    if (state === undefined || this.#routes === state.routes) return
    this.#routes = state.routes
    if (this.#names.size > namesMax) {
      this.#learned = new WeakSet()
      this.#names.clear()
      this.#names.set(noSignal, { rule: '', backend: '' })
    }
    for (const route of state.routes.values()) {
      if (this.#learned.has(route)) continue
      this.#learned.add(route)
      for (const rule of route.rules) {
        this.#names.set(signalKey(rule.id, ''), { rule: rule.id, backend: '' })
        for (const { backend } of rule.targets)
          if (backend !== undefined) this.#names.set(signalKey(rule.id, backend), { rule: rule.id, backend })
      }
    }
  }

  signals(): Signals[] {
    const sums = new Map<string, Sums>()
    for (const counts of [this.#before, this.#now])
      for (const [key, count] of counts) {
        const [, signal = '', code = '', bucket = ''] = key.split('|')
        const sum = sums.get(signal) ?? { codes: new Map(), buckets: [...latencyBuckets.map(() => 0), 0] }
        sums.set(signal, sum)
        sum.codes.set(code, (sum.codes.get(code) ?? 0) + count)
        if (bucket !== '') sum.buckets[Number(bucket)] = (sum.buckets[Number(bucket)] ?? 0) + count
      }
    return [...sums].flatMap(([signal, { codes, buckets }]): Signals[] => {
      const names = this.#names.get(signal)
      return names === undefined ? [] : [{ ...names, codes, histogram: histogramOf(buckets) }]
    })
  }
}

/** The sum is of the buckets' middles: HAProxy keeps no exact one. */
function histogramOf(counts: readonly number[]): Signals['histogram'] {
  let cumulative = 0
  let sumSeconds = 0
  const buckets = latencyBuckets.map((le, i) => {
    const count = counts[i] ?? 0
    cumulative += count
    sumSeconds += count * ((le + (latencyBuckets[i - 1] ?? 0)) / 2)
    return { le, count: cumulative }
  })
  const beyond = counts[latencyBuckets.length] ?? 0
  sumSeconds += beyond * (latencyBuckets.at(-1) ?? 0)
  return { buckets, count: cumulative + beyond, sumSeconds }
}
