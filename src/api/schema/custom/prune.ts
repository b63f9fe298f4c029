import { isObject, itemsOf, type Json, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'

/** What every object has whatever its schema says. */
const always = new Set(['apiVersion', 'kind', 'metadata'])

/** Removes what the schema does not know, in place, and returns its paths (`spec.foo`, `spec.list[0].bar`). */
export function prune(object: Json, schema: JsonSchema): string[] {
  const removed: string[] = []
  pruneObject(object, schema, '', true, removed)
  return removed
}

function pruneValue(value: unknown, schema: JsonSchema, path: string, removed: string[]): void {
  if (Array.isArray(value)) {
    const items = itemsOf(schema)
    if (items === undefined) return
    for (let i = 0; i < value.length; i++) pruneValue(value[i], items, `${path}[${i}]`, removed)
  } else if (isObject(value))
    pruneObject(value, schema, path, schema['x-kubernetes-embedded-resource'] === true, removed)
}

function pruneObject(object: Json, schema: JsonSchema, path: string, isResource: boolean, removed: string[]): void {
  const preserves = schema['x-kubernetes-preserve-unknown-fields'] === true
  const values = valuesOf(schema)
  const { properties } = schema
  for (const key of Object.keys(object)) {
    if (isResource && always.has(key)) continue
    const at = path === '' ? key : `${path}.${key}`
    const below = properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : values
    if (below !== undefined) pruneValue(object[key], below, at, removed)
    else if (!preserves && schema.additionalProperties !== true) {
      delete object[key]
      removed.push(at)
    }
  }
}
