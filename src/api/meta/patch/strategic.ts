import { type Field, findMessage, type Message } from '../../schema/table.ts'
import { badRequest, StatusError } from '../status.ts'
import { isObject, type JsonObject, setOwn } from './merge.ts'

/**
 * Strategic merge patch: a merge patch whose lists are merged by key where the field table says so, with directives
 * (`$patch`, `$retainKeys`, `$setElementOrder/f`, `$deleteFromPrimitiveList/f`). Behaviour as upstream's
 * apimachinery util/strategicpatch; order of merged lists included, because kubectl apply relies on it.
 */

/** A patch that reads well and does not fit the object. */
const patchRejected = (message: string): StatusError =>
  new StatusError({ status: 'Failure', code: 422, reason: 'Invalid', message, details: {} })

const directive = '$patch'
const retainKeys = '$retainKeys'
const setElementOrder = '$setElementOrder/'
const deleteFromPrimitiveList = '$deleteFromPrimitiveList/'

/**
 * The patched object; neither argument is changed. `message` is the kind's name in the field table.
 * Throws 400 for a patch that is malformed, 422 for one that does not fit the object.
 */
export function applyStrategicPatch(original: JsonObject, patch: unknown, message: string): JsonObject {
  if (!isObject(patch)) throw badRequest('invalid JSON document')
  return mergeMap(structuredClone(original), structuredClone(patch), findMessage(message))
}

/** Both arguments may be changed. */
function mergeMap(original: JsonObject, patch: JsonObject, schema: Message | undefined): JsonObject {
  if (Object.hasOwn(patch, directive)) return wholeMap(patch)
  applyRetainKeys(original, patch)
  applyElementOrder(original, patch, schema)
  for (const [patchKey, value] of Object.entries(patch)) {
    const isDeletion = patchKey.startsWith(deleteFromPrimitiveList)
    const key = isDeletion ? patchKey.slice(deleteFromPrimitiveList.length) : patchKey
    if (value === null) {
      delete original[key]
      continue
    }
    const old = Object.hasOwn(original, key) ? original[key] : undefined
    const sameShape = isObject(old) ? isObject(value) : Array.isArray(old) && Array.isArray(value)
    if (!sameShape) {
      if (!isDeletion) put(original, key, withoutDirectives(withoutNulls(value)))
      continue
    }
    const field = schema?.fields.get(key)
    if (isObject(old) && isObject(value)) {
      setOwn(original, key, field?.patchStrategy === 'replace' ? value : mergeMap(old, value, schemaOf(field)))
    } else if (Array.isArray(old) && Array.isArray(value)) {
      if (isDeletion) setOwn(original, key, withoutValues(old, value))
      else if (!merges(field)) setOwn(original, key, value)
      else setOwn(original, key, mergeList(old, value, field))
    }
  }
  return original
}

const merges = (field: Field | undefined): boolean => field?.patchStrategy?.split(',').includes('merge') ?? false

function schemaOf(field: Field | undefined): Message | undefined {
  // A map of messages has no fields of its own; a key of it must not be looked up in the message.
  return field?.message === undefined || field.map ? undefined : findMessage(field.message)
}

function put(target: JsonObject, key: string, kept: { readonly value: unknown } | undefined): void {
  if (kept === undefined) delete target[key]
  else setOwn(target, key, kept.value)
}

/** `$patch` inside a map speaks for the whole map. */
function wholeMap(patch: JsonObject): JsonObject {
  const { [directive]: what, ...rest } = patch
  if (what === 'replace') return rest
  if (what === 'delete') return {}
  throw patchRejected(`unknown patch type: ${String(what)} in map: ${JSON.stringify(patch)}`)
}

function applyRetainKeys(original: JsonObject, patch: JsonObject): void {
  if (!Object.hasOwn(patch, retainKeys)) return
  const list = patch[retainKeys]
  delete patch[retainKeys]
  if (!Array.isArray(list)) throw badRequest('invalid patch format of retainKeys')
  const kept = new Set(list)
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || key.startsWith(deleteFromPrimitiveList) || key.startsWith(setElementOrder)) continue
    if (!kept.has(key)) throw badRequest('invalid patch format of retainKeys')
  }
  for (const key of Object.keys(original)) if (!kept.has(key)) delete original[key]
}

/** Merges the lists that come with an order, and takes them out of the patch. */
function applyElementOrder(original: JsonObject, patch: JsonObject, schema: Message | undefined): void {
  for (const [patchKey, order] of Object.entries(patch)) {
    if (!patchKey.startsWith(setElementOrder)) continue
    delete patch[patchKey]
    const key = patchKey.slice(setElementOrder.length)
    const field = schema?.fields.get(key)
    const live = original[key]
    const changes = patch[key]
    delete patch[key]
    if (!Array.isArray(order)) throw badRequest('invalid patch format of setElementOrder list')
    if (live !== undefined && !Array.isArray(live)) throw patchRejected(`${key} is not a list`)
    if (changes !== undefined && changes !== null && !Array.isArray(changes))
      throw patchRejected(`${key} is not a list`)
    if (changes === null) {
      delete original[key]
      continue
    }
    const mergeKey = field?.patchMergeKey
    if (changes !== undefined) checkOrder(changes, order, mergeKey)
    let merged: unknown[]
    if (live === undefined && changes === undefined) continue
    if (changes === undefined) merged = live ?? []
    else if (live === undefined) merged = listOf(withoutDirectives(withoutNulls(changes))?.value)
    else merged = merges(field) ? mergeList(live, changes, field) : changes
    setOwn(original, key, ordered(merged, order, live ?? [], mergeKey))
  }
}

const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])

/** What the patch adds or changes must stand in its own order list, in that order. */
function checkOrder(changes: readonly unknown[], order: readonly unknown[], mergeKey: string | undefined): void {
  let position = 0
  for (const item of changes) {
    if (isObject(item) && Object.hasOwn(item, directive)) continue
    const identity = identityOf(item, mergeKey)
    while (position < order.length && identityOf(order[position], mergeKey) !== identity) position++
    if (position >= order.length) throw badRequest('invalid patch format of setElementOrder list')
    position++
  }
}

function mergeList(original: readonly unknown[], patch: readonly unknown[], field: Field | undefined): unknown[] {
  const sample = original[0] ?? patch[0]
  if (Array.isArray(sample)) throw patchRejected('lists of lists are not supported')
  if (!isObject(sample)) return ordered([...new Set([...original, ...patch])], patch, original, undefined)
  const mergeKey = field?.patchMergeKey
  if (mergeKey === undefined) throw patchRejected(`cannot merge lists without merge key for ${field?.name ?? 'list'}`)
  const schema = schemaOf(field)

  let base = [...original]
  let replaced = false
  const changes: JsonObject[] = []
  for (const item of patch) {
    if (!isObject(item)) throw patchRejected(`expected a map in the list ${field?.name ?? ''}`)
    const what = item[directive]
    if (what === undefined) changes.push(item)
    else if (what === 'replace') replaced = true
    else if (what === 'delete') {
      const identity = keyOf(item, mergeKey)
      base = base.filter((old) => identityOf(old, mergeKey) !== identity)
    } else if (what === 'merge') throw patchRejected('merging lists cannot yet be specified in the patch')
    else throw patchRejected(`unknown patch type: ${String(what)} in map: ${JSON.stringify(item)}`)
  }
  // A replaced list is the patch's other elements, and nothing of the old list.
  if (replaced) return changes.map((item) => withoutNulls(item))
  const merged = [...base]
  for (const item of changes) {
    const identity = keyOf(item, mergeKey)
    const at = merged.findIndex((old) => identityOf(old, mergeKey) === identity)
    const old = at < 0 ? undefined : merged[at]
    if (isObject(old)) merged[at] = mergeMap(old, item, schema)
    else merged.push(withoutDirectives(withoutNulls(item))?.value)
  }
  return ordered(merged, changes, original, mergeKey)
}

/** The merge key's value; an element without one cannot be merged. */
function keyOf(item: JsonObject, mergeKey: string): unknown {
  if (!Object.hasOwn(item, mergeKey)) {
    throw patchRejected(`map: ${JSON.stringify(item)} does not contain declared merge key: ${mergeKey}`)
  }
  return item[mergeKey]
}

const identityOf = (item: unknown, mergeKey: string | undefined): unknown =>
  mergeKey === undefined ? item : isObject(item) ? item[mergeKey] : undefined

/**
 * Elements named by `order` come in that order; the others keep their order in the live list and their place before
 * the first ordered element that stood behind them there.
 */
function ordered(
  items: readonly unknown[],
  order: readonly unknown[],
  live: readonly unknown[],
  mergeKey: string | undefined,
): unknown[] {
  const rank = ranks(order, mergeKey)
  const liveRank = ranks(live, mergeKey)
  const rankIn = (map: ReadonlyMap<unknown, number>, item: unknown): number =>
    map.get(identityOf(item, mergeKey)) ?? Number.MAX_SAFE_INTEGER
  const named = items.filter((item) => rank.has(identityOf(item, mergeKey)))
  const others = items.filter((item) => !rank.has(identityOf(item, mergeKey)))
  named.sort((a, b) => rankIn(rank, a) - rankIn(rank, b))
  others.sort((a, b) => rankIn(liveRank, a) - rankIn(liveRank, b))

  const result: unknown[] = []
  let i = 0
  let j = 0
  while (i < others.length && j < named.length) {
    const other = liveRank.get(identityOf(others[i], mergeKey))
    const next = liveRank.get(identityOf(named[j], mergeKey))
    const before = other !== undefined && next !== undefined && other < next
    result.push(before ? others[i++] : named[j++])
  }
  return [...result, ...others.slice(i), ...named.slice(j)]
}

function ranks(items: readonly unknown[], mergeKey: string | undefined): Map<unknown, number> {
  const map = new Map<unknown, number>()
  for (const [i, item] of items.entries()) {
    const identity = identityOf(item, mergeKey)
    if (!map.has(identity)) map.set(identity, i)
  }
  return map
}

function withoutValues(list: readonly unknown[], remove: readonly unknown[]): unknown[] {
  const gone = new Set(remove)
  return list.filter((value) => !gone.has(value))
}

/** Nulls that meet nothing to delete say nothing. Changes `value`. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) for (const item of value) withoutNulls(item)
  else if (isObject(value)) {
    for (const [key, inner] of Object.entries(value)) {
      if (inner === null) delete value[key]
      else withoutNulls(inner)
    }
  }
  return value
}

/** New values lose their directives; a map that only carries one is dropped (undefined). */
function withoutDirectives(value: unknown): { readonly value: unknown } | undefined {
  if (Array.isArray(value)) {
    const kept: unknown[] = []
    for (const item of value) {
      const inner = withoutDirectives(item)
      if (inner !== undefined) kept.push(inner.value)
    }
    return { value: kept }
  }
  if (!isObject(value)) return { value }
  if (Object.hasOwn(value, directive)) return undefined
  const result: JsonObject = {}
  for (const [key, inner] of Object.entries(value)) {
    if (key === retainKeys || key.startsWith(setElementOrder) || key.startsWith(deleteFromPrimitiveList)) continue
    const kept = withoutDirectives(inner)
    if (kept !== undefined) setOwn(result, key, kept.value)
  }
  return { value: result }
}
