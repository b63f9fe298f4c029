import { formatDuration, formatInstant } from './times.ts'
import type { ListType, Type } from './types.ts'

/**
 * Values while an expression runs. JSON's own form where it has one: strings, booleans, null, arrays, and objects for
 * messages and maps; int is bigint, double is number. What JSON has not is one of the classes below.
 */

/** An unsigned 64-bit number. */
export class Uint {
  readonly value: bigint
  constructor(value: bigint) {
    this.value = value
  }
}
/** Nanoseconds. */
export class Duration {
  readonly nanos: bigint
  constructor(nanos: bigint) {
    this.nanos = nanos
  }
}
/** Nanoseconds since 1970 in UTC. */
export class Timestamp {
  readonly nanos: bigint
  constructor(nanos: bigint) {
    this.nanos = nanos
  }
}
/** `optional.none()` has no value. */
export class Optional {
  readonly value: unknown
  readonly hasValue: boolean
  private constructor(hasValue: boolean, value: unknown) {
    this.hasValue = hasValue
    this.value = value
  }
  static readonly none = new Optional(false, undefined)
  static of(value: unknown): Optional {
    return new Optional(true, value)
  }
}
/** What `type(x)` gives. */
export class TypeValue {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}
/** Values of the function libraries. */
export interface Opaque {
  readonly typeName: string
  equals(other: Opaque): boolean
}

/** Why an expression has no value. */
export class EvaluationError extends Error {
  override readonly name = 'EvaluationError'
}
/** The expression did more than it may. Unlike other errors it cannot be absorbed by `||` and `&&`. */
export class CostError extends Error {
  override readonly name = 'CostError'
  constructor() {
    super('operation cancelled: actual cost limit exceeded')
  }
}

export const noSuchKey = (key: unknown): EvaluationError => new EvaluationError(`no such key: ${show(key)}`)
export const noSuchOverload = (): EvaluationError => new EvaluationError('no such overload')
const show = (key: unknown): string => (key instanceof Uint ? String(key.value) : String(key))

export type JsonObject = Readonly<Record<string, unknown>>

const isOpaque = (value: unknown): value is Opaque =>
  typeof value === 'object' && value !== null && 'typeName' in value && typeof value.typeName === 'string'

/** A map or message; not one of the classes. */
export function isRecord(value: unknown): value is JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** The kind of type that a value has, in the words of `type()`. */
export function kindOf(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return 'string'
    case 'bigint':
      return 'int'
    case 'number':
      return 'double'
    case 'boolean':
      return 'bool'
    default:
      break
  }
  if (value === null) return 'null_type'
  if (Array.isArray(value)) return 'list'
  if (value instanceof Map || isRecord(value)) return 'map'
  if (value instanceof Uint) return 'uint'
  if (value instanceof Uint8Array) return 'bytes'
  if (value instanceof Duration) return 'google.protobuf.Duration'
  if (value instanceof Timestamp) return 'google.protobuf.Timestamp'
  if (value instanceof Optional) return 'optional_type'
  if (value instanceof TypeValue) return 'type'
  return isOpaque(value) ? value.typeName : 'unknown'
}

/** Whether a value can be given where the type is asked for. */
export function isOfType(value: unknown, type: Type): boolean {
  switch (type.kind) {
    case 'dyn':
    case 'parameter':
      return true
    case 'object':
      return isRecord(value)
    case 'opaque':
      return kindOf(value) === type.name
    case 'optional':
      return value instanceof Optional
    case 'null':
      return value === null
    case 'duration':
      return value instanceof Duration
    case 'timestamp':
      return value instanceof Timestamp
    default:
      return kindOf(value) === type.kind
  }
}

/** Characters of a text, not UTF-16 units. */
export function textSize(text: string): number {
  let size = text.length
  for (let i = 0; i < text.length; i++) if ((text.charCodeAt(i) & 0xfc00) === 0xd800) size--
  return size
}

/** What an operation on the value has to go over. */
export function sizeOf(value: unknown): number {
  if (typeof value === 'string') return textSize(value)
  if (Array.isArray(value)) return value.length
  if (value instanceof Uint8Array) return value.length
  if (value instanceof Map) return value.size
  if (value instanceof Optional) return value.hasValue ? sizeOf(value.value) : 1
  return isRecord(value) ? Object.keys(value).length : 1
}

/** A key as maps made by an expression hold it: numbers of all types are the same key. */
export const mapKey = (key: unknown): unknown =>
  key instanceof Uint ? key.value : typeof key === 'number' && Number.isInteger(key) ? BigInt(key) : key

export function hasKey(map: unknown, key: unknown): boolean {
  if (map instanceof Map) return map.has(mapKey(key))
  return typeof key === 'string' && Object.hasOwn(map as object, key)
}
export function getKey(map: unknown, key: unknown): unknown {
  if (map instanceof Map) return map.get(mapKey(key))
  return (map as JsonObject)[key as string]
}
export const keysOf = (map: unknown): unknown[] => (map instanceof Map ? [...map.keys()] : Object.keys(map as object))

const numberOf = (value: unknown): bigint | number | undefined =>
  typeof value === 'bigint' || typeof value === 'number' ? value : value instanceof Uint ? value.value : undefined

/** By value, over the types: NaN is like nothing. */
const sameNumber = (a: bigint | number, b: bigint | number): boolean => a <= b && a >= b

/** Equality over all types: different types are not equal, numbers are equal by value. */
export function equals(a: unknown, b: unknown, type?: Type): boolean {
  if (a === b) return true
  if (typeof a === 'string' || typeof a === 'boolean' || a === null || b === null) return false
  const number = numberOf(a)
  if (number !== undefined) {
    const other = numberOf(b)
    return other !== undefined && sameNumber(number, other)
  }
  if (Array.isArray(a)) return Array.isArray(b) && equalLists(a, b, type?.kind === 'list' ? type : undefined)
  if (a instanceof Duration) return b instanceof Duration && a.nanos === b.nanos
  if (a instanceof Timestamp) return b instanceof Timestamp && a.nanos === b.nanos
  if (a instanceof Uint8Array) return b instanceof Uint8Array && Buffer.compare(a, b) === 0
  if (a instanceof TypeValue) return b instanceof TypeValue && a.name === b.name
  if (a instanceof Optional) {
    const inner = type?.kind === 'optional' ? type.of : undefined
    return b instanceof Optional && a.hasValue === b.hasValue && (!a.hasValue || equals(a.value, b.value, inner))
  }
  if (a instanceof Map || isRecord(a)) return (b instanceof Map || isRecord(b)) && equalMaps(a, b, type)
  return isOpaque(a) && isOpaque(b) && a.typeName === b.typeName && a.equals(b)
}

function equalLists(a: readonly unknown[], b: readonly unknown[], type: ListType | undefined): boolean {
  if (a.length !== b.length) return false
  if (type?.identity === undefined) return a.every((item, i) => equals(item, b[i], type?.of))
  const { identity } = type
  return a.every((item) => {
    const twin = b.find((other) => isSameElement(item, other, identity.keys))
    return twin !== undefined && equals(item, twin, type.of)
  })
}

/** Whether two elements of a set or map list are the same element. */
export function isSameElement(a: unknown, b: unknown, keys: readonly string[]): boolean {
  if (keys.length === 0) return equals(a, b)
  return isRecord(a) && isRecord(b) && keys.every((key) => equals(a[key] ?? null, b[key] ?? null))
}

function equalMaps(a: unknown, b: unknown, type: Type | undefined): boolean {
  const keys = keysOf(a)
  if (keys.length !== sizeOf(b)) return false
  const valueType = (key: unknown): Type | undefined => {
    if (type?.kind === 'map') return type.value
    if (type?.kind !== 'object') return undefined
    for (const field of type.fields.values()) if (field.property === key) return field.type
    return undefined
  }
  return keys.every((key) => hasKey(b, key) && equals(getKey(a, key), getKey(b, key), valueType(key)))
}

/** Below, at or above zero; undefined where the two have no order, NaN included. */
export function compare(a: unknown, b: unknown): number | undefined {
  const [x, y] = [numberOf(a), numberOf(b)]
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : sameNumber(x, y) ? 0 : undefined
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b)
  if (typeof a === 'boolean' && typeof b === 'boolean') return Number(a) - Number(b)
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b)
  const [s, t] = [nanosOf(a), nanosOf(b)]
  if (s === undefined || t === undefined || kindOf(a) !== kindOf(b)) throw noSuchOverload()
  return s < t ? -1 : s > t ? 1 : 0
}

const nanosOf = (value: unknown): bigint | undefined =>
  value instanceof Duration || value instanceof Timestamp ? value.nanos : undefined

/** By code point, as upstream orders UTF-8. */
function compareText(a: string, b: string): number {
  const isPlain = !/[\ud800-\uffff]/.test(a) && !/[\ud800-\uffff]/.test(b)
  return isPlain ? (a < b ? -1 : a > b ? 1 : 0) : Buffer.compare(Buffer.from(a), Buffer.from(b))
}

/** `string(x)`. */
export function toText(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value
    case 'bigint':
    case 'boolean':
      return String(value)
    case 'number':
      return formatDouble(value)
    default:
      break
  }
  if (value instanceof Uint) return String(value.value)
  if (value instanceof Duration) return formatDuration(value.nanos)
  if (value instanceof Timestamp) return formatInstant(value.nanos)
  if (value instanceof Uint8Array) {
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(value)
    } catch (cause) {
      throw new EvaluationError('invalid UTF-8 in bytes, cannot convert to string', { cause })
    }
  }
  if (isOpaque(value) && 'text' in value && typeof value.text === 'string') return value.text
  throw noSuchOverload()
}

/** As Go's shortest form: 0.1, 1e+06, 1.5e-07, NaN, +Inf. */
function formatDouble(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  if (!Number.isFinite(value)) return value > 0 ? '+Inf' : '-Inf'
  if (Object.is(value, -0)) return '-0'
  const [mantissa = '', power = '0'] = value.toExponential().split('e')
  const exponent = Number(power)
  if (exponent >= -4 && exponent < 6) return String(value)
  const digits = String(Math.abs(exponent)).padStart(2, '0')
  return `${mantissa}e${exponent < 0 ? '-' : '+'}${digits}`
}
