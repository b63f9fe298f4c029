import { compareText } from '#base/order.ts'
import type { ManagedFieldsEntry } from '../gen/meta-v1.ts'
import { type Shape, type ShapeField, untyped } from './field-shape.ts'
import { type FieldsV1, isEmptyFields, subtractFields, unionFields } from './fields-v1.ts'
import { sameJson } from './patch/json.ts'
import { isObject, type JsonObject } from './patch/merge.ts'
import type { KubeObject } from './resource.ts'

/**
 * Who wrote which field: the `managedFields` entry of creates, updates and patches. One entry per manager, apiVersion
 * and subresource; a field that somebody changes leaves the entries of all others. Server-side apply is not here.
 */

export interface Write {
  readonly manager: string
  readonly apiVersion: string
  /** `''` for the object itself. */
  readonly subresource: string
  /** RFC 3339. */
  readonly time: string
  /** Top-level fields that this write cannot change: `status` for the object, `spec` for its status. */
  readonly ignored: readonly string[]
}

/** Upstream keeps so many Update entries and folds the oldest into one. */
const updateEntriesMax = 10
const ancient = 'ancient-changes'
const managerLengthMax = 128

/** What every object carries, and nobody owns. */
const unownedTop: ReadonlySet<string> = new Set(['apiVersion', 'kind'])
const unownedMetadata: ReadonlySet<string> = new Set([
  'name',
  'namespace',
  'creationTimestamp',
  'selfLink',
  'uid',
  'generation',
  'managedFields',
  'resourceVersion',
])

/** `kubectl/v1.36.0 (linux/amd64)` -> `kubectl`: the manager of a write that names none. */
export function managerFromUserAgent(userAgent: string | undefined): string {
  const name = (userAgent ?? '').split('/')[0] ?? ''
  const printable = name.replace(/[^\x20-\x7e]/g, '').slice(0, managerLengthMax)
  return printable === '' ? 'unknown' : printable
}

/**
 * Writes `next.metadata.managedFields`. `old` is undefined on create. Entries sent with the request are kept;
 * without them the stored ones are, and an empty list or `[{}]` forgets them all, as upstream has it.
 */
export function trackFields(next: KubeObject, old: KubeObject | undefined, shape: Shape, write: Write): void {
  const touched: FieldsV1 = {}
  const removed: FieldsV1 = {}
  compareTop(shape, old as JsonObject | undefined, next as unknown as JsonObject, write, touched, removed)
  const entries = entriesBefore(next.metadata.managedFields, old?.metadata.managedFields)
  const result = updateEntries(entries, touched, removed, write)
  if (result.length === 0) delete next.metadata.managedFields
  else next.metadata.managedFields = result
}

function entriesBefore(
  sent: readonly ManagedFieldsEntry[] | undefined,
  stored: readonly ManagedFieldsEntry[] | undefined,
): readonly ManagedFieldsEntry[] {
  if (sent === undefined) return stored ?? []
  const [first] = sent
  const isReset = first === undefined || (sent.length === 1 && Object.keys(first).length === 0)
  return isReset ? [] : sent
}

function isOwn(entry: ManagedFieldsEntry, write: Write): boolean {
  return (
    entry.manager === write.manager &&
    entry.operation === 'Update' &&
    entry.apiVersion === write.apiVersion &&
    (entry.subresource ?? '') === write.subresource
  )
}

function updateEntries(
  entries: readonly ManagedFieldsEntry[],
  touched: FieldsV1,
  removed: FieldsV1,
  write: Write,
): ManagedFieldsEntry[] {
  const hasTouched = !isEmptyFields(touched)
  if (!hasTouched && isEmptyFields(removed)) return [...entries]
  const result: ManagedFieldsEntry[] = []
  let own: ManagedFieldsEntry | undefined
  for (const entry of entries) {
    const fields = (entry.fieldsV1 ?? {}) as FieldsV1
    const without = subtractFields(fields, removed)
    if (isOwn(entry, write)) {
      const owned = unionFields(without, touched)
      if (isEmptyFields(owned)) continue
      own = sameJson(owned, fields) ? entry : { ...entry, time: write.time, fieldsV1: owned }
      result.push(own)
    } else {
      const rest = subtractFields(without, touched)
      if (isEmptyFields(rest)) continue
      result.push(rest === fields ? entry : { ...entry, fieldsV1: rest })
    }
  }
  if (own === undefined && hasTouched) {
    result.push({
      manager: write.manager,
      operation: 'Update',
      apiVersion: write.apiVersion,
      time: write.time,
      fieldsType: 'FieldsV1',
      fieldsV1: touched,
      ...(write.subresource === '' ? {} : { subresource: write.subresource }),
    })
  }
  return result.length < 2 ? result : sorted(capped(result))
}

/** The oldest Update entries beyond the limit become one of `ancient-changes` per apiVersion. */
function capped(entries: ManagedFieldsEntry[]): ManagedFieldsEntry[] {
  const updates = entries.filter((entry) => entry.operation === 'Update')
  if (updates.length <= updateEntriesMax) return entries
  const byAge = updates.toSorted((a, b) => compareText(a.time ?? '', b.time ?? ''))
  const buckets = new Map<string, ManagedFieldsEntry>()
  let left = updates.length
  const folded = new Set<ManagedFieldsEntry>()
  for (const entry of byAge) {
    if (left <= updateEntriesMax) break
    const version = entry.apiVersion ?? ''
    const bucket = buckets.get(version)
    folded.add(entry)
    if (bucket) left--
    const fields = (entry.fieldsV1 ?? {}) as FieldsV1
    buckets.set(version, {
      ...entry,
      manager: ancient,
      fieldsV1: bucket ? unionFields((bucket.fieldsV1 ?? {}) as FieldsV1, fields) : fields,
    })
  }
  return [...entries.filter((entry) => !folded.has(entry)), ...buckets.values()]
}

function sorted(entries: ManagedFieldsEntry[]): ManagedFieldsEntry[] {
  return entries.sort(
    (a, b) =>
      compareText(a.operation ?? '', b.operation ?? '') ||
      compareText(a.time ?? '', b.time ?? '') ||
      compareText(a.manager ?? '', b.manager ?? ''),
  )
}

function compareTop(
  shape: Shape,
  old: JsonObject | undefined,
  next: JsonObject,
  write: Write,
  touched: FieldsV1,
  removed: FieldsV1,
): void {
  const fields = shape.kind === 'struct' ? shape.fields : undefined
  for (const key in next) {
    if (unownedTop.has(key) || write.ignored.includes(key)) continue
    const field = fields?.get(key)
    if (key === 'metadata') {
      compareMetadata(field?.shape ?? untyped, old?.metadata, next.metadata, touched, removed)
    } else compareField(key, field, old === undefined, old?.[key], next[key], touched, removed)
  }
  if (old === undefined) return
  for (const key in old) {
    if (next[key] === undefined && key !== 'metadata' && !unownedTop.has(key) && !write.ignored.includes(key)) {
      removeField(key, old[key], removed)
    }
  }
}

function compareMetadata(shape: Shape, old: unknown, next: unknown, touched: FieldsV1, removed: FieldsV1): void {
  if (!isObject(next)) return
  const before = isObject(old) ? old : undefined
  const fields = shape.kind === 'struct' ? shape.fields : undefined
  const changed: FieldsV1 = {}
  const gone: FieldsV1 = {}
  for (const key in next) {
    if (!unownedMetadata.has(key)) {
      compareField(key, fields?.get(key), before === undefined, before?.[key], next[key], changed, gone)
    }
  }
  for (const key in before) {
    if (next[key] === undefined && !unownedMetadata.has(key)) {
      removeField(key, before[key], gone)
    }
  }
  if (!isEmptyFields(changed)) touched['f:metadata'] = changed
  if (!isEmptyFields(gone)) removed['f:metadata'] = gone
}

/** `isZero`: there is no old object, so its always-present parts are there and empty. */
function compareField(
  key: string,
  field: ShapeField | undefined,
  isZero: boolean,
  old: unknown,
  next: unknown,
  touched: FieldsV1,
  removed: FieldsV1,
): void {
  if (next === undefined || next === old) return
  if (field?.omitsEmpty) {
    if (isEmptyValue(next)) {
      if (old !== undefined && !isEmptyValue(old)) removeField(key, old, removed)
      return
    }
    if (old !== undefined && isEmptyValue(old)) old = undefined
  }
  if (isZero && field?.always === true && typeof next !== 'object' && isEmptyValue(next)) return
  const present = old !== undefined || (isZero && field?.always === true && typeof next === 'object')
  compare(`f:${key}`, field?.shape ?? untyped, present, isZero && present, old, next, touched, removed)
}

function isEmptyValue(value: unknown): boolean {
  if (typeof value !== 'object') return !value
  if (value === null) return true
  if (Array.isArray(value)) return value.length === 0
  for (const _ in value) return false
  return true
}

function compare(
  at: string,
  shape: Shape,
  present: boolean,
  isZero: boolean,
  old: unknown,
  next: unknown,
  touched: FieldsV1,
  removed: FieldsV1,
): void {
  if (shape.kind === 'leaf' || typeof next !== 'object' || next === null) {
    const isAsEmpty = old === undefined && present && isEmptyValue(next)
    if (!isAsEmpty && (old === undefined || !sameJson(old, next))) touched[at] = {}
    return
  }
  const changed: FieldsV1 = {}
  const gone: FieldsV1 = {}
  let isEmpty = true
  if (Array.isArray(next)) {
    if (shape.kind !== 'set' && shape.kind !== 'list') {
      if (old === undefined || !sameJson(old, next)) touched[at] = {}
      return
    }
    isEmpty = next.length === 0
    compareLists(shape, Array.isArray(old) ? old : undefined, next, changed, gone)
  } else {
    const after = next as JsonObject
    const before = isObject(old) ? old : undefined
    const fields = shape.kind === 'struct' ? shape.fields : undefined
    const element = shape.kind === 'map' ? shape.element : untyped
    for (const key in after) {
      isEmpty = false
      const field = fields?.get(key)
      if (field) compareField(key, field, isZero, before?.[key], after[key], changed, gone)
      else if (after[key] !== before?.[key] && after[key] !== undefined) {
        const known = before?.[key] !== undefined
        compare(`f:${key}`, element, known, false, before?.[key], after[key], changed, gone)
      }
    }
    for (const key in before) {
      if (after[key] === undefined) removeField(key, before[key], gone)
    }
  }
  if (isEmpty && !present) touched[at] = {}
  else if (!present) {
    changed['.'] = {}
    touched[at] = changed
  } else if (!isEmptyFields(changed)) touched[at] = changed
  if (!isEmptyFields(gone)) removed[at] = gone
}

function compareLists(
  shape: Extract<Shape, { kind: 'set' | 'list' }>,
  old: readonly unknown[] | undefined,
  next: readonly unknown[],
  changed: FieldsV1,
  gone: FieldsV1,
): void {
  const before = new Map<string, unknown>()
  for (const item of old ?? []) before.set(elementName(shape, item), item)
  for (const item of next) {
    const name = elementName(shape, item)
    const known = before.has(name)
    const was = before.get(name)
    before.delete(name)
    if (shape.kind === 'set') {
      if (!known) changed[name] = {}
    } else compare(name, shape.element, known, false, was, item, changed, gone)
  }
  // A removed element takes everything below it along.
  for (const name of before.keys()) gone[name] = { '.': {} }
}

/** `k:{"containerPort":80,"protocol":"TCP"}` or `v:"a"`. */
function elementName(shape: Extract<Shape, { kind: 'set' | 'list' }>, item: unknown): string {
  if (shape.kind === 'set' || !isObject(item)) return `v:${JSON.stringify(item)}`
  let text = ''
  for (const key of shape.keys) {
    const value = item[key]
    if (value !== undefined) text += `${text === '' ? '' : ','}"${key}":${JSON.stringify(value)}`
  }
  return `k:{${text}}`
}

/** Everything below a removed field goes with it; `.` alone stands for that in the set of removed fields. */
function removeField(key: string, old: unknown, removed: FieldsV1): void {
  if (old !== undefined) removed[`f:${key}`] = { '.': {} }
}
