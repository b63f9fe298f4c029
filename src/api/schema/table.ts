import { readFileSync } from 'node:fs'

/** JSON forms that are not messages. `time` and the others below it have a protobuf message of their own. */
export type Scalar =
  | 'string'
  | 'bool'
  | 'int32'
  | 'int64'
  | 'double'
  | 'bytes'
  | 'time'
  | 'microtime'
  | 'duration'
  | 'quantity'
  | 'intorstring'
  | 'fieldsv1'
  | 'rawextension'
  | 'json'
  | 'schemaorarray'
  | 'schemaorbool'
  | 'schemaorstrings'

/** The one message that contains itself: the schema of custom resources, which has three JSON forms of its own. */
export const schemaMessage = 'apiextensions/v1.JSONSchemaProps'

/** One field of a message, as the generated table has it. */
export interface Field {
  /** JSON name. */
  readonly name: string
  /** Protobuf number; undefined where upstream has no protobuf form. */
  readonly number: number | undefined
  readonly scalar: Scalar | undefined
  /** Name of the message (`core/v1.PodSpec`) where it is one. */
  readonly message: string | undefined
  readonly repeated: boolean
  readonly map: boolean
  /** Upstream lists it as required in OpenAPI. */
  readonly required: boolean
  /** Go pointer: absent and zero are different. */
  readonly pointer: boolean
  /** Struct value that upstream always writes: `status: {}`. */
  readonly always: boolean
  /** Protobuf wraps the list in a message with one field `items`. */
  readonly wrapped: boolean
  /** Go's name of the type, for the words of decoding errors: `int32`, `[]v1.Container`. */
  readonly goType: string
  readonly listType: 'atomic' | 'set' | 'map' | undefined
  readonly listKeys: readonly string[]
  readonly mapType: 'atomic' | 'granular' | undefined
  /** Strategic merge: `merge`, `replace`, `retainKeys`, `merge,retainKeys`. */
  readonly patchStrategy: string | undefined
  readonly patchMergeKey: string | undefined
  readonly default: unknown
  readonly enum: readonly string[] | undefined
}

/** A field whose message's own fields appear in the parent's JSON object; protobuf may still nest it. */
export interface Inline {
  readonly number: number | undefined
  readonly message: string
}

export interface Message {
  /** `apps/v1.Deployment` */
  readonly name: string
  /** Go's type name: `Deployment`. */
  readonly goName: string
  /** Apply and merges take it as one value (`x-kubernetes-map-type: atomic`). */
  readonly atomic: boolean
  /** Every field of the JSON object, inline ones included, by JSON name. */
  readonly fields: ReadonlyMap<string, Field>
  /** Fields of its own, without those of inline messages. */
  readonly own: readonly Field[]
  readonly inline: readonly Inline[]
}

interface Row {
  readonly n: string
  readonly t: string
  readonly p?: number
  readonly r?: 1
  readonly m?: 1
  readonly q?: 1
  readonly s?: 1
  readonly i?: 1
  readonly ptr?: 1
  readonly w?: 1
  readonly g?: string
  readonly l?: 'atomic' | 'set' | 'map'
  readonly k?: readonly string[]
  readonly mt?: 'atomic' | 'granular'
  readonly ps?: string
  readonly mk?: string
  readonly d?: unknown
  readonly e?: readonly string[]
}

const { '#atomic': atomicNames, ...rows } = JSON.parse(
  readFileSync(new URL('../gen/table.json', import.meta.url), 'utf8'),
) as Record<string, Row[]> & { '#atomic': string[] }
const atomic = new Set(atomicNames)
const built = new Map<string, Message>()

const goScalars: Partial<Record<Scalar, string>> = {
  double: 'float64',
  bytes: '[]uint8',
  time: 'v1.Time',
  microtime: 'v1.MicroTime',
  duration: 'v1.Duration',
  quantity: 'resource.Quantity',
  intorstring: 'intstr.IntOrString',
  fieldsv1: 'v1.FieldsV1',
  rawextension: 'runtime.RawExtension',
  json: 'v1.JSON',
  schemaorarray: 'v1.JSONSchemaPropsOrArray',
  schemaorbool: 'v1.JSONSchemaPropsOrBool',
  schemaorstrings: 'v1.JSONSchemaPropsOrStringArray',
}

/** All message names, in the order of the table. */
export const messageNames = (): string[] => Object.keys(rows)

/** The message called so, or undefined. */
export function findMessage(name: string): Message | undefined {
  const known = built.get(name)
  if (known !== undefined) return known
  const own = Object.hasOwn(rows, name) ? rows[name] : undefined
  if (own === undefined) return undefined
  const fields = new Map<string, Field>()
  const message: Message = {
    name,
    goName: name.slice(name.lastIndexOf('.') + 1),
    atomic: atomic.has(name),
    fields,
    own: own.filter((r) => r.i === undefined).map(toField),
    inline: own.filter((r) => r.i === 1).map((r) => ({ number: r.p, message: r.t })),
  }
  for (const row of own)
    if (row.i === 1) for (const field of getMessage(row.t).fields.values()) fields.set(field.name, field)
  for (const field of message.own) fields.set(field.name, field)
  built.set(name, message)
  return message
}

/** Like findMessage, for names that come from the table or from our own kinds: absence is a mistake of the program. */
export function getMessage(name: string): Message {
  const message = findMessage(name)
  if (message === undefined) throw new Error(`The field table has no message "${name}"`)
  return message
}

function toField(row: Row): Field {
  const isMessage = row.t.includes('/')
  const scalar = isMessage ? undefined : (row.t as Scalar)
  return {
    name: row.n,
    number: row.p,
    scalar,
    message: isMessage ? row.t : undefined,
    repeated: row.r === 1,
    map: row.m === 1,
    required: row.q === 1,
    pointer: row.ptr === 1,
    always: row.s === 1,
    wrapped: row.w === 1,
    goType: goType(row, scalar),
    listType: row.l,
    listKeys: row.k ?? [],
    mapType: row.mt,
    patchStrategy: row.ps,
    patchMergeKey: row.mk,
    default: row.d,
    enum: row.e,
  }
}

function goType(row: Row, scalar: Scalar | undefined): string {
  const one = scalar === undefined ? row.t.slice(row.t.indexOf('/') + 1) : (row.g ?? goScalars[scalar] ?? scalar)
  const list = row.r === 1 ? `[]${one}` : one
  return row.m === 1 ? `map[string]${list}` : list
}
