import type { CustomResourceColumnDefinition } from '#api/gen/apiextensions-v1.ts'
import type { Cell, Column } from '#api/kind.ts'
import { nameAndAge, nameColumn } from '#api/meta/columns.ts'
import { age } from '#api/meta/time.ts'
import { findAll, parsePath } from '#api/schema/custom/jsonpath.ts'

const types = ['string', 'integer', 'number', 'boolean', 'date'] as const

/** The columns of `kubectl get` that a definition names, after the name; without any, name and age. */
export function columnsOf(definitions: readonly CustomResourceColumnDefinition[]): readonly Column[] {
  if (definitions.length === 0) return nameAndAge
  return [nameColumn, ...definitions.map(columnOf)]
}

function columnOf(definition: CustomResourceColumnDefinition): Column {
  const path = parsePath(definition.jsonPath)
  const type = types.find((t) => t === definition.type) ?? 'string'
  return {
    name: definition.name,
    type,
    ...(definition.format ? { format: definition.format } : {}),
    description: definition.description ?? '',
    priority: (definition.priority ?? 0) > 0 ? 1 : 0,
    cell: (object, now) => (path === undefined ? null : cellOf(type, findAll(object, path)[0], now)),
  }
}

/** A value that is not of the column's type is shown as nothing, as upstream does. */
function cellOf(type: Column['type'], value: unknown, now: number): Cell {
  if (value === undefined || value === null) return null
  switch (type) {
    case 'integer':
      return typeof value === 'number' ? Math.trunc(value) : null
    case 'number':
      return typeof value === 'number' ? value : null
    case 'boolean':
      return typeof value === 'boolean' ? value : null
    case 'date':
      return typeof value === 'string' ? age(value, now) : null
    case 'string':
      return typeof value === 'string' ? value : JSON.stringify(value)
    default:
      return type satisfies never
  }
}
