import type { KubeObject } from './resource.ts'
import { badRequest } from './status.ts'

/** Field selectors (`?fieldSelector=spec.nodeName=a,status.phase!=Running`): only the labels a kind lists are known. */

export interface FieldRequirement {
  readonly field: string
  readonly operator: '=' | '!='
  readonly value: string
}

export interface FieldSelector<K extends KubeObject = KubeObject> {
  readonly requirements: readonly FieldRequirement[]
  matches(object: K): boolean
}

export type FieldGetter<K extends KubeObject = KubeObject> = (object: K) => string

const metadataFields: Readonly<Record<string, FieldGetter>> = {
  'metadata.name': (object) => object.metadata.name,
  'metadata.namespace': (object) => object.metadata.namespace ?? '',
}

/**
 * Throws the 400 a real API server gives: for a term that is none, and for a label this kind does not select by.
 * `fields` are the kind's own, beyond metadata.name and metadata.namespace.
 */
export function parseFieldSelector<K extends KubeObject>(
  text: string,
  fields: Readonly<Record<string, FieldGetter<K>>>,
): FieldSelector<K> {
  const requirements = parseTerms(text)
  const tests = requirements.map(({ field, operator, value }) => {
    const own = Object.hasOwn(fields, field) ? fields[field] : undefined
    const get = own ?? (Object.hasOwn(metadataFields, field) ? metadataFields[field] : undefined)
    if (get === undefined) {
      throw badRequest(
        Object.keys(fields).length === 0
          ? `${JSON.stringify(field)} is not a known field selector: only "metadata.name", "metadata.namespace"`
          : `field label not supported: ${field}`,
      )
    }
    return operator === '=' ? (object: K) => get(object) === value : (object: K) => get(object) !== value
  })
  return { requirements, matches: (object) => tests.every((test) => test(object)) }
}

/** The value the selector fixes for a field, for finding objects by an index. */
export function exactField(selector: FieldSelector, field: string): string | undefined {
  return selector.requirements.find((r) => r.field === field && r.operator === '=')?.value
}

/** Requirements in sorted order of their text. Throws a 400. */
function parseTerms(text: string): FieldRequirement[] {
  const requirements: FieldRequirement[] = []
  for (const term of splitTerms(text).sort()) {
    if (term === '') continue
    const match = /^(.*?)(!=|==|=)(.*)$/s.exec(term)
    if (!match) throw badRequest(`invalid selector: '${text}'; can't understand '${term}'`)
    const [, field = '', operator, value = ''] = match
    const wanted = unescapeValue(value)
    // A term about nothing says nothing.
    if (field !== '' || wanted !== '')
      requirements.push({ field, operator: operator === '!=' ? '!=' : '=', value: wanted })
  }
  return requirements
}

/** At commas that no backslash protects. */
function splitTerms(text: string): string[] {
  const terms: string[] = []
  let start = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === ',') {
      terms.push(text.slice(start, i))
      start = i + 1
    }
  }
  terms.push(text.slice(start))
  return terms
}

function unescapeValue(text: string): string {
  if (!/[\\,=]/.test(text)) return text
  return text.replace(/\\(.?)|[,=]/gs, (found, escaped: string | undefined) => {
    if (escaped === undefined)
      throw badRequest(`invalid field selector: unescaped character in value: ${found.charCodeAt(0)}`)
    if (escaped !== '\\' && escaped !== ',' && escaped !== '=') {
      throw badRequest(`invalid field selector: invalid escape sequence: ${found}`)
    }
    return escaped
  })
}
