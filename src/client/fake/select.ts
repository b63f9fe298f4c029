import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest } from '#api/meta/status.ts'

/** Selectors as the fake's lists and watches take them: equality, sets and existence for labels; equality for fields. */
export function selects(object: KubeObject, labelSelector = '', fieldSelector = ''): boolean {
  return (
    splitOutside(labelSelector).every((part) => matchesLabel(part, object.metadata.labels ?? {})) &&
    fieldSelector
      .split(',')
      .filter((part) => part !== '')
      .every((part) => matchesField(part, object))
  )
}

/** Splits at commas that are not inside parentheses. */
function splitOutside(text: string): string[] {
  return text
    .split(/,(?![^(]*\))/)
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

function matchesLabel(part: string, labels: Record<string, string>): boolean {
  const set = /^(\S+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(part)
  if (set) {
    const [, key = '', operator, list = ''] = set
    const values = list.split(',').map((v) => v.trim())
    const value = labels[key]
    return operator === 'in' ? value !== undefined && values.includes(value) : !values.includes(value ?? '\0')
  }
  const equality = /^([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)$/.exec(part)
  if (equality) {
    const [, key = '', operator, value = ''] = equality
    return operator === '!=' ? labels[key] !== value : labels[key] === value
  }
  if (/^![^\s=!]+$/.test(part)) return labels[part.slice(1)] === undefined
  if (/^[^\s=!]+$/.test(part)) return labels[part] !== undefined
  throw badRequest(`unable to parse requirement: ${part}`)
}

function matchesField(part: string, object: KubeObject): boolean {
  const match = /^([^=!]+)(==|=|!=)(.*)$/.exec(part)
  if (!match) throw badRequest(`invalid field selector: ${part}`)
  const [, path = '', operator, wanted = ''] = match
  let value: unknown = object
  for (const name of path.split('.'))
    value = value !== null && typeof value === 'object' ? (value as Record<string, unknown>)[name] : undefined
  const text = value === undefined || value === null ? '' : String(value)
  return operator === '!=' ? text !== wanted : text === wanted
}
