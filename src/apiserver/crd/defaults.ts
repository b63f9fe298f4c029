import { isObject, itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'

/**
 * Fills in the schema's defaults, in place. A null where none is allowed counts as absent, and goes where there is no
 * default for it (apiextensions-apiserver, schema/defaulting: PruneNonNullableNullsWithoutDefaults).
 */
export function applyDefaults(value: unknown, schema: JsonSchema): void {
  if (Array.isArray(value)) {
    const items = itemsOf(schema)
    if (items !== undefined) for (const item of value) applyDefaults(item, items)
    return
  }
  if (!isObject(value)) return
  for (const [name, below] of Object.entries(schema.properties ?? {})) {
    const isMissing = !Object.hasOwn(value, name) || (value[name] === null && below.nullable !== true)
    if (below.default !== undefined && isMissing) value[name] = structuredClone(below.default)
    else if (isMissing) delete value[name]
    if (Object.hasOwn(value, name)) applyDefaults(value[name], below)
  }
  const values = valuesOf(schema)
  if (values === undefined) return
  for (const key of Object.keys(value)) {
    if (schema.properties !== undefined && Object.hasOwn(schema.properties, key)) continue
    if (value[key] === null && values.nullable !== true) {
      if (values.default === undefined) delete value[key]
      else value[key] = structuredClone(values.default)
    }
    applyDefaults(value[key], values)
  }
}
