import type { RoleBinding } from '../gen/rbac-v1.ts'
import { roleBindings } from '../gen/resources.ts'
import { defineKind } from '../meta/define.ts'
import { nameIsPathSegment } from '../meta/names.ts'
import { bindingColumns } from './columns.ts'
import { defaultBinding, roleRefUnchanged, validateBinding } from './rules.ts'

export const roleBinding = defineKind<RoleBinding>({
  resource: roleBindings,
  message: 'rbac/v1.RoleBinding',
  description: 'Gives a role to users, groups and service accounts in its namespace.',
  createOnUpdate: true,
  nameCheck: nameIsPathSegment,
  defaults: defaultBinding,
  validate: (binding) => validateBinding(binding, { namespaced: true }),
  validateUpdate: (next, old) => [
    ...validateBinding(next, { namespaced: true }),
    ...roleRefUnchanged(next.roleRef, old.roleRef),
  ],
  columns: bindingColumns,
})
