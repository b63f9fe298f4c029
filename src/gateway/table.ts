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

/** The cells of one listener and one hostname (`''`: every host). */
export interface Bucket {
  readonly listener: Listener
  readonly hostname: string
  readonly cells: readonly Cell[]
}

export const bucketKey = (listener: string, hostname: string): string => `${listener}\n${hostname}`

const everyRequest: Match = { headers: [], query: [] }

/**
 * Routes merged and put in the order that Gateway API wants (HTTPRouteRule, `matches`: exact path, regular expression,
 * longest prefix, method, most headers, most query parameters, oldest route, first rule), as cells of which the longest
 * pattern decides alone. A listener's requests never reach another's routes (listener isolation): a hostname belongs to
 * the most specific listener of its address and port.
 *
 * Keeps what it made: an update costs the buckets that the change touches.
 */
export class Table {
  #state: EngineState = { revision: -1, listeners: new Map(), routes: new Map(), backends: new Map() }
  readonly #buckets = new Map<string, Bucket>()
  /** Routes of each bucket. */
  readonly #members = new Map<string, Set<string>>()

  get buckets(): ReadonlyMap<string, Bucket> {
    return this.#buckets
  }

  /** Buckets that are other than before; undefined where one has gone. */
  update(state: EngineState): Map<string, Bucket | undefined> {
    const touched = new Set<string>()
    const before = this.#state
    for (const id of changedKeys(before.routes, state.routes)) {
      for (const key of bucketsOf(before.routes.get(id))) {
        this.#members.get(key)?.delete(id)
        touched.add(key)
      }
      for (const key of bucketsOf(state.routes.get(id))) {
        setOf(this.#members, key).add(id)
        touched.add(key)
      }
    }
    const listeners = changedKeys(before.listeners, state.listeners)
    if (listeners.length > 0) {
      // Who owns a hostname may have changed for every listener of the same port.
      const ports = new Set(listeners.flatMap((id) => [before, state].flatMap((s) => s.listeners.get(id)?.port ?? [])))
      const near = [...state.listeners.values()].filter(({ port }) => ports.has(port)).map(({ id }) => id)
      const ids = new Set([...listeners, ...near])
      for (const key of [...this.#members.keys(), ...this.#buckets.keys()])
        if (ids.has(key.slice(0, key.indexOf('\n')))) touched.add(key)
      for (const id of ids) touched.add(bucketKey(id, state.listeners.get(id)?.hostname ?? ''))
    }
    this.#state = state
    const peers = peersOf(state.listeners)
    const changes = new Map<string, Bucket | undefined>()
    for (const key of touched) {
      const bucket = this.#compile(key, peers)
      if (bucket === undefined && !this.#buckets.has(key)) continue
      if (bucket === undefined) this.#buckets.delete(key)
      else this.#buckets.set(key, bucket)
      changes.set(key, bucket)
    }
    return changes
  }

  #compile(key: string, peers: ReadonlyMap<string, readonly Listener[]>): Bucket | undefined {
    const split = key.indexOf('\n')
    const listener = this.#state.listeners.get(key.slice(0, split))
    const hostname = key.slice(split + 1)
    const members = this.#members.get(key)
    if (members?.size === 0) this.#members.delete(key)
    if (listener === undefined) return undefined
    const own = hostname === (listener.hostname ?? '')
    if (listener.protocol === 'TLS' && listener.tls?.mode !== 'terminate') return undefined
    if (!own && ownerOf(hostname, peers.get(listener.id) ?? []) !== listener.id) return undefined
    const routes = [...(members ?? [])].flatMap((id) => this.#state.routes.get(id) ?? [])
    if (!own && routes.length === 0) return undefined
    return { listener, hostname, cells: cellsOf(routes.flatMap(candidatesOf), own ? 'not-found' : 'next') }
  }
}

function candidatesOf(route: Route): Candidate[] {
  return route.rules.flatMap((rule) =>
    (rule.matches.length === 0 ? [everyRequest] : rule.matches).map((match) => ({
      route,
      rule,
      match,
      conditional:
        match.method !== undefined ||
        match.headers.length > 0 ||
        match.query.length > 0 ||
        match.path?.type === 'regex',
    })),
  )
}

/** A cell for every pattern that a path can have as its longest, and one for every path. Pure. */
export function cellsOf(candidates: readonly Candidate[], otherwise: Cell['otherwise']): Cell[] {
  const exact = new Map<string, Candidate[]>()
  const prefix = new Map<string, Candidate[]>()
  const regex: Candidate[] = []
  for (const candidate of candidates.toSorted(precedence)) {
    const { path } = candidate.match
    if (path?.type === 'regex') regex.push(candidate)
    else if (path?.type === 'exact') listOf(exact, path.value).push(candidate)
    else listOf(prefix, trimmed(path?.value ?? '/')).push(candidate)
  }
  if (regex.length > 0 || otherwise === 'not-found') listOf(prefix, '')
  const covering = (path: string): Candidate[] => ancestors(path).flatMap((above) => prefix.get(above) ?? [])
  const cell = (type: Pattern['type'], value: string, own: readonly Candidate[], covered: string): Cell => ({
    pattern: { type, value },
    candidates: untilSure([...own, ...regex, ...covering(covered)]),
    otherwise,
  })
  return [
    ...[...exact].map(([value, own]) => cell('exact', value, own, value)),
    ...[...prefix.keys()].map((value) => cell('prefix', value, [], value)),
  ]
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
