import { badRequest, expired, fieldError, invalid, StatusError, timeout } from '#api/meta/status.ts'
import { Compacted, type Store } from '#store/store.ts'
import type { Encoding, ListMetadata } from './encoding.ts'
import { Item } from './item.ts'
import type { Selection } from './select.ts'
import type { Served } from './served.ts'

export interface ListQuery {
  readonly limit: number
  readonly continue: string
  readonly resourceVersion: string
  readonly resourceVersionMatch: string
}

/** Where a list goes on: the revision of its first page, and the first object wanted. */
interface Position {
  /** -1: whatever is newest; the list is not consistent any longer. */
  readonly revision: number
  readonly start: readonly [namespace: string, name: string]
}

/** A list as the pieces of its JSON, all of one revision. */
export async function listObjects(
  served: Served,
  store: Store,
  selection: Selection,
  query: ListQuery,
  encoding: Encoding,
): Promise<Buffer[]> {
  const { collection } = served
  const from = query.continue === '' ? undefined : parseContinue(query)
  const wanted = from === undefined ? wantedRevision(query, store.revision) : from.revision
  const at = wanted > 0 ? wanted : store.revision
  // A list from the cache at "any" revision has no pages.
  const limit = from === undefined && query.resourceVersion === '0' ? 0 : query.limit
  const present = at === store.revision || at >= collection.changedAt
  if (present && from === undefined && limit === 0 && selection.all) {
    const { head, tail } = encoding.list({ resourceVersion: String(at) })
    if (encoding.plain)
      return [Buffer.from(head), ...joinedPieces(collection.joined(selection.namespace)), Buffer.from(tail)]
  }
  const items = present ? candidates(served, selection, from?.start) : await itemsAt(served, store, selection, at, from)
  return page(items, selection, limit, at, encoding, () => remaining(served, selection, present))
}

function* joinedPieces(pieces: Iterable<Buffer>): Generator<Buffer, void> {
  let first = true
  for (const piece of pieces) {
    if (!first) yield comma
    first = false
    yield piece
  }
}
const comma = Buffer.from(',')

function candidates(served: Served, selection: Selection, start?: readonly [string, string]): Iterable<Item> {
  const { collection } = served
  if (selection.name === undefined) return collection.items(selection.namespace, start)
  if (selection.namespace === '' && collection.namespaced) return collection.items('', start)
  const item = collection.get(selection.namespace, selection.name)
  return item === undefined ? [] : [item]
}

/** How many objects are left after a page; told only where nothing is selected, as upstream does. */
function remaining(served: Served, selection: Selection, present: boolean): number | undefined {
  return selection.all && present ? served.collection.count(selection.namespace) : undefined
}

async function itemsAt(
  served: Served,
  store: Store,
  selection: Selection,
  at: number,
  from: Position | undefined,
): Promise<Item[]> {
  const { collection } = served
  const prefix = selection.namespace === '' ? collection.prefix : `${collection.prefix}${selection.namespace}/`
  try {
    const start = from && collection.keyOf(...from.start)
    const { entries } = await store.range({ prefix, at, ...(start === undefined ? {} : { start }) })
    return entries.map(({ key, value, revision }) => Item.stored(...collection.parseKey(key), revision, value))
  } catch (error) {
    if (error instanceof Compacted) throw from === undefined ? tooOld(at, error) : expiredContinue(from)
    throw error
  }
}

function page(
  items: Iterable<Item>,
  selection: Selection,
  limit: number,
  at: number,
  encoding: Encoding,
  total: () => number | undefined,
): Buffer[] {
  const shown: Buffer[] = []
  let next: Item | undefined
  let after = 0
  for (const item of items) {
    if (next !== undefined) {
      after++
      continue
    }
    if (!selection.matches(item)) continue
    if (limit > 0 && shown.length >= limit) {
      next = item
      after = 1
      if (!selection.all) break
      continue
    }
    shown.push(encoding.element(item))
  }
  const metadata: ListMetadata = {
    resourceVersion: String(at),
    ...(next === undefined ? {} : { continue: formatContinue({ revision: at, start: [next.namespace, next.name] }) }),
    ...(next !== undefined && total() !== undefined ? { remainingItemCount: after } : {}),
  }
  const { head, tail } = encoding.list(metadata)
  const pieces: Buffer[] = []
  // Small pieces are put together, so that a long list is neither one huge buffer nor ten thousand writes.
  let pending: Buffer[] = [Buffer.from(head)]
  let size = 0
  for (const [i, one] of shown.entries()) {
    if (i > 0) pending.push(comma)
    pending.push(one)
    size += one.length
    if (size < pieceBytes) continue
    pieces.push(Buffer.concat(pending))
    pending = []
    size = 0
  }
  pending.push(Buffer.from(tail))
  pieces.push(Buffer.concat(pending))
  return pieces
}
const pieceBytes = 128 * 1024

/** The revision that a first page must be of; 0: the newest will do (Kubernetes API concepts, resource versions: lists). */
function wantedRevision(query: ListQuery, newest: number): number {
  const { resourceVersion: text, resourceVersionMatch: match, limit } = query
  const wanted = parseRevision(text)
  if (match !== '') checkMatch(match, text)
  if (wanted > newest) throw tooLargeRevision(wanted, newest)
  const exact = match === 'Exact' || (match === '' && limit > 0 && wanted > 0)
  return exact ? wanted : 0
}

function checkMatch(match: string, version: string): void {
  const path = 'resourceVersionMatch'
  if (match !== 'Exact' && match !== 'NotOlderThan') {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      fieldError.notSupported(path, match, ['Exact', 'NotOlderThan', '']),
    ])
  }
  if (version === '') {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      fieldError.forbidden(path, 'resourceVersionMatch is forbidden unless resourceVersion is provided'),
    ])
  }
  if (match === 'Exact' && version === '0') {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      fieldError.forbidden(path, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'),
    ])
  }
}

/** 0 for none. Throws 400. */
export function parseRevision(text: string): number {
  if (text === '') return 0
  if (!/^\d{1,15}$/.test(text)) {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      fieldError.invalid('resourceVersion', text, `strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`),
    ])
  }
  return Number(text)
}

export function tooLargeRevision(wanted: number, newest: number): StatusError {
  return timeout(`Too large resource version: ${wanted}, current: ${newest}`, 1, [
    { reason: 'ResourceVersionTooLarge', message: 'Too large resource version' },
  ])
}

const tooOld = (wanted: number, { compactedRevision }: Compacted): StatusError =>
  expired(`too old resource version: ${wanted} (${compactedRevision})`)

const tokenVersion = 'meta.k8s.io/v1'

function formatContinue({ revision, start }: Position): string {
  return Buffer.from(JSON.stringify({ v: tokenVersion, rv: revision, start: start.join('/') })).toString('base64url')
}

function parseContinue({ continue: token, resourceVersion, resourceVersionMatch }: ListQuery): Position {
  if (resourceVersion !== '' && resourceVersion !== '0') {
    throw badRequest('specifying resource version is not allowed when using continue')
  }
  if (resourceVersionMatch !== '') {
    throw invalid('meta.k8s.io', 'ListOptions', '', [
      fieldError.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden when continue is provided'),
    ])
  }
  const bad = (why: string): StatusError => badRequest(`continue key is not valid: ${why}`)
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(token, 'base64url').toString())
  } catch {
    throw bad('it cannot be read')
  }
  const { v, rv, start } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  if (v !== tokenVersion) throw bad('server does not recognize this encoded version')
  if (typeof rv !== 'number' || !Number.isSafeInteger(rv) || rv < -1 || typeof start !== 'string') {
    throw bad('incorrect encoded start resourceVersion (version meta.k8s.io/v1)')
  }
  const slash = start.indexOf('/')
  if (slash < 0) throw bad('encoded start key empty (version meta.k8s.io/v1)')
  return { revision: rv, start: [start.slice(0, slash), start.slice(slash + 1)] }
}

/** The rest of the list can still be had, but of the present, not of the revision that the list began with. */
function expiredContinue({ start }: Position): StatusError {
  const error = expired(
    'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.',
  )
  const metadata = { continue: formatContinue({ revision: -1, start }) }
  return new StatusError(Object.assign({ ...error.status }, { metadata }))
}
