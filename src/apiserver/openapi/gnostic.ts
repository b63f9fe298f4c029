import { readFileSync } from 'node:fs'
import { Writer } from '#api/schema/protobuf-writer.ts'
import type { Schema } from './schemas.ts'

/** Writes an OpenAPI v2 document in the protobuf form that kubectl asks for (gnostic's OpenAPIv2.proto). */
const numbers = JSON.parse(readFileSync(new URL('gen/numbers.json', import.meta.url), 'utf8')) as Record<
  string,
  Record<string, number>
>

/** A message under construction: fields by their name in the .proto. */
class Part {
  readonly out = new Writer()
  private readonly fields: Record<string, number>
  private readonly name: string

  constructor(name: string) {
    this.name = name
    this.fields = numbers[name] ?? {}
  }

  number(field: string): number {
    const number = this.fields[field]
    if (number === undefined) throw new Error(`OpenAPI v2's ${this.name} has no field "${field}"`)
    return number
  }

  text(field: string, value: unknown): this {
    if (typeof value === 'string' && value !== '') this.out.string(this.number(field), value)
    return this
  }

  texts(field: string, values: unknown): this {
    if (Array.isArray(values)) for (const value of values) this.out.string(this.number(field), String(value))
    return this
  }

  truth(field: string, value: unknown): this {
    if (value === true) this.out.int64(this.number(field), 1)
    return this
  }

  int(field: string, value: unknown): this {
    if (typeof value === 'number') this.out.int64(this.number(field), Math.trunc(value))
    return this
  }

  double(field: string, value: unknown): this {
    if (typeof value === 'number') this.out.double(this.number(field), value)
    return this
  }

  part(field: string, inner: Part | undefined): this {
    if (inner !== undefined) this.out.bytes(this.number(field), inner.out.finish())
    return this
  }

  /** A map becomes a repeated pair of name and value. */
  named(field: string, pair: string, map: unknown, value: (item: Schema) => Part): this {
    for (const [name, item] of Object.entries((map ?? {}) as Record<string, Schema>))
      this.part(field, new Part(pair).text('name', name).part('value', value(item)))
    return this
  }

  extensions(object: Schema): this {
    for (const [name, value] of Object.entries(object))
      if (name.startsWith('x-'))
        this.part('vendor_extension', new Part('NamedAny').text('name', name).part('value', any(value)))
    return this
  }
}

/** JSON is YAML. */
const any = (value: unknown): Part => new Part('Any').text('yaml', `${JSON.stringify(value)}\n`)

export function encodeDocument(document: Schema): Uint8Array {
  const info = document.info as Schema
  return new Part('Document')
    .text('swagger', document.swagger)
    .part('info', new Part('Info').text('title', info.title).text('version', info.version))
    .part('paths', new Part('Paths').named('path', 'NamedPathItem', document.paths, pathItem))
    .part(
      'definitions',
      new Part('Definitions').named('additional_properties', 'NamedSchema', document.definitions, schema),
    )
    .out.finish()
}

function pathItem(item: Schema): Part {
  const part = new Part('PathItem')
  for (const method of ['get', 'put', 'post', 'delete', 'patch'])
    if (item[method] !== undefined) part.part(method, operation(item[method] as Schema))
  for (const one of (item.parameters ?? []) as Schema[]) part.part('parameters', parameter(one))
  return part
}

function operation(op: Schema): Part {
  const part = new Part('Operation')
    .texts('tags', op.tags)
    .text('description', op.description)
    .text('operation_id', op.operationId)
    .texts('produces', op.produces)
    .texts('consumes', op.consumes)
  for (const one of (op.parameters ?? []) as Schema[]) part.part('parameters', parameter(one))
  return part
    .part('responses', new Part('Responses').named('response_code', 'NamedResponseValue', op.responses, response))
    .extensions(op)
}

function parameter(one: Schema): Part {
  const wrap = (inner: Part, field: string): Part =>
    new Part('ParametersItem').part('parameter', new Part('Parameter').part(field, inner))
  if (one.in === 'body') {
    const body = new Part('BodyParameter')
      .text('name', one.name)
      .text('in', 'body')
      .truth('required', one.required)
      .part('schema', schema(one.schema as Schema))
    return wrap(body, 'body_parameter')
  }
  const isPath = one.in === 'path'
  const simple = new Part(isPath ? 'PathParameterSubSchema' : 'QueryParameterSubSchema')
    .truth('required', one.required)
    .text('in', one.in)
    .text('description', one.description)
    .text('name', one.name)
    .text('type', one.type)
    .truth('unique_items', one.uniqueItems)
  const field = isPath ? 'path_parameter_sub_schema' : 'query_parameter_sub_schema'
  return wrap(new Part('NonBodyParameter').part(field, simple), 'non_body_parameter')
}

function response(one: Schema): Part {
  const inner = new Part('Response').text('description', one.description)
  if (one.schema !== undefined)
    inner.part('schema', new Part('SchemaItem').part('schema', schema(one.schema as Schema)))
  return new Part('ResponseValue').part('response', inner)
}

function schema(of: Schema): Part {
  const part = new Part('Schema')
    .text('_ref', of.$ref)
    .text('format', of.format)
    .text('title', of.title)
    .text('description', of.description)
    .double('maximum', of.maximum)
    .truth('exclusive_maximum', of.exclusiveMaximum)
    .double('minimum', of.minimum)
    .truth('exclusive_minimum', of.exclusiveMinimum)
    .double('multiple_of', of.multipleOf)
    .int('max_length', of.maxLength)
    .int('min_length', of.minLength)
    .text('pattern', of.pattern)
    .int('max_items', of.maxItems)
    .int('min_items', of.minItems)
    .truth('unique_items', of.uniqueItems)
    .int('max_properties', of.maxProperties)
    .int('min_properties', of.minProperties)
    .texts('required', of.required)
  for (const value of (of.enum ?? []) as unknown[]) part.part('enum', any(value))
  if (typeof of.additionalProperties === 'object' && of.additionalProperties !== null)
    part.part(
      'additional_properties',
      new Part('AdditionalPropertiesItem').part('schema', schema(of.additionalProperties as Schema)),
    )
  else if (of.additionalProperties === true)
    part.part('additional_properties', new Part('AdditionalPropertiesItem').truth('boolean', true))
  if (typeof of.type === 'string') part.part('type', new Part('TypeItem').texts('value', [of.type]))
  if (typeof of.items === 'object' && of.items !== null)
    part.part('items', new Part('ItemsItem').part('schema', schema(of.items as Schema)))
  if (of.properties !== undefined)
    part.part('properties', new Part('Properties').named('additional_properties', 'NamedSchema', of.properties, schema))
  return part.extensions(of)
}
