import { isObject, itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'
import { parseGoDuration, parseRfc3339 } from '../times.ts'
import { Duration, Timestamp } from '../values.ts'

/**
 * A value as expressions see it: whole numbers as int, times as times. What needs no change stays the same object, so a
 * conversion mostly costs a walk.
 */
export function toValue(value: unknown, schema: JsonSchema): unknown {
  switch (typeof value) {
    case 'number':
      return convertNumber(value, schema)
    case 'string':
      return schema.format === undefined ? value : convertText(value, schema.format)
    case 'object':
      break
    default:
      return value
  }
  if (value === null) return value
  if (Array.isArray(value)) {
    const items = itemsOf(schema)
    return items === undefined ? toDynamic(value) : mapSame(value, (item) => toValue(item, items))
  }
  if (!isObject(value)) return value
  const { properties } = schema
  const values = valuesOf(schema)
  let copy: Record<string, unknown> | undefined
  for (const key in value) {
    const below = (properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : undefined) ?? values
    const inner = value[key]
    const converted = below === undefined ? toDynamic(inner) : toValue(inner, below)
    if (converted !== inner) {
      copy ??= { ...value }
      copy[key] = converted
    }
  }
  return copy ?? value
}

function mapSame(list: readonly unknown[], convert: (item: unknown) => unknown): readonly unknown[] {
  let copy: unknown[] | undefined
  for (let i = 0; i < list.length; i++) {
    const converted = convert(list[i])
    if (copy !== undefined) copy.push(converted)
    else if (converted !== list[i]) copy = [...list.slice(0, i), converted]
  }
  return copy ?? list
}

/** `number` is a double even where it is whole. */
function convertNumber(value: number, schema: JsonSchema): unknown {
  return schema.type !== 'number' && Number.isInteger(value) ? BigInt(value) : value
}

function convertText(value: string, format: string): unknown {
  switch (format) {
    case 'date-time': {
      const nanos = parseRfc3339(value)
      return nanos === undefined ? value : new Timestamp(nanos)
    }
    case 'date': {
      const nanos = parseRfc3339(`${value}T00:00:00Z`)
      return nanos === undefined ? value : new Timestamp(nanos)
    }
    case 'duration': {
      const nanos = parseGoDuration(value)
      return nanos === undefined ? value : new Duration(nanos)
    }
    case 'byte':
      return new Uint8Array(Buffer.from(value, 'base64'))
    default:
      return value
  }
}

/** JSON that no schema tells of: whole numbers are ints. */
export function toDynamic(value: unknown): unknown {
  if (typeof value === 'number') return Number.isInteger(value) ? BigInt(value) : value
  if (Array.isArray(value)) return mapSame(value, toDynamic)
  if (!isObject(value)) return value
  let copy: Record<string, unknown> | undefined
  for (const key in value) {
    const converted = toDynamic(value[key])
    if (converted !== value[key]) {
      copy ??= { ...value }
      copy[key] = converted
    }
  }
  return copy ?? value
}
