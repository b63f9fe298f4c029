import { type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'

/** Whether a rule's `fieldPath` (`.spec.name`, `['a.b']`) leads to something that the schema has; lists have no names. */
export function isFieldPath(path: string, schema: JsonSchema): boolean {
  let at: JsonSchema | undefined = schema
  let rest = path
  while (rest !== '') {
    const found = /^\.([^.[\]]+)|^\['((?:[^'\\]|\\[abfnrtv'\\])*)'\]/.exec(rest)
    if (found === null) return false
    const name: string = found[1] ?? plainText(found[2] ?? '')
    const below: JsonSchema | undefined =
      at.properties === undefined ? valuesOf(at) : Object.hasOwn(at.properties, name) ? at.properties[name] : undefined
    if (below === undefined) return false
    at = below
    rest = rest.slice(found[0].length)
  }
  return path !== ''
}

const escapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}
const plainText = (text: string): string => text.replace(/\\(.)/g, (_, char: string) => escapes[char] ?? char)
