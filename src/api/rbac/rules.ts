import type { PolicyRule, RoleRef, Subject } from '../gen/rbac-v1.ts'
import { goForm } from '../meta/go-form.ts'
import { dns1123Subdomain, pathSegment } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** kk:pkg/apis/rbac/validation and defaults, for the four kinds. */

const rbacGroup = 'rbac.authorization.k8s.io'

export function validateRules(rules: readonly PolicyRule[], { namespaced }: { namespaced: boolean }): FieldError[] {
  const errors: FieldError[] = []
  for (const [i, rule] of rules.entries()) {
    const at = `rules[${i}]`
    const { verbs = [], apiGroups = [], resources = [], resourceNames = [], nonResourceURLs = [] } = rule
    if (verbs.length === 0) errors.push(fieldError.required(`${at}.verbs`, 'verbs must contain at least one value'))
    if (nonResourceURLs.length > 0) {
      if (namespaced) {
        errors.push(
          fieldError.invalid(
            `${at}.nonResourceURLs`,
            nonResourceURLs,
            'namespaced rules cannot apply to non-resource URLs',
          ),
        )
      }
      if (apiGroups.length + resources.length + resourceNames.length > 0) {
        errors.push(
          fieldError.invalid(
            `${at}.nonResourceURLs`,
            nonResourceURLs,
            'rules cannot apply to both regular resources and non-resource URLs',
          ),
        )
      }
      continue
    }
    if (apiGroups.length === 0) {
      errors.push(fieldError.required(`${at}.apiGroups`, 'resource rules must supply at least one api group'))
    }
    if (resources.length === 0) {
      errors.push(fieldError.required(`${at}.resources`, 'resource rules must supply at least one resource'))
    }
  }
  return errors
}

/** Users and groups are of this API's group, service accounts of the core one. */
export function defaultBinding(binding: { roleRef: RoleRef; subjects?: Subject[] }): void {
  binding.roleRef.apiGroup ||= rbacGroup
  for (const subject of binding.subjects ?? []) {
    subject.apiGroup ??= subject.kind === 'User' || subject.kind === 'Group' ? rbacGroup : ''
    if (subject.apiGroup === '' && (subject.kind === 'User' || subject.kind === 'Group')) subject.apiGroup = rbacGroup
    if (subject.apiGroup === '') delete subject.apiGroup
  }
}

export function validateBinding(
  { roleRef, subjects = [] }: { roleRef: RoleRef; subjects?: Subject[] },
  { namespaced }: { namespaced: boolean },
): FieldError[] {
  const errors: FieldError[] = []
  if (roleRef.apiGroup !== rbacGroup) {
    errors.push(fieldError.notSupported('roleRef.apiGroup', roleRef.apiGroup ?? '', [rbacGroup]))
  }
  const kinds = namespaced ? ['Role', 'ClusterRole'] : ['ClusterRole']
  if (!kinds.includes(roleRef.kind)) errors.push(fieldError.notSupported('roleRef.kind', roleRef.kind, kinds))
  if (!roleRef.name) errors.push(fieldError.required('roleRef.name'))
  else
    for (const words of pathSegment(roleRef.name)) errors.push(fieldError.invalid('roleRef.name', roleRef.name, words))
  for (const [i, subject] of subjects.entries()) validateSubject(subject, namespaced, `subjects[${i}]`, errors)
  return errors
}

function validateSubject(subject: Subject, namespaced: boolean, path: string, errors: FieldError[]): void {
  const { kind, name, namespace = '', apiGroup = '' } = subject
  if (!name) errors.push(fieldError.required(`${path}.name`))
  if (kind === 'ServiceAccount') {
    if (name) for (const words of dns1123Subdomain(name)) errors.push(fieldError.invalid(`${path}.name`, name, words))
    if (apiGroup !== '') errors.push(fieldError.notSupported(`${path}.apiGroup`, apiGroup, ['']))
    if (namespace === '' && !namespaced) errors.push(fieldError.required(`${path}.namespace`))
  } else if (kind === 'User' || kind === 'Group') {
    if (apiGroup !== rbacGroup) errors.push(fieldError.notSupported(`${path}.apiGroup`, apiGroup, [rbacGroup]))
  } else errors.push(fieldError.notSupported(`${path}.kind`, kind ?? '', ['ServiceAccount', 'User', 'Group']))
}

/** A binding that names another role is another binding. */
export function roleRefUnchanged(next: RoleRef, old: RoleRef): FieldError[] {
  const isSame = next.apiGroup === old.apiGroup && next.kind === old.kind && next.name === old.name
  return isSame ? [] : [fieldError.invalid('roleRef', goForm(next, 'rbac/v1.RoleRef'), 'cannot change roleRef')]
}
