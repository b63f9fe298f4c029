import type { RoleRef, Subject } from '../gen/rbac-v1.ts'
import type { Column } from '../kind.ts'
import { ageColumn, column, nameColumn, wideColumn } from '../meta/columns.ts'
import type { KubeObject } from '../meta/resource.ts'

interface Binding extends KubeObject {
  roleRef: RoleRef
  subjects?: Subject[]
}

const names = (binding: Binding, kind: string): string =>
  (binding.subjects ?? [])
    .filter((subject) => subject.kind === kind)
    .map(({ namespace, name }) => (kind === 'ServiceAccount' ? `${namespace ?? ''}/${name}` : name))
    .join(', ')

export const bindingColumns: readonly Column<Binding>[] = [
  nameColumn,
  column('Role', 'The role it gives.', ({ roleRef }) => `${roleRef.kind}/${roleRef.name}`),
  ageColumn,
  wideColumn('Users', 'Users it is given to.', (binding) => names(binding, 'User')),
  wideColumn('Groups', 'Groups it is given to.', (binding) => names(binding, 'Group')),
  wideColumn('ServiceAccounts', 'Service accounts it is given to.', (binding) => names(binding, 'ServiceAccount')),
]
