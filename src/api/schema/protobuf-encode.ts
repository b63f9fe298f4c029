import { Buffer } from 'node:buffer'
import { Writer } from './protobuf-writer.ts'
import { type Field, getMessage, type Message, schemaMessage } from './table.ts'
import { parseDuration, parseInstant } from './times.ts'

type Json = Record<string, unknown>

/** The bytes of an object in its JSON form (conformed). */
export function encodeMessage(messageName: string, object: Readonly<Json>): Uint8Array {
  const out = new Writer()
  writeMessage(getMessage(messageName), object, out)
  return out.finish()
}

function writeMessage(message: Message, object: Readonly<Json>, out: Writer): void {
  for (const inline of message.inline) {
    if (inline.number === undefined) continue
    const inner = new Writer()
    writeMessage(getMessage(inline.message), object, inner)
    out.bytes(inline.number, inner.finish())
  }
  for (const field of message.own) {
    const value = object[field.name]
    if (field.number === undefined || value === undefined || value === null) continue
    if (field.map) {
      for (const [key, item] of Object.entries(value as Json)) {
        const entry = new Writer()
        entry.string(1, key)
        if (field.repeated) writeWrapped(field, 2, item as unknown[], entry)
        else writeValue(field, 2, item, entry)
        out.bytes(field.number, entry.finish())
      }
    } else if (field.wrapped) writeWrapped(field, field.number, value as unknown[], out)
    else if (field.repeated) for (const item of value as unknown[]) writeValue(field, field.number, item, out)
    else writeValue(field, field.number, value, out)
  }
}

function writeWrapped(field: Field, number: number, items: readonly unknown[], out: Writer): void {
  const inner = new Writer()
  for (const item of items) writeValue(field, 1, item, inner)
  out.bytes(number, inner.finish())
}

function writeValue(field: Field, number: number, value: unknown, out: Writer): void {
  if (field.message !== undefined) {
    const inner = new Writer()
    writeMessage(getMessage(field.message), value as Json, inner)
    out.bytes(number, inner.finish())
    return
  }
  const scalar = field.scalar ?? 'json'
  switch (scalar) {
    case 'string':
      out.string(number, value as string)
      break
    case 'bool':
      out.int64(number, value === true ? 1 : 0)
      break
    case 'int32':
    case 'int64':
      out.int64(number, value as number)
      break
    case 'double':
      out.double(number, value as number)
      break
    case 'bytes':
      out.bytes(number, Buffer.from(value as string, 'base64'))
      break
    case 'quantity':
      out.message(number, (inner) => inner.string(1, value as string))
      break
    case 'time':
    case 'microtime': {
      const at = parseInstant(value as string) ?? { seconds: 0, nanos: 0 }
      out.message(number, (inner) => {
        inner.int64(1, at.seconds)
        inner.int64(2, scalar === 'time' ? 0 : at.nanos)
      })
      break
    }
    case 'duration':
      out.message(number, (inner) => inner.int64(1, parseDuration(value as string) ?? 0))
      break
    case 'intorstring':
      out.message(number, (inner) => {
        inner.int64(1, typeof value === 'string' ? 1 : 0)
        inner.int64(2, typeof value === 'number' ? value : 0)
        inner.string(3, typeof value === 'string' ? value : '')
      })
      break
    case 'fieldsv1':
    case 'rawextension':
    case 'json':
      out.message(number, (inner) => inner.bytes(1, Buffer.from(JSON.stringify(value))))
      break
    case 'schemaorarray':
    case 'schemaorbool':
    case 'schemaorstrings':
      writeSchemaOr(scalar, number, value, out)
      break
    default:
      scalar satisfies never
  }
}

function writeSchemaOr(
  scalar: 'schemaorarray' | 'schemaorbool' | 'schemaorstrings',
  number: number,
  value: unknown,
  out: Writer,
): void {
  const schema = (item: unknown): Uint8Array => encodeMessage(schemaMessage, item as Json)
  out.message(number, (inner) => {
    if (scalar === 'schemaorbool') {
      inner.int64(1, value === true || typeof value === 'object' ? 1 : 0)
      if (typeof value === 'object') inner.bytes(2, schema(value))
    } else if (!Array.isArray(value)) inner.bytes(1, schema(value))
    else if (scalar === 'schemaorarray') for (const item of value) inner.bytes(2, schema(item))
    else for (const item of value) inner.string(2, item as string)
  })
}
