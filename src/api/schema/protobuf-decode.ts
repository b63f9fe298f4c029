import { Buffer } from 'node:buffer'
import { DecodeError } from './conform.ts'
import { depthMax } from './json.ts'
import { isEnvelope, messageOfKind, openEnvelope } from './protobuf.ts'
import { Reader } from './protobuf-reader.ts'
import { type Field, getMessage, type Message, type Scalar, schemaMessage } from './table.ts'
import { formatDuration, formatMicroTime, formatTime } from './times.ts'

type Json = Record<string, unknown>

/** The JSON form of a message's bytes. Throws DecodeError. */
export function decodeMessage(messageName: string, bytes: Uint8Array): Json {
  const object: Json = {}
  readMessage(decoderOf(getMessage(messageName)), new Reader(bytes), object, 0)
  return object
}

interface Decoder {
  readonly byNumber: Map<number, (reader: Reader, wire: number, into: Json, depth: number) => void>
}
const decoders = new Map<string, Decoder>()

function decoderOf(message: Message): Decoder {
  const known = decoders.get(message.name)
  if (known !== undefined) return known
  const decoder: Decoder = { byNumber: new Map() }
  decoders.set(message.name, decoder)
  for (const inline of message.inline) {
    if (inline.number === undefined) continue
    const inner = getMessage(inline.message)
    decoder.byNumber.set(inline.number, (reader, wire, into, depth) =>
      readMessage(decoderOf(inner), nested(reader, wire), into, depth + 1),
    )
  }
  for (const field of message.own)
    if (field.number !== undefined) decoder.byNumber.set(field.number, fieldReader(field))
  return decoder
}

function readMessage(decoder: Decoder, reader: Reader, into: Json, depth: number): void {
  if (depth > depthMax) throw new DecodeError('proto: exceeded max depth')
  while (reader.more()) {
    const { number, wire } = reader.tag()
    const read = decoder.byNumber.get(number)
    if (read === undefined) reader.skip(wire)
    else read(reader, wire, into, depth)
  }
}

function nested(reader: Reader, wire: number): Reader {
  if (wire !== 2) throw new DecodeError(`proto: wrong wireType = ${wire}`)
  return new Reader(reader.bytes())
}

type ReadValue = (reader: Reader, wire: number, depth: number) => unknown

function fieldReader(field: Field): (reader: Reader, wire: number, into: Json, depth: number) => void {
  const one = valueReader(field)
  const { name } = field
  if (field.map) return mapReader(field, field.repeated ? wrappedList(one) : one)
  if (field.repeated && field.wrapped) {
    const list = wrappedList(one)
    return (reader, wire, into, depth) => {
      into[name] = list(reader, wire, depth)
    }
  }
  // Go writes plain strings and numbers even when zero; their JSON form leaves those out.
  const keepsZero = field.pointer || field.required || field.message !== undefined
  if (!field.repeated)
    return (reader, wire, into, depth) => {
      const value = one(reader, wire, depth)
      // A second piece of the same message is merged into the first, as protobuf wants it.
      const old = into[name]
      if (field.message !== undefined && typeof old === 'object' && old !== null) Object.assign(old, value)
      else if (value !== undefined && (keepsZero || !isZero(value))) into[name] = value
    }
  const packable =
    field.scalar === 'int32' || field.scalar === 'int64' || field.scalar === 'bool' || field.scalar === 'double'
  return (reader, wire, into, depth) => {
    let list = into[name] as unknown[] | undefined
    if (list === undefined) {
      list = []
      into[name] = list
    }
    if (packable && wire === 2) {
      const packed = new Reader(reader.bytes())
      while (packed.more()) list.push(one(packed, field.scalar === 'double' ? 1 : 0, depth))
    } else list.push(one(reader, wire, depth))
  }
}

const isZero = (value: unknown): boolean => value === '' || value === 0 || value === false || value === '0s'

/** ExtraValue and Verbs: a message whose only field 1 repeats. */
function wrappedList(one: ReadValue): ReadValue {
  return (reader, wire, depth) => {
    const list: unknown[] = []
    const inner = nested(reader, wire)
    while (inner.more()) {
      const tag = inner.tag()
      if (tag.number === 1) list.push(one(inner, tag.wire, depth))
      else inner.skip(tag.wire)
    }
    return list
  }
}

function mapReader(field: Field, value: ReadValue): (reader: Reader, wire: number, into: Json, depth: number) => void {
  return (reader, wire, into, depth) => {
    const entry = nested(reader, wire)
    let key = ''
    let found: unknown
    while (entry.more()) {
      const tag = entry.tag()
      if (tag.number === 1 && tag.wire === 2) key = entry.string()
      else if (tag.number === 2) found = value(entry, tag.wire, depth)
      else entry.skip(tag.wire)
    }
    const map = (into[field.name] ?? {}) as Json
    into[field.name] = map
    found ??= field.message !== undefined ? {} : field.repeated ? [] : zeroOf(field.scalar)
    Object.defineProperty(map, key, { value: found, enumerable: true, writable: true, configurable: true })
  }
}

function zeroOf(scalar: Scalar | undefined): unknown {
  return scalar === 'quantity' ? '0' : scalar === 'bool' ? false : scalar === 'int32' || scalar === 'int64' ? 0 : ''
}

function valueReader(field: Field): ReadValue {
  if (field.message !== undefined) {
    const message = getMessage(field.message)
    let decoder: Decoder | undefined
    return (reader, wire, depth) => {
      decoder ??= decoderOf(message)
      const object: Json = {}
      readMessage(decoder, nested(reader, wire), object, depth + 1)
      return object
    }
  }
  return scalarReader(field.scalar ?? 'json')
}

function scalarReader(scalar: Scalar): ReadValue {
  switch (scalar) {
    case 'string':
      return (reader, wire) => reader.expect(wire, 2).string()
    case 'bool':
      return (reader, wire) => reader.expect(wire, 0).int64() !== 0
    case 'int32':
      return (reader, wire) => reader.expect(wire, 0).int64() | 0
    case 'int64':
      return (reader, wire) => reader.expect(wire, 0).int64()
    case 'double':
      return (reader, wire) => reader.expect(wire, 1).double()
    case 'bytes':
      return (reader, wire) => Buffer.from(reader.expect(wire, 2).bytes()).toString('base64')
    case 'quantity':
      return (reader, wire) => firstString(nested(reader, wire)) || '0'
    case 'time':
      return (reader, wire) => readInstant(nested(reader, wire), formatTime)
    case 'microtime':
      return (reader, wire) => readInstant(nested(reader, wire), formatMicroTime)
    case 'duration':
      return (reader, wire) => {
        let nanos = 0
        const inner = nested(reader, wire)
        while (inner.more()) {
          const tag = inner.tag()
          if (tag.number === 1 && tag.wire === 0) nanos = inner.int64()
          else inner.skip(tag.wire)
        }
        return formatDuration(nanos)
      }
    case 'intorstring':
      return (reader, wire) => readIntOrString(nested(reader, wire))
    case 'fieldsv1':
    case 'rawextension':
    case 'json':
      return (reader, wire) => readRaw(nested(reader, wire))
    case 'schemaorarray':
      return (reader, wire, depth) => {
        const { schema, others } = readSchemaOr(nested(reader, wire), depth, (inner, tag, list) => {
          const item: Json = {}
          readMessage(decoderOf(getMessage(schemaMessage)), nested(inner, tag), item, depth + 1)
          list.push(item)
        })
        return others.length > 0 ? others : (schema ?? {})
      }
    case 'schemaorstrings':
      return (reader, wire, depth) => {
        const { schema, others } = readSchemaOr(nested(reader, wire), depth, (inner, tag, list) =>
          list.push(inner.expect(tag, 2).string()),
        )
        return others.length > 0 ? others : (schema ?? [])
      }
    case 'schemaorbool':
      return (reader, wire, depth) => readSchemaOrBool(nested(reader, wire), depth)
    default:
      return scalar satisfies never
  }
}

function readSchemaOr(
  reader: Reader,
  depth: number,
  other: (inner: Reader, wire: number, list: unknown[]) => void,
): { schema: Json | undefined; others: unknown[] } {
  let schema: Json | undefined
  const others: unknown[] = []
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1) {
      schema = {}
      readMessage(decoderOf(getMessage(schemaMessage)), nested(reader, tag.wire), schema, depth + 1)
    } else if (tag.number === 2) other(reader, tag.wire, others)
    else reader.skip(tag.wire)
  }
  return { schema, others }
}

function readSchemaOrBool(reader: Reader, depth: number): unknown {
  let allows = false
  let schema: Json | undefined
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1) allows = reader.expect(tag.wire, 0).int64() !== 0
    else if (tag.number === 2) {
      schema = {}
      readMessage(decoderOf(getMessage(schemaMessage)), nested(reader, tag.wire), schema, depth + 1)
    } else reader.skip(tag.wire)
  }
  return schema ?? allows
}

function firstString(reader: Reader): string {
  let text = ''
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1 && tag.wire === 2) text = reader.string()
    else reader.skip(tag.wire)
  }
  return text
}

const secondsMin = -62_135_596_800
const secondsMax = 253_402_300_799

function readInstant(reader: Reader, format: (at: { seconds: number; nanos: number }) => string): string | undefined {
  let seconds = 0
  let nanos = 0
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1 && tag.wire === 0) seconds = reader.int64()
    else if (tag.number === 2 && tag.wire === 0) nanos = reader.int64() | 0
    else reader.skip(tag.wire)
  }
  // Upstream's zero time is an empty message, and no time in JSON.
  if (seconds === 0 && nanos === 0) return undefined
  if (seconds < secondsMin || seconds > secondsMax || nanos < 0 || nanos > 999_999_999)
    throw new DecodeError('proto: time out of range')
  return format({ seconds, nanos })
}

function readIntOrString(reader: Reader): number | string {
  let isString = false
  let int = 0
  let text = ''
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1 && tag.wire === 0) isString = reader.int64() === 1
    else if (tag.number === 2 && tag.wire === 0) int = reader.int64() | 0
    else if (tag.number === 3 && tag.wire === 2) text = reader.string()
    else reader.skip(tag.wire)
  }
  return isString ? text : int
}

/** Raw JSON carried as bytes. A raw extension that is itself an envelope is opened. */
function readRaw(reader: Reader): unknown {
  let raw: Uint8Array = new Uint8Array()
  while (reader.more()) {
    const tag = reader.tag()
    if (tag.number === 1 && tag.wire === 2) raw = reader.bytes()
    else reader.skip(tag.wire)
  }
  if (raw.length === 0) return undefined
  if (isEnvelope(raw)) {
    const { apiVersion, kind, raw: inner } = openEnvelope(raw)
    const name = messageOfKind(apiVersion, kind)
    if (name === undefined) throw new DecodeError(`no kind "${kind}" is registered for version "${apiVersion}"`)
    return { apiVersion, kind, ...decodeMessage(name, inner) }
  }
  try {
    return JSON.parse(Buffer.from(raw).toString('utf8'))
  } catch (cause) {
    throw new DecodeError('json: malformed raw value', { cause })
  }
}
