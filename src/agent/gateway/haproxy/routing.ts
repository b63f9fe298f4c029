import type { EngineState, Fault, Listener, Rule } from '#gateway/engine.ts'
import { type Cell, changedKeys, Table } from '#gateway/table.ts'
import { payloadBytesMax } from './cli.ts'
import { atOf, placesOf } from './places.ts'
import { type Context, noSignal, type RowValue, rowOf } from './program.ts'

/** What one cell came to. */
interface CellRows {
  readonly cell: Cell
  /** A row for each address. */
  readonly keys: readonly string[]
  readonly value: RowValue
  readonly faults: ReadonlyMap<string, Fault>
}

interface BucketRows {
  places: readonly string[]
  readonly cells: Map<string, CellRows>
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
  readonly #faulty = new Set<CellRows>()
  /** Everything that is wanted now. */
  readonly routes = new Map<string, string>()
  places: ReadonlyMap<string, string> = new Map()
  readonly programs = new Map<string, string>()
  readonly splits = new Map<string, string>()
  /** How many cells name a text, by `*hash` or `whash`, with the names of its rows. */
  readonly #uses = new Map<string, { count: number; readonly names: readonly string[] }>()
  #backends: EngineState['backends'] = new Map()
  #listeners: EngineState['listeners'] | undefined
  readonly #aside: (rule: Rule) => boolean

  constructor(aside: (rule: Rule) => boolean) {
    this.#aside = aside
  }

  /** Faults of all rules, of now. */
  faults(): Map<string, Fault> {
    return new Map([...this.#faulty].flatMap(({ faults }) => [...faults]))
  }

  /** `pool` must know every backend of the state by now; `moved` are those whose pool is another than before. */
  update(state: EngineState, pool: Context['pool'], moved: ReadonlySet<string>): RoutingChange {
    const work = new Work(this.routes, this.programs, this.splits)
    const context = { pool, aside: this.#aside }
    if (this.#listeners !== state.listeners) {
      this.#listeners = state.listeners
      this.places = placesOf(state.listeners.values())
    }
    const changes = this.#table.update(state)
    // First what goes: a hostname may move from one listener's bucket to another's, and its rows with it.
    for (const { key, listener, hostname, whole, cells } of changes) {
      const bucket = this.#buckets.get(key) ?? { places: [], cells: new Map<string, CellRows>() }
      for (const name of whole ? [...bucket.cells.keys()] : cells.keys()) this.#remove(work, bucket, name)
      if (whole) bucket.places = this.#placesFor(listener).map((place) => `${place}${hostname}\x02`)
      if (listener === undefined) this.#buckets.delete(key)
      else this.#buckets.set(key, bucket)
    }
    for (const { key, cells } of changes) {
      const bucket = this.#buckets.get(key)
      for (const [name, cell] of cells)
        if (bucket !== undefined && cell !== undefined) this.#add(work, bucket, name, cell, context)
    }
    this.#repoint(work, state, context, moved)
    const result = work.result((value) => this.#uses.get(value))
    for (const value of work.dropped) if (this.#uses.get(value)?.count === 0) this.#uses.delete(value)
    return result
  }

  /** Each name once. The table names whole every bucket whose listener's port has a listener that changed. */
  #placesFor(listener: Listener | undefined): string[] {
    const { addresses = [], port = 0 } = listener ?? {}
    return [...new Set(addresses.flatMap((address) => this.places.get(atOf(address, port)) ?? []))]
  }

  /** Rules of backends that came, went or have another pool are written again, though they themselves are the same. */
  #repoint(work: Work, state: EngineState, context: Context, moved: ReadonlySet<string>): void {
    const before = this.#backends
    this.#backends = state.backends
    const other = new Set(
      changedKeys(before, state.backends).filter((id) => moved.has(id) || before.has(id) !== state.backends.has(id)),
    )
    if (other.size === 0) return
    const names = ({ candidates }: Cell): boolean =>
      candidates.some(({ rule }) => rule.targets.some((t) => t.backend !== undefined && other.has(t.backend)))
    for (const bucket of this.#buckets.values())
      for (const [name, { cell }] of [...bucket.cells]) {
        if (!names(cell)) continue
        this.#remove(work, bucket, name)
        this.#add(work, bucket, name, cell, context)
      }
  }

  #remove(work: Work, bucket: BucketRows, name: string): void {
    const known = bucket.cells.get(name)
    if (known === undefined) return
    bucket.cells.delete(name)
    this.#faulty.delete(known)
    for (const key of known.keys) work.remove(key)
    const use = this.#uses.get(known.value.value)
    if (use === undefined) return
    use.count--
    work.dropped.add(known.value.value)
  }

  #add(work: Work, bucket: BucketRows, name: string, cell: Cell, context: Context): void {
    const faults = new Map<string, Fault>()
    const path = keyOf(cell)
    if (path === undefined)
      for (const { rule, match } of cell.candidates)
        if (match.path?.value === cell.pattern.value)
          faults.set(rule.id, {
            of: 'rule',
            message: `no request can have the path ${JSON.stringify(cell.pattern.value)}`,
          })
    for (const { rule } of cell.candidates)
      if (rule.session !== undefined)
        faults.set(rule.id, {
          of: 'rule',
          message: 'session persistence is not kept by this engine; requests are spread',
        })
    const value = path === undefined ? nothing : fitting(cell, rowOf(cell, context), faults)
    const made = {
      cell,
      keys: path === undefined ? [] : bucket.places.map((place) => `${place}${path}`),
      value,
      faults,
    }
    bucket.cells.set(name, made)
    if (faults.size > 0) this.#faulty.add(made)
    for (const key of made.keys) work.set(key, value.value)
    if (value.programs.size === 0 && value.splits.size === 0) return
    const use = this.#uses.get(value.value)
    if (use === undefined)
      this.#uses.set(value.value, { count: 1, names: [...value.programs.keys(), ...value.splits.keys()] })
    else use.count++
    for (const [text, content] of value.programs) work.add('programs', text, content)
    for (const [text, content] of value.splits) work.add('splits', text, content)
  }
}

const nothing: RowValue = { value: '', programs: new Map(), splits: new Map() }

/** The changes of one update, collected while the tables of what is wanted are kept. */
class Work {
  readonly #all: {
    readonly routes: Map<string, string>
    readonly programs: Map<string, string>
    readonly splits: Map<string, string>
  }
  /** Rows of before, as far as they were touched. */
  readonly #before = new Map<string, string | undefined>()
  readonly #added = { programs: new Map<string, string>(), splits: new Map<string, string>() }
  /** Values that a cell stopped using. */
  readonly dropped = new Set<string>()

  constructor(routes: Map<string, string>, programs: Map<string, string>, splits: Map<string, string>) {
    this.#all = { routes, programs, splits }
  }

  set(key: string, value: string): void {
    this.#remember(key)
    this.#all.routes.set(key, value)
  }

  remove(key: string): void {
    this.#remember(key)
    this.#all.routes.delete(key)
  }

  #remember(key: string): void {
    if (!this.#before.has(key)) this.#before.set(key, this.#all.routes.get(key))
  }

  add(kind: 'programs' | 'splits', name: string, text: string): void {
    if (this.#all[kind].has(name)) return
    this.#all[kind].set(name, text)
    this.#added[kind].set(name, text)
  }

  result(
    use: (value: string) => { readonly count: number; readonly names: readonly string[] } | undefined,
  ): RoutingChange {
    const gone = { programs: [] as string[], splits: [] as string[] }
    for (const value of this.dropped) {
      const known = use(value)
      if (known === undefined || known.count > 0) continue
      const kind = value.startsWith('*') ? 'programs' : 'splits'
      for (const name of known.names) if (this.#all[kind].delete(name)) gone[kind].push(name)
    }
    const set = new Map<string, string>()
    const remove: string[] = []
    for (const [key, before] of this.#before) {
      const now = this.#all.routes.get(key)
      if (now === undefined) {
        if (before !== undefined) remove.push(key)
      } else if (now !== before) set.set(key, now)
    }
    return {
      routes: { set, remove },
      programs: { set: this.#added.programs, remove: gone.programs },
      splits: { set: this.#added.splits, remove: gone.splits },
    }
  }
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
