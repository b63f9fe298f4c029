import { type FieldError, fieldError } from '#api/meta/status.ts'
import { isObject, itemsOf, type JsonSchema, valuesOf } from '../json-schema.ts'
import { prune } from './prune.ts'
import { validateValue } from './validate.ts'

/** A schema's defaults must themselves be what it asks for, and know no field that pruning would remove. */
export function defaultErrors(schema: JsonSchema, path: string): FieldError[] {
  const errors: FieldError[] = []
  if (schema.default !== undefined) {
    const at = `${path}.default`
    errors.push(...validateValue(schema.default, schema, at))
    if (isObject(schema.default) && schema['x-kubernetes-embedded-resource'] !== true) {
      const removed = prune(structuredClone(schema.default), schema)
      if (removed.length > 0)
        errors.push(fieldError.invalid(at, schema.default, `must not have unknown fields: ${removed.join(', ')}`))
    }
  }
  for (const [name, below] of Object.entries(schema.properties ?? {}))
    errors.push(...defaultErrors(below, `${path}.properties[${name}]`))
  const items = itemsOf(schema)
  if (items !== undefined) errors.push(...defaultErrors(items, `${path}.items`))
  const values = valuesOf(schema)
  if (values !== undefined) errors.push(...defaultErrors(values, `${path}.additionalProperties`))
  return errors
}
