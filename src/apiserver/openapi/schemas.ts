import type { KindDefinition } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import { describeField, describeMessage } from '#api/schema/describe.ts'
import type { JsonSchema } from '#api/schema/json-schema.ts'
import { messageOfKind } from '#api/schema/protobuf.ts'
import { type Field, findMessage, getMessage, type Scalar } from '#api/schema/table.ts'
import { type CustomKind, isCustom } from '../crd/kind.ts'
import { definitionOfKind, definitionOfMessage, scalarDefinitions } from './names.ts'

/** OpenAPI v2 (definitions) and v3 (components) differ in where schemas lie and in what may stand beside a $ref. */
export type Style = 'v2' | 'v3'
export type Schema = Record<string, unknown>

export interface GroupVersionKind {
  readonly group: string
  readonly version: string
  readonly kind: string
}

export const gvkOf = ({ group, version, kind }: GroupVersionKind): GroupVersionKind => ({ group, version, kind })

/** `$ref` to a definition. */
export const refTo = (style: Style, definition: string): Schema => ({
  $ref: `#/${style === 'v2' ? 'definitions' : 'components/schemas'}/${definition}`,
})

/** The list kind's message where the table has one: reviews and the like have none. */
export const listMessageOf = (kind: KindDefinition): string | undefined =>
  kind.message === undefined ? undefined : findMessage(`${kind.message}List`)?.name

/** Every schema that the kinds need: their own, their lists', their subresources', and all that those refer to. */
export function buildSchemas(kinds: readonly KindDefinition[], style: Style): Record<string, Schema> {
  const builder = new Builder(style)
  for (const kind of kinds) builder.addKind(kind)
  const groups = [...new Set(kinds.map((k) => `${k.resource.group}/${k.resource.version}`))].toSorted()
  for (const name of ['meta/v1.DeleteOptions', 'meta/v1.WatchEvent']) {
    const kind = name.slice('meta/v1.'.length)
    builder.addMessage(
      name,
      groups.map((gv) => ({ group: gv.split('/')[0] ?? '', version: gv.split('/')[1] ?? '', kind })),
    )
  }
  for (const name of ['APIResourceList', 'APIGroup', 'APIGroupList', 'APIVersions', 'Status'])
    builder.addMessage(`meta/v1.${name}`, [{ group: '', version: 'v1', kind: name }])
  builder.addMessage('meta/v1.Patch', [])
  return builder.finish()
}

class Builder {
  private readonly schemas = new Map<string, Schema>()
  private readonly style: Style

  constructor(style: Style) {
    this.style = style
  }

  finish(): Record<string, Schema> {
    return Object.fromEntries([...this.schemas].toSorted(([a], [b]) => (a < b ? -1 : 1)))
  }

  addKind(kind: KindDefinition): void {
    if (isCustom(kind)) this.addCustom(kind)
    else if (kind.message !== undefined) {
      this.addMessage(kind.message, [gvkOf(kind.resource)], kind.description)
      const list = listMessageOf(kind)
      if (list !== undefined)
        this.addMessage(
          list,
          [{ ...gvkOf(kind.resource), kind: `${kind.resource.kind}List` }],
          `A list of ${kind.resource.kind}.`,
        )
    }
    for (const sub of kind.subresources) {
      if (sub.kind === undefined) continue
      const group = sub.group ?? kind.resource.group
      const version = sub.version ?? 'v1'
      const message = messageOfKind(formatApiVersion({ group, version }), sub.kind)
      if (message !== undefined) this.addMessage(message, [{ group, version, kind: sub.kind }])
    }
  }

  addMessage(name: string, gvks: readonly GroupVersionKind[], description = describeMessage(name)): void {
    const definition = definitionOfMessage(name)
    if (name === 'meta/v1.Patch') {
      this.schemas.set(definition, { type: 'object', description: 'A patch, in the form that its Content-Type names.' })
      return
    }
    const schema = this.schemas.get(definition) ?? this.objectOf(name, definition, description)
    if (gvks.length === 0) return
    const known = (schema['x-kubernetes-group-version-kind'] ?? []) as GroupVersionKind[]
    const more = gvks.filter((a) => !known.some((b) => a.group === b.group && a.version === b.version))
    schema['x-kubernetes-group-version-kind'] = [...known, ...more]
  }

  private objectOf(name: string, definition: string, description: string): Schema {
    const schema: Schema = { ...(description === '' ? {} : { description }), type: 'object' }
    this.schemas.set(definition, schema)
    const message = getMessage(name)
    const fields = [...message.fields.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1))
    if (fields.length > 0) schema.properties = Object.fromEntries(fields.map((f) => [f.name, this.property(name, f)]))
    const required = fields.filter((f) => f.required).map((f) => f.name)
    if (required.length > 0) schema.required = required
    if (message.atomic) schema['x-kubernetes-map-type'] = 'atomic'
    return schema
  }

  private property(message: string, field: Field): Schema {
    const element = this.element(field)
    const list = field.repeated ? { type: 'array', items: this.inner(element, field) } : element
    const value = field.map
      ? { type: 'object', additionalProperties: field.repeated ? list : this.inner(element, field) }
      : list
    const description = describeField(message, field.name)
    const beside: Schema = {
      ...(description === '' ? {} : { description }),
      ...(field.default === undefined || this.style === 'v2' ? {} : { default: field.default }),
      ...(field.enum !== undefined && this.style === 'v3' ? { enum: field.enum } : {}),
      ...(field.listType ? { 'x-kubernetes-list-type': field.listType } : {}),
      ...(field.listKeys.length > 0 ? { 'x-kubernetes-list-map-keys': field.listKeys } : {}),
      ...(field.mapType ? { 'x-kubernetes-map-type': field.mapType } : {}),
      ...(field.patchMergeKey ? { 'x-kubernetes-patch-merge-key': field.patchMergeKey } : {}),
      ...(field.patchStrategy ? { 'x-kubernetes-patch-strategy': field.patchStrategy } : {}),
    }
    if (value.$ref === undefined || this.style === 'v2') return { ...beside, ...value }
    return { ...beside, ...(field.always && beside.default === undefined ? { default: {} } : {}), allOf: [value] }
  }

  /** v3 wraps a reference inside a list or map as upstream does, so that a default can stand beside it. */
  private inner(element: Schema, field: Field): Schema {
    if (this.style === 'v2' || element.$ref === undefined) return element
    return { allOf: [element], ...(field.message === undefined ? {} : { default: {} }) }
  }

  private element(field: Field): Schema {
    if (field.message !== undefined) {
      this.addMessage(field.message, [])
      return refTo(this.style, definitionOfMessage(field.message))
    }
    return this.scalar(field.scalar ?? 'json')
  }

  private scalar(scalar: Scalar): Schema {
    const plain = plainScalars[scalar]
    if (plain !== undefined) return plain
    const definition = scalarDefinitions[scalar as keyof typeof scalarDefinitions]
    if (!this.schemas.has(definition)) {
      this.schemas.set(definition, this.style === 'v2' ? (scalarV2[scalar] ?? {}) : (scalarV3[scalar] ?? {}))
      if (scalar.startsWith('schema')) this.addMessage('apiextensions/v1.JSONSchemaProps', [])
    }
    return refTo(this.style, definition)
  }

  private addCustom(kind: CustomKind): void {
    const definition = definitionOfKind(kind)
    const root = customSchema(kind.schema, this.style)
    const meta = refTo(this.style, definitionOfMessage('meta/v1.ObjectMeta'))
    this.addMessage('meta/v1.ObjectMeta', [])
    this.addMessage('meta/v1.ListMeta', [])
    const words = (field: string): Schema => ({ description: describeField('', field), type: 'string' })
    const properties = {
      ...(root.properties as Schema | undefined),
      apiVersion: words('apiVersion'),
      kind: words('kind'),
      metadata: this.style === 'v2' ? meta : { allOf: [meta], default: {} },
    }
    this.schemas.set(definition, {
      ...root,
      description: (root.description as string | undefined) ?? kind.description,
      type: 'object',
      properties,
      'x-kubernetes-group-version-kind': [gvkOf(kind.resource)],
    })
    const listMeta = refTo(this.style, definitionOfMessage('meta/v1.ListMeta'))
    const item = refTo(this.style, definition)
    this.schemas.set(`${definition}List`, {
      description: `A list of ${kind.resource.kind}.`,
      type: 'object',
      required: ['items'],
      properties: {
        apiVersion: words('apiVersion'),
        kind: words('kind'),
        metadata: this.style === 'v2' ? listMeta : { allOf: [listMeta], default: {} },
        items: { type: 'array', items: this.style === 'v2' ? item : { allOf: [item], default: {} } },
      },
      'x-kubernetes-group-version-kind': [{ ...gvkOf(kind.resource), kind: kind.listKind }],
    })
  }
}

const plainScalars: Partial<Record<Scalar, Schema>> = {
  string: { type: 'string' },
  bool: { type: 'boolean' },
  int32: { type: 'integer', format: 'int32' },
  int64: { type: 'integer', format: 'int64' },
  double: { type: 'number', format: 'double' },
  bytes: { type: 'string', format: 'byte' },
}

const quantityWords = 'A number with a suffix: 500m, 2, 1Gi.'
const scalarV2: Partial<Record<Scalar, Schema>> = {
  quantity: { type: 'string', description: quantityWords },
  intorstring: { type: 'string', format: 'int-or-string', description: 'A number or a text.' },
  rawextension: { type: 'object', description: 'An object of any kind.' },
  time: { type: 'string', format: 'date-time', description: 'A time in RFC 3339, to the second.' },
  microtime: { type: 'string', format: 'date-time', description: 'A time in RFC 3339, to the microsecond.' },
  duration: { type: 'string', description: 'A span such as 1h30m.' },
  fieldsv1: { type: 'object', description: 'A tree of field names.' },
  json: { description: 'Any JSON value.' },
  schemaorarray: { description: 'A schema or a list of them.' },
  schemaorbool: { description: 'A schema or a boolean.' },
  schemaorstrings: { description: 'A schema or a list of names.' },
}
const scalarV3: Partial<Record<Scalar, Schema>> = {
  ...scalarV2,
  quantity: { oneOf: [{ type: 'string' }, { type: 'number' }], description: quantityWords },
  intorstring: {
    oneOf: [{ type: 'integer' }, { type: 'string' }],
    format: 'int-or-string',
    description: 'A number or a text.',
  },
}

/** v2 cannot say unions, null or free-form parts, and clients check by it: what it cannot say is left open. */
function customSchema(schema: JsonSchema, style: Style): Schema {
  if (style === 'v3') return schema as Schema
  return openSchema(schema as Schema)
}

function openSchema(schema: Schema): Schema {
  const { allOf: _1, anyOf: _2, oneOf: _3, not: _4, nullable, default: _5, ...rest } = schema
  const out: Schema = { ...rest }
  const isOpen =
    schema['x-kubernetes-preserve-unknown-fields'] === true || schema['x-kubernetes-embedded-resource'] === true
  if (nullable === true || isOpen) {
    delete out.type
    delete out.properties
    delete out.items
    delete out.additionalProperties
    delete out.required
    return out
  }
  if (schema['x-kubernetes-int-or-string'] === true) {
    delete out.type
    return out
  }
  if (out.properties !== undefined)
    out.properties = Object.fromEntries(
      Object.entries(out.properties as Schema).map(([k, v]) => [k, openSchema(v as Schema)]),
    )
  if (typeof out.items === 'object' && out.items !== null) out.items = openSchema(out.items as Schema)
  if (typeof out.additionalProperties === 'object' && out.additionalProperties !== null)
    out.additionalProperties = openSchema(out.additionalProperties as Schema)
  return out
}
