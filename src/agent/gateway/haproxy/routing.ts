import type { EngineState, Fault, Rule } from '#gateway/engine.ts'
import { type Bucket, type Cell, changedKeys, Table } from '#gateway/table.ts'
import { payloadBytesMax } from './cli.ts'
import { type Context, noSignal, type RowValue, rowOf } from './program.ts'

/** The rows of one bucket by key, and what they name. */
interface BucketRows {
  readonly rows: ReadonlyMap<string, string>
  readonly values: readonly RowValue[]
  readonly faults: ReadonlyMap<string, Fault>
  /** Backends that its rules name. */
  readonly backends: ReadonlySet<string>
}

/** What HAProxy's maps shall have. */
export interface MapChanges {
  readonly set: ReadonlyMap<string, string>
  readonly remove: readonly string[]
}

export interface RoutingChange {
  readonly routes: MapChanges
  /** New texts; old ones go when no row names them any more. */
  readonly programs: MapChanges
  readonly splits: MapChanges
}

/** No request has such a path: HAProxy refuses it before a route is looked for. */
const possiblePath = /^[!"$->@-~]*$/

/**
 * The state of routes as rows, kept from one update to the next: an update costs what changed. Pure but for its memory;
 * what came out is not in force until `HaproxyEngine` has written it.
 */
export class Routing {
  readonly #table = new Table()
  readonly #buckets = new Map<string, BucketRows>()
  /** Everything that is wanted now. */
  readonly routes = new Map<string, string>()
  readonly programs = new Map<string, string>()
  readonly splits = new Map<string, string>()
  /** How many rows name a text, by `*hash` or `whash`. */
  readonly #uses = new Map<string, number>()
  #backends: EngineState['backends'] = new Map()
  readonly #aside: (rule: Rule) => boolean

  constructor(aside: (rule: Rule) => boolean) {
    this.#aside = aside
  }

  /** Faults of all rules, of now. */
  faults(): Map<string, Fault> {
    return new Map([...this.#buckets.values()].flatMap(({ faults }) => [...faults]))
  }

  /** `pool` must know every backend of the state by now; `moved` are those whose pool is another than before. */
  update(state: EngineState, pool: Context['pool'], moved: ReadonlySet<string>): RoutingChange {
    const changes = this.#table.update(state)
    const came = changedKeys(this.#backends, state.backends).filter(
      (id) => moved.has(id) || this.#backends.has(id) !== state.backends.has(id),
    )
    this.#backends = state.backends
    if (came.length > 0)
      for (const [key, { backends }] of this.#buckets)
        if (!changes.has(key) && came.some((id) => backends.has(id))) changes.set(key, this.#table.buckets.get(key))
    const context = { pool, aside: this.#aside }
    const before = { routes: new Map<string, string>(), texts: new Set<string>() }
    const set = new Map<string, string>()
    const programs = new Map<string, string>()
    const splits = new Map<string, string>()
    for (const [key, bucket] of changes) {
      const old = this.#buckets.get(key)
      for (const [row, value] of old?.rows ?? []) {
        before.routes.set(row, value)
        this.routes.delete(row)
      }
      for (const { value } of old?.values ?? []) {
        this.#uses.set(value, (this.#uses.get(value) ?? 1) - 1)
        before.texts.add(value)
      }
      this.#buckets.delete(key)
      if (bucket === undefined) continue
      const made = rowsOf(bucket, context)
      this.#buckets.set(key, made)
      for (const [row, value] of made.rows) {
        this.routes.set(row, value)
        set.set(row, value)
      }
      for (const value of made.values) {
        this.#uses.set(value.value, (this.#uses.get(value.value) ?? 0) + 1)
        for (const [name, text] of value.programs) this.#add(this.programs, programs, name, text)
        for (const [name, text] of value.splits) this.#add(this.splits, splits, name, text)
      }
    }
    for (const [row, value] of set) if (before.routes.get(row) === value) set.delete(row)
    const gone = [...before.texts].filter((value) => (this.#uses.get(value) ?? 0) === 0)
    return {
      routes: { set, remove: [...before.routes.keys()].filter((row) => !this.routes.has(row)) },
      programs: { set: programs, remove: this.#drop(this.programs, gone, '*') },
      splits: { set: splits, remove: this.#drop(this.splits, gone, 'w') },
    }
  }

  #add(all: Map<string, string>, added: Map<string, string>, name: string, text: string): void {
    if (all.has(name)) return
    all.set(name, text)
    added.set(name, text)
  }

  #drop(all: Map<string, string>, values: readonly string[], kind: '*' | 'w'): string[] {
    const dropped: string[] = []
    for (const value of values) {
      if (!value.startsWith(kind)) continue
      this.#uses.delete(value)
      if (kind === '*') {
        if (all.delete(value.slice(1))) dropped.push(value.slice(1))
        continue
      }
      for (const name of all.keys()) if (name.startsWith(`${value}|`)) dropped.push(name)
    }
    if (kind === 'w') for (const name of dropped) all.delete(name)
    return dropped
  }
}

/** Cells as rows, one for each address. A rule that cannot be written is a fault; its requests are answered 500. */
function rowsOf(bucket: Bucket, context: Context): BucketRows {
  const { listener, hostname, cells } = bucket
  const rows = new Map<string, string>()
  const values: RowValue[] = []
  const faults = new Map<string, Fault>()
  const backends = new Set<string>()
  const places = listener.addresses.map((address) => `${address}:${listener.port}|${hostname}\x02`)
  for (const cell of cells) {
    for (const { rule } of cell.candidates)
      for (const { backend } of rule.targets) if (backend !== undefined) backends.add(backend)
    const path = keyOf(cell)
    if (path === undefined) {
      for (const { rule, match } of cell.candidates)
        if (match.path?.value === cell.pattern.value)
          faults.set(rule.id, {
            of: 'rule',
            message: `no request can have the path ${JSON.stringify(cell.pattern.value)}`,
          })
      continue
    }
    const value = fitting(cell, rowOf(cell, context), faults)
    values.push(value)
    for (const place of places) rows.set(`${place}${path}`, value.value)
  }
  return { rows, values, faults, backends }
}

/** The last part of a row's key: a prefix ends in `/`, an exact path in what no path can have. */
function keyOf({ pattern: { type, value } }: Cell): string | undefined {
  if (!possiblePath.test(value) || (value !== '' && !value.startsWith('/'))) return undefined
  return type === 'exact' ? `${value}/\x01` : `${value}/`
}

/** A command of HAProxy's takes so much and silently no more. */
function fitting(cell: Cell, value: RowValue, faults: Map<string, Fault>): RowValue {
  const size = [...value.programs.values()].reduce((sum, text) => Math.max(sum, Buffer.byteLength(text)), 0)
  if (size < payloadBytesMax - 100) return value
  for (const { rule } of cell.candidates)
    faults.set(rule.id, {
      of: 'rule',
      message: `with the rules that share its path it needs ${size} bytes; the engine takes ${payloadBytesMax - 100}`,
    })
  return { value: '*refused', programs: new Map([['refused', `A,500,${noSignal},`]]), splits: new Map() }
}
