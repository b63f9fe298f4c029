import type { ClusterRole } from '../gen/rbac-v1.ts'
import { clusterRoles } from '../gen/resources.ts'
import { plainColumns } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { validateLabelSelector } from '../meta/labels.ts'
import { nameIsPathSegment } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { validateRules } from './rules.ts'

export const clusterRole = defineKind<ClusterRole>({
  resource: clusterRoles,
  message: 'rbac/v1.ClusterRole',
  description: 'Rights everywhere, or in the namespace of the binding that gives them.',
  createOnUpdate: true,
  nameCheck: nameIsPathSegment,
  validate({ rules = [], aggregationRule }) {
    const errors: FieldError[] = validateRules(rules, { namespaced: false })
    if (aggregationRule === undefined) return errors
    const selectors = aggregationRule.clusterRoleSelectors ?? []
    const at = 'aggregationRule.clusterRoleSelectors'
    if (selectors.length === 0) {
      errors.push(fieldError.required(at, 'at least one clusterRoleSelector required if aggregationRule is non-nil'))
    }
    for (const [i, selector] of selectors.entries()) {
      const found = validateLabelSelector(selector, `${at}[${i}]`)
      errors.push(...found)
      if (found.length > 0) errors.push(fieldError.invalid(`${at}[${i}]`, null, 'invalid label selector.'))
    }
    return errors
  },
  columns: plainColumns,
})
