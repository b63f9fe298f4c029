import type { ClusterRoleBinding } from '../gen/rbac-v1.ts'
import { clusterRoleBindings } from '../gen/resources.ts'
import { defineKind } from '../meta/define.ts'
import { nameIsPathSegment } from '../meta/names.ts'
import { bindingColumns } from './columns.ts'
import { defaultBinding, roleRefUnchanged, validateBinding } from './rules.ts'

export const clusterRoleBinding = defineKind<ClusterRoleBinding>({
  resource: clusterRoleBindings,
  message: 'rbac/v1.ClusterRoleBinding',
  description: 'Gives a role to users, groups and service accounts everywhere.',
  createOnUpdate: true,
  nameCheck: nameIsPathSegment,
  defaults: defaultBinding,
  validate: (binding) => validateBinding(binding, { namespaced: false }),
  validateUpdate: (next, old) => [
    ...validateBinding(next, { namespaced: false }),
    ...roleRefUnchanged(next.roleRef, old.roleRef),
  ],
  columns: bindingColumns,
})
