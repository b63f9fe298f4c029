import { findMessage } from '../schema/table.ts'
import { isObject } from './patch/merge.ts'

/**
 * A value as upstream's messages print it: its internal types have no JSON names, so that a struct in a message reads
 * `{"Type":"X","RollingUpdate":null}`.
 */
export function goForm(value: unknown, message: string): unknown {
  const schema = findMessage(message)
  if (schema === undefined || !isObject(value)) return value ?? null
  const form: Record<string, unknown> = {}
  for (const field of schema.fields.values()) {
    const inner = value[field.name]
    const name = acronyms[field.name] ?? `${field.name.charAt(0).toUpperCase()}${field.name.slice(1)}`
    if (field.repeated) {
      form[name] =
        Array.isArray(inner) && field.message ? inner.map((v) => goForm(v, field.message ?? '')) : (inner ?? null)
    } else if (field.map) form[name] = inner ?? null
    else if (field.message !== undefined) {
      // Selectors are the same type inside and outside, with its JSON names.
      if (field.message.startsWith('meta/')) form[name] = inner ?? null
      else form[name] = inner === undefined && field.pointer ? null : goForm(inner ?? {}, field.message)
    } else if (inner !== undefined || field.pointer) form[name] = inner ?? null
    else form[name] = field.scalar === 'string' ? '' : field.scalar === 'bool' ? false : 0
  }
  return form
}

/** Where Go's name is not just the JSON name with a capital. */
const acronyms: Readonly<Record<string, string>> = { seLinuxOptions: 'SELinuxOptions', apiGroup: 'APIGroup' }
