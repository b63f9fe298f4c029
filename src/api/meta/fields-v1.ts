/**
 * Sets of fields in the form of `fieldsV1`: `{"f:spec":{"f:replicas":{}}}`. An empty object is a leaf that is in the
 * set; `.` says that a place with more below it is in the set itself.
 */
export interface FieldsV1 {
  [element: string]: FieldsV1
}

export function isEmptyFields(fields: FieldsV1): boolean {
  for (const _ in fields) return false
  return true
}

/** Both sets together. Shares parts with its arguments. */
export function unionFields(a: FieldsV1, b: FieldsV1): FieldsV1 {
  if (isEmptyFields(b)) return a
  const result: FieldsV1 = { ...a }
  for (const key in b) {
    const right = b[key]
    if (right === undefined) continue
    const left = result[key]
    if (left === undefined) result[key] = right
    else if (key !== '.') result[key] = unionPlace(left, right)
  }
  return result
}

/** A leaf on one side and more below on the other: the place itself is in the set, and so is what is below. */
function unionPlace(a: FieldsV1, b: FieldsV1): FieldsV1 {
  const aIsLeaf = isEmptyFields(a)
  const bIsLeaf = isEmptyFields(b)
  if (aIsLeaf && bIsLeaf) return a
  if (aIsLeaf) return { '.': {}, ...b }
  if (bIsLeaf) return { '.': {}, ...a }
  return unionFields(a, b)
}

/**
 * `a` without `b`. A leaf of `b` removes the place itself; `{".": {}}` alone removes it with everything below.
 * Gives back `a` itself when nothing is removed.
 */
export function subtractFields(a: FieldsV1, b: FieldsV1): FieldsV1 {
  let result: FieldsV1 | undefined
  for (const key in b) {
    const left = a[key]
    const right = b[key]
    if (left === undefined || right === undefined) continue
    const rest = subtractPlace(left, right)
    if (rest === left) continue
    result ??= { ...a }
    if (rest === undefined) delete result[key]
    else result[key] = rest
  }
  return result ?? a
}

/** Undefined when nothing is left of the place. */
function subtractPlace(place: FieldsV1, gone: FieldsV1): FieldsV1 | undefined {
  const isWhole = Object.hasOwn(gone, '.') && Object.keys(gone).length === 1
  if (isWhole) return undefined
  if (isEmptyFields(gone)) {
    if (isEmptyFields(place)) return undefined
    if (!Object.hasOwn(place, '.')) return place
    const { '.': _, ...below } = place
    return isEmptyFields(below) ? undefined : below
  }
  if (isEmptyFields(place)) return Object.hasOwn(gone, '.') ? undefined : place
  const rest = subtractFields(place, gone)
  if (rest === place) return place
  if (isEmptyFields(rest)) return undefined
  return isOnlyItself(rest) ? {} : rest
}

/** A place with nothing below is written as a leaf. */
function isOnlyItself(place: FieldsV1): boolean {
  for (const key in place) if (key !== '.') return false
  return true
}
