import type { EngineState, Listener, Match, Route, Rule } from './engine.ts'

/** One way to be matched: a rule's match, with what orders it among others. */
export interface Candidate {
  readonly route: Route
  readonly rule: Rule
  readonly match: Match
  /** Something beside host and path has to be looked at. */
  readonly conditional: boolean
}

/** Where a cell stands in the table. `prefix` has no `/` at its end: `''` is every path. */
export interface Pattern {
  readonly type: 'exact' | 'prefix'
  readonly value: string
}

/** What happens to requests whose longest pattern this is: the candidates in order, then `otherwise`. */
export interface Cell {
  readonly pattern: Pattern
  readonly candidates: readonly Candidate[]
  /** `next`: a wider hostname of the same listener decides. Never reached where the last candidate is unconditional. */
  readonly otherwise: 'next' | 'not-found'
}

/** What an update did to the cells of one listener and one hostname (`''`: every host). */
export interface BucketChange {
  readonly key: string
  /** Undefined: the bucket has gone. */
  readonly listener: Listener | undefined
  readonly hostname: string
  /** All cells are named: it is new, or its listener's addresses or port are. */
  readonly whole: boolean
  /** By a name for the pattern; undefined: gone. */
  readonly cells: ReadonlyMap<string, Cell | undefined>
}

const bucketKey = (listener: string, hostname: string): string => `${listener}\n${hostname}`

const everyRequest: Match = { headers: [], query: [] }

/**
 * Routes merged and put in the order that Gateway API wants (HTTPRouteRule, `matches`: exact path, regular expression,
 * longest prefix, method, most headers, most query parameters, oldest route, first rule), as cells of which the longest
 * pattern decides alone. A listener's requests never reach another's routes (listener isolation): a hostname belongs to
 * the most specific listener of its address and port.
 *
 * Keeps what it made: an update costs the cells that the change touches.
 */
export class Table {
  #state: EngineState = { revision: -1, listeners: new Map(), routes: new Map(), backends: new Map() }
  readonly #buckets = new Map<string, Bucket>()
  /** Ids of the routes of each bucket. */
  readonly #members = new Map<string, Set<string>>()
  #peers: ReadonlyMap<string, readonly Listener[]> = new Map()

  update(state: EngineState): BucketChange[] {
    const before = this.#state
    const touched = new Map<string, Touch>()
    const touch = (key: string): Touch => {
      const found = touched.get(key) ?? { whole: false, removed: [], added: [] }
      touched.set(key, found)
      return found
    }
    for (const id of changedKeys(before.routes, state.routes)) {
      const [old, next] = [before.routes.get(id), state.routes.get(id)]
      for (const key of bucketsOf(old)) {
        this.#members.get(key)?.delete(id)
        if (old !== undefined) touch(key).removed.push(old)
      }
      for (const key of bucketsOf(next)) {
        setOf(this.#members, key).add(id)
        if (next !== undefined) touch(key).added.push(next)
      }
    }
    this.#state = state
    const listeners = changedKeys(before.listeners, state.listeners)
    if (listeners.length > 0) {
      this.#peers = peersOf(state.listeners)
      for (const key of this.#near(listeners, before)) touch(key).whole = true
    }
    return [...touched].flatMap(([key, change]) => this.#change(key, change) ?? [])
  }

  /** Who owns a hostname may have changed for every listener of the same port. */
  #near(changed: readonly string[], before: EngineState): Set<string> {
    const both = [before, this.#state]
    const ports = new Set(changed.flatMap((id) => both.flatMap((s) => s.listeners.get(id)?.port ?? [])))
    const near = [...this.#state.listeners.values()].filter(({ port }) => ports.has(port)).map(({ id }) => id)
    const ids = new Set([...changed, ...near])
    const keys = [...this.#members.keys(), ...this.#buckets.keys()].filter((key) => ids.has(listenerOf(key)))
    return new Set([...keys, ...[...ids].map((id) => bucketKey(id, this.#state.listeners.get(id)?.hostname ?? ''))])
  }

  #change(key: string, { whole, removed, added }: Touch): BucketChange | undefined {
    const hostname = key.slice(key.indexOf('\n') + 1)
    const known = this.#buckets.get(key)
    const members = this.#members.get(key)
    if (members?.size === 0) this.#members.delete(key)
    const listener = this.#listenerFor(key, hostname, members?.size ?? 0)
    if (listener === undefined) {
      if (!this.#buckets.delete(key)) return undefined
      return { key, listener, hostname, whole: true, cells: new Map() }
    }
    if (known !== undefined && !whole) return { key, listener, hostname, whole, cells: known.change(removed, added) }
    const otherwise = hostname === (listener.hostname ?? '') ? 'not-found' : 'next'
    const bucket = new Bucket(otherwise)
    this.#buckets.set(key, bucket)
    const routes = [...(members ?? [])].flatMap((id) => this.#state.routes.get(id) ?? [])
    return { key, listener, hostname, whole: true, cells: bucket.change([], routes) }
  }

  /** The bucket's listener, where it is to have one at all. */
  #listenerFor(key: string, hostname: string, members: number): Listener | undefined {
    const listener = this.#state.listeners.get(listenerOf(key))
    if (listener === undefined) return undefined
    if (listener.protocol === 'TLS' && listener.tls?.mode !== 'terminate') return undefined
    if (hostname === (listener.hostname ?? '')) return listener
    const owner = ownerOf(hostname, this.#peers.get(listener.id) ?? [])
    return members > 0 && owner === listener.id ? listener : undefined
  }
}

/** What happened to a bucket. */
interface Touch {
  whole: boolean
  readonly removed: Route[]
  readonly added: Route[]
}

const listenerOf = (key: string): string => key.slice(0, key.indexOf('\n'))

/** Candidates by pattern, and the cells that they come to. */
class Bucket {
  readonly #otherwise: Cell['otherwise']
  readonly #exact = new Map<string, Candidate[]>()
  readonly #prefix = new Map<string, Candidate[]>()
  #regex: Candidate[] = []
  readonly cells = new Map<string, Cell>()

  constructor(otherwise: Cell['otherwise']) {
    this.#otherwise = otherwise
  }

  /** Cells that are other than before. */
  change(removed: readonly Route[], added: readonly Route[]): Map<string, Cell | undefined> {
    const exact = new Set<string>()
    const prefix = new Set<string>()
    const gone = new Set(removed)
    let all = this.cells.size === 0
    const look = ({ match: { path } }: Candidate): void => {
      if (path?.type === 'regex') all = true
      else if (path?.type === 'exact') exact.add(path.value)
      else prefix.add(trimmed(path?.value ?? '/'))
    }
    for (const candidate of removed.flatMap(candidatesOf)) look(candidate)
    const came = added.flatMap(candidatesOf)
    for (const candidate of came) look(candidate)
    if (all) this.#regex = this.#regex.filter((c) => !gone.has(c.route))
    for (const value of exact) without(this.#exact, value, gone)
    for (const value of prefix) without(this.#prefix, value, gone)
    for (const candidate of came) {
      const { path } = candidate.match
      if (path?.type === 'regex') this.#regex.push(candidate)
      else if (path?.type === 'exact') listOf(this.#exact, path.value).push(candidate)
      else listOf(this.#prefix, trimmed(path?.value ?? '/')).push(candidate)
    }
    if (all) this.#regex.sort(precedence)
    for (const value of exact) this.#exact.get(value)?.sort(precedence)
    for (const value of prefix) this.#prefix.get(value)?.sort(precedence)
    return this.#cells(all ? undefined : { exact, prefix })
  }

  #cells(of: { readonly exact: ReadonlySet<string>; readonly prefix: ReadonlySet<string> } | undefined) {
    const root = this.#regex.length > 0 || this.#otherwise === 'not-found'
    const changed = new Map<string, Cell | undefined>()
    const write = (type: Pattern['type'], value: string, present: boolean): void => {
      const name = `${type} ${value}`
      const cell = present ? this.#cell(type, value) : undefined
      if (cell === undefined) {
        if (this.cells.delete(name)) changed.set(name, undefined)
      } else {
        this.cells.set(name, cell)
        changed.set(name, cell)
      }
    }
    const has = (value: string): boolean => this.#prefix.has(value) || (value === '' && root)
    if (of === undefined) {
      for (const { pattern } of [...this.cells.values()])
        write(
          pattern.type,
          pattern.value,
          pattern.type === 'exact' ? this.#exact.has(pattern.value) : has(pattern.value),
        )
      for (const value of this.#exact.keys()) write('exact', value, true)
      for (const value of this.#prefix.keys()) write('prefix', value, true)
      if (root) write('prefix', '', true)
      return changed
    }
    for (const value of of.exact) write('exact', value, this.#exact.has(value))
    for (const value of of.prefix) write('prefix', value, has(value))
    // What is below a prefix falls back to it.
    const below = (path: string): boolean => ancestors(path).some((above) => of.prefix.has(above))
    if (of.prefix.size > 0)
      for (const [name, { pattern }] of this.cells) {
        if (changed.has(name) || !below(pattern.value)) continue
        write(pattern.type, pattern.value, true)
      }
    return changed
  }

  #cell(type: Pattern['type'], value: string): Cell {
    const own = type === 'exact' ? (this.#exact.get(value) ?? []) : []
    const covering = ancestors(value).flatMap((above) => this.#prefix.get(above) ?? [])
    return {
      pattern: { type, value },
      candidates: untilSure([...own, ...this.#regex, ...covering]),
      otherwise: this.#otherwise,
    }
  }
}

function without(lists: Map<string, Candidate[]>, value: string, gone: ReadonlySet<Route>): void {
  const left = lists.get(value)?.filter((c) => !gone.has(c.route))
  if (left === undefined) return
  if (left.length === 0) lists.delete(value)
  else lists.set(value, left)
}

const madeBefore = new WeakMap<Route, readonly Candidate[]>()

function candidatesOf(route: Route): readonly Candidate[] {
  const known = madeBefore.get(route)
  if (known !== undefined) return known
  const made = route.rules.flatMap((rule) =>
    (rule.matches.length === 0 ? [everyRequest] : rule.matches).map((match) => ({
      ...{ route, rule, match },
      conditional:
        match.method !== undefined ||
        match.headers.length > 0 ||
        match.query.length > 0 ||
        match.path?.type === 'regex',
    })),
  )
  madeBefore.set(route, made)
  return made
}

/** Those behind the first that always matches are never asked. */
function untilSure(candidates: readonly Candidate[]): Candidate[] {
  const sure = candidates.findIndex((c) => !c.conditional)
  return sure < 0 ? [...candidates] : candidates.slice(0, sure + 1)
}

/** `/a/b` → `/a/b`, `/a`, ``: the prefixes of whole elements that cover it, longest first. */
function ancestors(path: string): string[] {
  const found = [trimmed(path)]
  for (let at = path.lastIndexOf('/'); at >= 0; at = path.lastIndexOf('/', at - 1)) {
    const above = trimmed(path.slice(0, at))
    if (above !== found.at(-1)) found.push(above)
    if (at === 0) break
  }
  return found
}

/** A prefix means the same with and without its last slash. */
export const trimmed = (prefix: string): string => (prefix.endsWith('/') ? prefix.slice(0, -1) : prefix)

/** Of candidates of equal pattern: which is asked first. */
function precedence(a: Candidate, b: Candidate): number {
  const method = Number(b.match.method !== undefined) - Number(a.match.method !== undefined)
  if (method !== 0) return method
  const headers = b.match.headers.length - a.match.headers.length
  if (headers !== 0) return headers
  const query = b.match.query.length - a.match.query.length
  if (query !== 0) return query
  if (a.route !== b.route) return a.route.age < b.route.age ? -1 : a.route.age > b.route.age ? 1 : 0
  // Sorting is stable, and rules came in their order.
  return 0
}

/** Listeners that share an address and port with each, itself included. */
function peersOf(listeners: ReadonlyMap<string, Listener>): Map<string, readonly Listener[]> {
  const bySocket = new Map<string, Listener[]>()
  for (const listener of listeners.values())
    for (const address of listener.addresses) listOf(bySocket, `${address} ${listener.port}`).push(listener)
  return new Map(
    [...listeners.values()].map((l) => [
      l.id,
      [...new Set(l.addresses.flatMap((address) => bySocket.get(`${address} ${l.port}`) ?? []))],
    ]),
  )
}

/** Id of the listener that has the most specific hostname for it. */
function ownerOf(hostname: string, listeners: readonly Listener[]): string | undefined {
  let best: Listener | undefined
  for (const listener of listeners) {
    if (!covers(listener.hostname ?? '', hostname)) continue
    if (best === undefined || specificity(listener) > specificity(best)) best = listener
  }
  return best?.id
}

const specificity = ({ hostname = '' }: Listener): number =>
  hostname === '' ? 0 : hostname.startsWith('*.') ? hostname.length : 1000 + hostname.length

/** `*.example.com` covers `a.example.com`, `a.b.example.com` and `*.b.example.com`, not `example.com`. */
export function covers(pattern: string, hostname: string): boolean {
  if (pattern === '' || pattern === hostname) return true
  if (!pattern.startsWith('*.') || hostname === '') return false
  return hostname.endsWith(pattern.slice(1))
}

const bucketsOf = (route: Route | undefined): string[] =>
  route === undefined || route.kind === 'TLS'
    ? []
    : route.attachments.flatMap((a) => a.hostnames.map((hostname) => bucketKey(a.listener, hostname)))

/** Keys whose values are not the same object, or that only one has. */
export function changedKeys<V>(before: ReadonlyMap<string, V>, after: ReadonlyMap<string, V>): string[] {
  if (before === after) return []
  const changed: string[] = []
  for (const [key, value] of after) if (before.get(key) !== value) changed.push(key)
  for (const key of before.keys()) if (!after.has(key)) changed.push(key)
  return changed
}

function listOf<K, V>(map: Map<K, V[]>, key: K): V[] {
  const found = map.get(key)
  if (found !== undefined) return found
  const made: V[] = []
  map.set(key, made)
  return made
}

function setOf<K, V>(map: Map<K, Set<V>>, key: K): Set<V> {
  const found = map.get(key)
  if (found !== undefined) return found
  const made = new Set<V>()
  map.set(key, made)
  return made
}
