import type { KubeObject } from '#api/meta/resource.ts'
import { parseSelector } from '#api/meta/selector.ts'
import { badRequest } from '#api/meta/status.ts'

/** Selectors as the fake's lists and watches take them; fields by any path, where a server has a few per kind. */
export function selects(object: KubeObject, labelSelector = '', fieldSelector = ''): boolean {
  return (
    parseSelector(labelSelector).matches(object.metadata.labels) &&
    fieldSelector
      .split(',')
      .filter((part) => part !== '')
      .every((part) => matchesField(part, object))
  )
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
