import type { Cell, Column } from '../kind.ts'
import type { KubeObject } from './resource.ts'
import { age } from './time.ts'

export type ColumnType = Column['type']

/** A column that is always shown. */
export function column<K extends KubeObject>(
  name: string,
  description: string,
  cell: (object: K, now: number) => Cell,
  type: ColumnType = 'string',
): Column<K> {
  return { name, type, description, priority: 0, cell }
}

/** A column of `-o wide`. */
export function wideColumn<K extends KubeObject>(
  name: string,
  description: string,
  cell: (object: K, now: number) => Cell,
  type: ColumnType = 'string',
): Column<K> {
  return { name, type, description, priority: 1, cell }
}

export const nameColumn: Column = {
  name: 'Name',
  type: 'string',
  format: 'name',
  description: 'Name of the object, unique among its kind in its namespace.',
  priority: 0,
  cell: (object) => object.metadata.name,
}

export const ageColumn: Column = {
  name: 'Age',
  type: 'string',
  description: 'Time since the object was created.',
  priority: 0,
  cell: (object, now) => age(object.metadata.creationTimestamp, now),
}

export const createdAtColumn: Column = {
  name: 'Created At',
  type: 'date',
  description: 'When the object was created.',
  priority: 0,
  cell: (object) => object.metadata.creationTimestamp ?? null,
}

/** What upstream prints for kinds without a printer of their own. */
export const plainColumns: readonly Column[] = [nameColumn, createdAtColumn]
export const nameAndAge: readonly Column[] = [nameColumn, ageColumn]

/** `a=b,c=d`, or `<none>`. */
export function formatLabels(labels: Readonly<Record<string, string>> | undefined): string {
  const pairs = Object.entries(labels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .sort()
  return pairs.length === 0 ? '<none>' : pairs.join(',')
}
