import { type EngineState, latencyBuckets, type Signals } from '#gateway/engine.ts'
import { type Cli, EngineError } from './cli.ts'
import { noSignal, signalKey } from './program.ts'

interface Row {
  readonly rule: string
  readonly backend: string
}

/** Sums of one rule and backend. */
interface Sums {
  readonly codes: Map<string, number>
  readonly buckets: number[]
}

/**
 * Golden signals out of HAProxy's stick tables: one row for each rule, backend, status and latency bucket that occurred, with a count, and
 * one for each rule and backend with its requests, whose difference is what HAProxy had to answer itself. Counts of a
 * process that ends are kept, as far as they were read.
 */
export class SignalReader {
  readonly #names = new Map<string, Row>([[noSignal, { rule: '', backend: '' }]])
  /** Of the process that runs now, by row. */
  #now = new Map<string, number>()
  /** Of processes before it. */
  readonly #before = new Map<string, number>()
  #known: EngineState | undefined

  /** A new process counts from nothing. */
  restart(): void {
    for (const [key, count] of this.#now) this.#before.set(key, (this.#before.get(key) ?? 0) + count)
    this.#now = new Map()
  }

  async read(cli: Cli, state: EngineState | undefined): Promise<void> {
    if (state !== undefined) this.#learn(state)
    const now = new Map<string, number>()
    const requests = new Map<string, { readonly count: number; readonly open: number }>()
    for (const { key, count, use } of await readTable(cli, 'failures')) requests.set(key, { count, open: use })
    const answered = new Map<string, number>()
    for (const { key, count } of await readTable(cli, 'signals')) {
      now.set(key, count)
      const [signal = ''] = key.split('|')
      answered.set(signal, (answered.get(signal) ?? 0) + count)
    }
    // What came and has neither an answer of a backend nor is still open was answered by HAProxy itself.
    for (const [signal, { count, open }] of requests) {
      const own = count - open - (answered.get(signal) ?? 0)
      const key = `${signal}|own|`
      const sum = Math.max(own, this.#now.get(key) ?? 0)
      if (sum > 0) now.set(key, sum)
    }
    this.#now = now
  }

  #learn(state: EngineState): void {
    if (this.#known?.routes === state.routes) return
    this.#known = state
    for (const route of state.routes.values())
      for (const rule of route.rules) {
        this.#names.set(signalKey(rule.id, ''), { rule: rule.id, backend: '' })
        for (const { backend } of rule.targets)
          if (backend !== undefined) this.#names.set(signalKey(rule.id, backend), { rule: rule.id, backend })
      }
  }

  signals(): Signals[] {
    const sums = new Map<string, Sums>()
    for (const counts of [this.#before, this.#now])
      for (const [key, count] of counts) {
        const [signal = '', code = '', bucket = ''] = key.split('|')
        const sum = sums.get(signal) ?? {
          codes: new Map<string, number>(),
          buckets: latencyBuckets.map(() => 0).concat(0),
        }
        sums.set(signal, sum)
        const name = code === 'own' ? this.#ownCode(signal) : code
        sum.codes.set(name, (sum.codes.get(name) ?? 0) + count)
        if (bucket !== '') sum.buckets[Number(bucket)] = (sum.buckets[Number(bucket)] ?? 0) + count
      }
    return [...sums].flatMap(([signal, { codes, buckets }]): Signals[] => {
      const row = this.#names.get(signal)
      return row === undefined ? [] : [{ ...row, codes, histogram: histogramOf(buckets) }]
    })
  }

  /** No rule: not found. A backend that gave no answer: 503 and its neighbours, which the table does not tell apart. */
  #ownCode(signal: string): string {
    const row = this.#names.get(signal)
    if (signal === noSignal) return '404'
    return row?.backend === '' ? this.#answerOf(row.rule) : '5xx'
  }

  #answerOf(id: string): string {
    const [route = ''] = [id.slice(0, id.lastIndexOf('/'))]
    const rule = this.#known?.routes.get(route)?.rules.find((r) => r.id === id)
    const redirect = rule?.filters.find((f) => f.type === 'redirect')
    return redirect === undefined ? '500' : `${redirect.code}`
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

async function readTable(cli: Cli, name: string): Promise<{ key: string; count: number; use: number }[]> {
  const [head = '', ...lines] = (await cli.command(`show table ${name}`)).split('\n')
  if (!head.startsWith(`# table: ${name}`)) throw new EngineError(`HAProxy does not show its table ${name}: ${head}`)
  return lines.flatMap((line) => {
    const [, key, use, count] = /^0x[0-9a-f]+: key=(\S+) use=(\d+) .*http_req_cnt=(\d+)/.exec(line) ?? []
    return key === undefined ? [] : [{ key, use: Number(use), count: Number(count) }]
  })
}
