import type { Role } from '../gen/rbac-v1.ts'
import { roles } from '../gen/resources.ts'
import { plainColumns } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { nameIsPathSegment } from '../meta/names.ts'
import { validateRules } from './rules.ts'

export const role = defineKind<Role>({
  resource: roles,
  message: 'rbac/v1.Role',
  description: 'Rights inside one namespace.',
  createOnUpdate: true,
  nameCheck: nameIsPathSegment,
  validate: ({ rules = [] }) => validateRules(rules, { namespaced: true }),
  columns: plainColumns,
})
