import { itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'
import { listOf, mapOf, type ObjectField, type Type } from '../types.ts'
import { escapeName } from './escape.ts'

/** A schema's type, and the fewest bytes that a value of it takes as JSON: what bounds lists without a limit. */
export interface SchemaType {
  readonly type: Type
  readonly minBytes: number
}

/** The largest request that is taken; sizes without a limit are estimated from it (apiserver pkg/apis/cel/config.go). */
export const requestBytesMax = 3 * 1024 * 1024

const text = (max: number): SchemaType => ({ type: { kind: 'string', max }, minBytes: 2 })
const anyText = text(requestBytesMax - 2)
const timeBytesMax = 32

/** At the root of a resource these can be spoken of whatever the schema says. */
const rootProperties: Readonly<Record<string, JsonSchema>> = {
  apiVersion: { type: 'string' },
  kind: { type: 'string' },
  metadata: { type: 'object', properties: { name: { type: 'string' }, generateName: { type: 'string' } } },
}

/**
 * The type that a structural schema gives its values in expressions (apiserver pkg/cel/common/schemas.go). Undefined
 * where nothing is known of them: such fields cannot be spoken of. `name` tells object types apart.
 */
export function typeOfSchema(schema: JsonSchema, isRoot: boolean, name = 'self'): SchemaType | undefined {
  if (schema['x-kubernetes-int-or-string'] === true) {
    const max = schema.maxLength === undefined ? requestBytesMax - 2 : schema.maxLength * 4
    return { type: { kind: 'dyn', max }, minBytes: 1 }
  }
  switch (isRoot ? 'object' : schema.type) {
    case 'array': {
      const items = itemsOf(schema)
      const element = items && typeOfSchema(items, isEmbedded(items), `${name}.@idx`)
      if (element === undefined) return undefined
      const max = schema.maxItems ?? Math.floor((requestBytesMax - 2) / (element.minBytes + 1))
      return { type: listOf(element.type, max, identityOf(schema)), minBytes: 2 }
    }
    case 'object':
      return typeOfObject(schema, isRoot, name)
    case 'string':
      return typeOfText(schema)
    case 'boolean':
      return { type: { kind: 'bool', max: 0 }, minBytes: 4 }
    case 'number':
      return { type: { kind: 'double', max: 0 }, minBytes: 1 }
    case 'integer':
      return { type: { kind: 'int', max: 0 }, minBytes: 1 }
    default:
      return undefined
  }
}

const isEmbedded = (schema: JsonSchema): boolean => schema['x-kubernetes-embedded-resource'] === true

function identityOf(schema: JsonSchema): { readonly keys: readonly string[] } | undefined {
  switch (schema['x-kubernetes-list-type']) {
    case 'set':
      return { keys: [] }
    case 'map':
      return { keys: schema['x-kubernetes-list-map-keys'] ?? [] }
    default:
      return undefined
  }
}

function typeOfObject(schema: JsonSchema, isRoot: boolean, name: string): SchemaType | undefined {
  const values = valuesOf(schema)
  if (values !== undefined) {
    const value = typeOfSchema(values, isEmbedded(values), `${name}.@elem`)
    if (value === undefined) return undefined
    const max = schema.maxProperties ?? Math.floor((requestBytesMax - 2) / (value.minBytes + 6))
    return { type: mapOf({ kind: 'string', max: 0 }, value.type, max), minBytes: 2 }
  }
  const fields = new Map<string, ObjectField>()
  let minBytes = 2
  for (const [property, below] of Object.entries({ ...schema.properties, ...(isRoot ? rootProperties : {}) })) {
    const field = typeOfSchema(below, isEmbedded(below), `${name}.${property}`)
    if (field === undefined) continue
    const escaped = escapeName(property)
    if (escaped !== undefined) fields.set(escaped, { type: field.type, property })
    // What has a default is filled in by the server and takes nothing of the request.
    if (schema.required?.includes(property) && below.default === undefined)
      minBytes += property.length + field.minBytes + 4
  }
  return { type: { kind: 'object', name, fields, max: 0 }, minBytes }
}

function typeOfText(schema: JsonSchema): SchemaType {
  switch (schema.format) {
    case 'byte':
      return { type: { kind: 'bytes', max: schema.maxLength ?? requestBytesMax - 2 }, minBytes: 2 }
    case 'duration':
      return { type: { kind: 'duration', max: timeBytesMax }, minBytes: 3 }
    case 'date':
      return { type: { kind: 'timestamp', max: 12 }, minBytes: 12 }
    case 'date-time':
      return { type: { kind: 'timestamp', max: timeBytesMax }, minBytes: 21 }
    default:
      // A character takes up to four bytes.
      if (schema.maxLength !== undefined) return text(schema.maxLength * 4)
      if (schema.enum !== undefined && schema.enum.length > 0)
        return text(Math.max(0, ...schema.enum.map((word) => (typeof word === 'string' ? Buffer.byteLength(word) : 0))))
      return anyText
  }
}
