import type { ProtoField } from './proto.ts'
import type { Row } from './row.ts'

/** Messages that the table knows as scalars with a JSON form of their own. */
const scalarMessages = new Set(
  'Time MicroTime Duration FieldsV1 JSON JSONSchemaPropsOrArray JSONSchemaPropsOrBool JSONSchemaPropsOrStringArray ExtraValue Verbs Patch List'.split(
    ' ',
  ),
)
const protoScalars: Record<string, string> = {
  string: 'string',
  bool: 'bool',
  int32: 'int32',
  int64: 'int64',
  uint32: 'int64',
  double: 'double',
  bytes: 'bytes',
  Time: 'time',
  MicroTime: 'microtime',
  Duration: 'duration',
  Quantity: 'quantity',
  IntOrString: 'intorstring',
  RawExtension: 'rawextension',
  FieldsV1: 'fieldsv1',
  JSON: 'json',
  JSONSchemaPropsOrArray: 'schemaorarray',
  JSONSchemaPropsOrBool: 'schemaorbool',
  JSONSchemaPropsOrStringArray: 'schemaorstrings',
  ExtraValue: 'string',
  Verbs: 'string',
}

/**
 * Compares what was read from struct tags with the published generated.proto of the same package: every message, number,
 * repetition and type. Returns one line per disagreement.
 */
export function disagreements(
  short: string,
  table: Readonly<Record<string, readonly Row[]>>,
  proto: ReadonlyMap<string, readonly ProtoField[]>,
): string[] {
  const wrong: string[] = []
  for (const [name, fields] of proto) {
    const rows = table[`${short}.${name}`]
    if (rows === undefined) {
      if (!scalarMessages.has(name)) wrong.push(`${short}.${name} is missing`)
      continue
    }
    for (const field of fields) {
      const row = rows.find((r) => r.p === field.number)
      if (row === undefined) {
        wrong.push(`${short}.${name}: no field ${field.number} (${field.name})`)
        continue
      }
      const map = /^map<string, (.*)>$/.exec(field.type)
      const type = (map?.[1] ?? field.type).split('.').at(-1) ?? ''
      const wrapped = type === 'ExtraValue' || type === 'Verbs'
      const same =
        (protoScalars[type] ?? type) === row.t.split('.').at(-1) &&
        (row.r === 1) === (field.repeated || wrapped) &&
        (row.m === 1) === (map !== null) &&
        (row.w === 1) === wrapped
      if (!same)
        wrong.push(`${short}.${name}: field ${field.number} is ${field.type}, the table has ${JSON.stringify(row)}`)
    }
    for (const row of rows)
      if (row.p !== undefined && !fields.some((f) => f.number === row.p))
        wrong.push(`${short}.${name}: extra field ${row.n}`)
  }
  return wrong
}
