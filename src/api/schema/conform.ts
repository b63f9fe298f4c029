import { canonicalQuantity, QuantityError } from '../meta/quantity.ts'
import { type Field, getMessage, type Message, type Scalar, schemaMessage } from './table.ts'
import { canonicalMicroTime, canonicalTime, formatDuration, parseDuration } from './times.ts'

/** A value that cannot be what its field is; the message is what upstream's decoder says. */
export class DecodeError extends Error {}

/** As upstream: what comes after a hundred findings is not told. */
const unknownMax = 100

type Json = Record<string, unknown>
type Check = (value: unknown, at: Place) => unknown

/** Where in the object the check is. Kept as a stack, so that a good object costs no path text. */
class Place {
  readonly keys: (string | number)[] = []
  readonly unknown: string[] = []
  /** Which of the keys are keys of maps: Go's decoder leaves them out of its paths. */
  readonly mapSlots: number[] = []
  /** Go's name of the innermost struct. */
  struct = ''

  path(last?: string): string {
    let text = ''
    for (const key of this.keys) text += typeof key === 'number' ? `[${key}]` : text === '' ? key : `.${key}`
    return last === undefined ? text : text === '' ? last : `${text}.${last}`
  }

  /** Go's decoder prints the path of struct fields only. */
  goPath(): string {
    return this.keys.filter((k, slot) => typeof k === 'string' && !this.mapSlots.includes(slot)).join('.')
  }

  wrongType(value: unknown, goType: string): DecodeError {
    const got = typeName(value, goType)
    if (this.keys.length === 0) return new DecodeError(`json: cannot unmarshal ${got} into Go value of type ${goType}`)
    return new DecodeError(
      `json: cannot unmarshal ${got} into Go struct field ${this.struct}.${this.goPath()} of type ${goType}`,
    )
  }
}

function typeName(value: unknown, goType: string): string {
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'number') return /^(int|float|uint)/.test(goType) ? `number ${value}` : 'number'
  if (typeof value === 'boolean') return 'bool'
  return typeof value === 'object' ? 'object' : typeof value
}

/**
 * Makes a parsed JSON value an object of this message, in place: checks every type, removes what the message does not
 * know and returns its paths (`spec.containers[0].imagee`), removes nulls, writes quantities and times in their one form,
 * and fills in the defaults of the table and what upstream always writes (`status: {}`, required strings as `""`).
 * Enums are left to validation. Throws DecodeError in upstream's words.
 */
export function conform(messageName: string, value: unknown): readonly string[] {
  const message = getMessage(messageName)
  const place = new Place()
  checkOf(message)(value, place)
  return place.unknown
}

const checks = new Map<string, Check>()

function checkOf(message: Message): Check {
  const known = checks.get(message.name)
  if (known !== undefined) return known
  const check = compileMessage(message)
  checks.set(message.name, check)
  return check
}

interface Fill {
  readonly name: string
  readonly make: () => unknown
}

function compileMessage(message: Message): Check {
  let fields: Map<string, Check> | undefined
  let fills: Fill[] = []
  const goType = `v1.${message.goName}`
  return (value, at) => {
    if (fields === undefined) {
      fields = new Map([...message.fields.values()].map((f) => [f.name, compileField(f)]))
      fills = [...message.fields.values()].map(fillOf).filter((f) => f !== undefined)
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw at.wrongType(value, goType)
    const object = value as Json
    const outer = at.struct
    at.struct = message.goName
    for (const key in object) {
      const check = fields.get(key)
      if (check === undefined) {
        if (at.unknown.length < unknownMax) at.unknown.push(at.path(key))
        delete object[key]
        continue
      }
      const old = object[key]
      if (old === null) {
        delete object[key]
        continue
      }
      at.keys.push(key)
      const next = check(old, at)
      at.keys.pop()
      if (next !== old) object[key] = next
    }
    for (const fill of fills) if (object[fill.name] === undefined) object[fill.name] = fill.make()
    at.struct = outer
    return object
  }
}

/** What stands for an absent field: a table default, an always-written struct, or the zero of a required field. */
function fillOf(field: Field): Fill | undefined {
  const { name } = field
  if (field.default !== undefined) return { name, make: () => structuredClone(field.default) }
  if (field.always && field.message !== undefined) {
    const message = getMessage(field.message)
    return { name, make: () => checkOf(message)({}, new Place()) }
  }
  if (field.always) return { name, make: () => '0' }
  if (!field.required || field.pointer) return undefined
  if (field.repeated && !field.map) return { name, make: () => [] }
  if (field.map) return { name, make: () => ({}) }
  const zero = zeros[field.scalar ?? 'json']
  return zero === undefined ? undefined : { name, make: () => zero }
}

/** Zero of the scalars that are written even when zero. Times and raw values are absent instead. */
const zeros: Partial<Record<Scalar, unknown>> = {
  string: '',
  bool: false,
  int32: 0,
  int64: 0,
  double: 0,
  quantity: '0',
  intorstring: 0,
}

function compileField(field: Field): Check {
  const element = field.message !== undefined ? lazyMessage(field.message) : scalarCheck(field, field.scalar ?? 'json')
  const zero = field.message !== undefined ? () => element({}, new Place()) : () => zeros[field.scalar ?? 'json'] ?? ''
  const list = field.repeated ? compileList(field.goType.replace('map[string]', ''), element, zero) : element
  return field.map ? compileMap(field.goType, list, field.repeated ? () => [] : zero) : list
}

function lazyMessage(name: string): Check {
  let check: Check | undefined
  return (value, at) => {
    check ??= checkOf(getMessage(name))
    return check(value, at)
  }
}

function compileList(goType: string, element: Check, zero: () => unknown): Check {
  return (value, at) => {
    if (!Array.isArray(value)) throw at.wrongType(value, goType)
    const slot = at.keys.push(0) - 1
    for (let i = 0; i < value.length; i++) {
      at.keys[slot] = i
      const old: unknown = value[i]
      const next = old === null ? zero() : element(old, at)
      if (next !== old) value[i] = next
    }
    at.keys.pop()
    return value
  }
}

function compileMap(goType: string, element: Check, zero: () => unknown): Check {
  return (value, at) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw at.wrongType(value, goType)
    const object = value as Json
    const slot = at.keys.push('') - 1
    at.mapSlots.push(slot)
    for (const key in object) {
      at.keys[slot] = key
      const old = object[key]
      const next = old === null ? zero() : element(old, at)
      if (next !== old)
        Object.defineProperty(object, key, { value: next, enumerable: true, writable: true, configurable: true })
    }
    at.keys.pop()
    at.mapSlots.pop()
    return object
  }
}

function scalarCheck(field: Field, scalar: Scalar): Check {
  const goType = field.goType.replace('map[string]', '').replace(/^\[\](?!uint8)/, '')
  switch (scalar) {
    case 'string':
      return (value, at) => {
        if (typeof value !== 'string') throw at.wrongType(value, goType)
        return value
      }
    case 'bool':
      return (value, at) => {
        if (typeof value !== 'boolean') throw at.wrongType(value, goType)
        return value
      }
    case 'int32':
      return (value, at) => {
        if (typeof value !== 'number' || (value | 0) !== value) throw at.wrongType(value, goType)
        return value
      }
    case 'int64':
      return (value, at) => {
        if (!Number.isInteger(value) || Math.abs(value as number) > 2 ** 63) throw at.wrongType(value, goType)
        return value
      }
    case 'double':
      return (value, at) => {
        if (typeof value !== 'number') throw at.wrongType(value, goType)
        return value
      }
    case 'bytes':
      return (value, at) => checkBytes(value, at, goType)
    case 'quantity':
      return checkQuantity
    case 'intorstring':
      return checkIntOrString
    case 'time':
      return (value, at) => checkTime(value, at, canonicalTime, '2006-01-02T15:04:05Z07:00')
    case 'microtime':
      return (value, at) => checkTime(value, at, canonicalMicroTime, '2006-01-02T15:04:05.000000Z07:00')
    case 'duration':
      return checkDuration
    case 'schemaorarray':
      return schemaOr(Array.isArray, (value, at) => schemaList(value, at))
    case 'schemaorbool':
      return schemaOr(
        (v) => typeof v === 'boolean',
        (value) => value,
      )
    case 'schemaorstrings':
      return schemaOr(
        Array.isArray,
        compileList('[]string', scalarCheck({ ...field, goType: 'string' }, 'string'), () => ''),
      )
    case 'fieldsv1':
    case 'rawextension':
    case 'json':
      return (value) => value
    default:
      return scalar satisfies never
  }
}

const schemaCheck = lazyMessage(schemaMessage)
const schemaList = compileList('[]v1.JSONSchemaProps', schemaCheck, () => ({}))

function schemaOr(is: (value: unknown) => boolean, other: Check): Check {
  return (value, at) => (is(value) ? other(value, at) : schemaCheck(value, at))
}

const base64 = /^[A-Za-z0-9+/]*={0,2}$/

function checkBytes(value: unknown, at: Place, goType: string): unknown {
  if (typeof value !== 'string') throw at.wrongType(value, goType)
  if (value.length % 4 === 0 && base64.test(value)) return value
  const text = value.replace(/[\r\n]/g, '')
  if (text.length % 4 === 0 && base64.test(text)) return text
  const bad = value.search(/[^A-Za-z0-9+/=\r\n]/)
  const padding = value.indexOf('=')
  throw new DecodeError(
    `illegal base64 data at input byte ${bad >= 0 ? bad : padding >= 0 && padding < value.length - 2 ? padding : value.length - (text.length % 4 || 1)}`,
  )
}

/** What nearly every quantity looks like, and is in its one form already. */
const usualQuantity = /^[1-9]\d{0,2}(?:[mkMGT]|[KMGT]i)?$/

function checkQuantity(value: unknown, at: Place): unknown {
  if (typeof value !== 'string' && typeof value !== 'number') throw at.wrongType(value, 'resource.Quantity')
  if (typeof value === 'string' && usualQuantity.test(value)) return value
  try {
    return canonicalQuantity(typeof value === 'number' ? String(value).replace('e+', 'e') : value)
  } catch (error) {
    if (error instanceof QuantityError) throw new DecodeError(error.message)
    throw error
  }
}

function checkIntOrString(value: unknown): unknown {
  if (typeof value === 'string') return value
  if (typeof value === 'number' && (value | 0) === value) return value
  throw new DecodeError(`json: cannot unmarshal ${typeName(value, 'int32')} into Go value of type int32`)
}

function checkTime(
  value: unknown,
  _at: Place,
  canonical: (text: string) => string | undefined,
  layout: string,
): unknown {
  if (typeof value !== 'string')
    throw new DecodeError(`json: cannot unmarshal ${typeName(value, 'string')} into Go value of type string`)
  const text = canonical(value)
  if (text !== undefined) return text
  const quoted = JSON.stringify(value)
  const isDate = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)$/.test(value)
  throw new DecodeError(
    isDate
      ? `parsing time ${quoted}: day out of range`
      : `parsing time ${quoted} as ${JSON.stringify(layout)}: cannot parse ${quoted} as "2006"`,
  )
}

function checkDuration(value: unknown): unknown {
  if (typeof value !== 'string')
    throw new DecodeError(`json: cannot unmarshal ${typeName(value, 'string')} into Go value of type string`)
  const nanos = parseDuration(value)
  if (nanos === undefined) throw new DecodeError(`time: invalid duration ${JSON.stringify(value)}`)
  return formatDuration(nanos)
}
