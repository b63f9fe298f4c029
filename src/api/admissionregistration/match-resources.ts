import type { MatchResources, NamedRuleWithOperations } from '../gen/admissionregistration-v1.ts'
import { validateLabelSelector } from '../meta/labels.ts'
import { pathSegment } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const policies = ['Equivalent', 'Exact']
const operations = ['*', 'CONNECT', 'CREATE', 'DELETE', 'UPDATE']
const scopes = ['*', 'Cluster', 'Namespaced']

/** Fills in upstream's defaults, in place. */
export function defaultMatchResources(resources: MatchResources | undefined): void {
  if (resources === undefined) return
  resources.matchPolicy ??= 'Equivalent'
  resources.namespaceSelector ??= {}
  resources.objectSelector ??= {}
  for (const rule of [...(resources.resourceRules ?? []), ...(resources.excludeResourceRules ?? [])]) rule.scope ??= '*'
}

/** Upstream's rules on what a policy or binding is about. */
export function validateMatchResources(resources: MatchResources | undefined, path: string): FieldError[] {
  if (resources === undefined) return []
  const errors: FieldError[] = []
  const { matchPolicy, namespaceSelector, objectSelector } = resources
  if (matchPolicy === undefined) errors.push(fieldError.required(`${path}.matchPolicy`))
  else if (!policies.includes(matchPolicy))
    errors.push(fieldError.notSupported(`${path}.matchPolicy`, matchPolicy, policies))
  for (const [field, selector] of Object.entries({ namespaceSelector, objectSelector })) {
    if (selector === undefined) errors.push(fieldError.required(`${path}.${field}`))
    else errors.push(...validateLabelSelector(selector, `${path}.${field}`))
  }
  for (const field of ['resourceRules', 'excludeResourceRules'] as const)
    for (const [i, rule] of (resources[field] ?? []).entries())
      errors.push(...validateRule(rule, `${path}.${field}[${i}]`))
  return errors
}

function validateRule(rule: NamedRuleWithOperations, path: string): FieldError[] {
  const errors: FieldError[] = []
  const seen = new Set<string>()
  for (const [i, name] of (rule.resourceNames ?? []).entries()) {
    const at = `${path}.resourceNames[${i}]`
    for (const words of pathSegment(name)) errors.push(fieldError.invalid(at, name, words))
    if (seen.has(name)) errors.push(fieldError.duplicate(at, name))
    seen.add(name)
  }
  const alone = (field: 'operations' | 'apiGroups' | 'apiVersions', values: readonly string[]): void => {
    const at = `${path}.${field}`
    if (values.length === 0) errors.push(fieldError.required(at))
    const what = { operations: 'operations', apiGroups: 'API groups', apiVersions: 'API versions' }[field]
    if (values.length > 1 && values.includes('*'))
      errors.push(fieldError.invalid(at, values, `if '*' is present, must not specify other ${what}`))
  }
  alone('apiGroups', rule.apiGroups ?? [])
  alone('apiVersions', rule.apiVersions ?? [])
  for (const [i, version] of (rule.apiVersions ?? []).entries())
    if (version === '') errors.push(fieldError.required(`${path}.apiVersions[${i}]`))
  alone('operations', rule.operations ?? [])
  for (const [i, operation] of (rule.operations ?? []).entries())
    if (!operations.includes(operation))
      errors.push(fieldError.notSupported(`${path}.operations[${i}]`, operation, operations))
  errors.push(...validateResourceNames(rule.resources ?? [], `${path}.resources`))
  if (rule.scope !== undefined && !scopes.includes(rule.scope))
    errors.push(fieldError.notSupported(`${path}.scope`, rule.scope, scopes))
  return errors
}

/** `pods`, `pods/exec`, `pods/*`, `*`: none may say again what another says. */
function validateResourceNames(resources: readonly string[], path: string): FieldError[] {
  const errors: FieldError[] = []
  if (resources.length === 0) errors.push(fieldError.required(path))
  const whole = new Set<string>()
  const parts = new Set<string>()
  const plain = new Set<string>()
  const invalid = (i: number, resource: string, words: string): number =>
    errors.push(fieldError.invalid(`${path}[${i}]`, resource, words))
  for (const [i, text] of resources.entries()) {
    if (text === '') {
      errors.push(fieldError.required(`${path}[${i}]`))
      continue
    }
    if (text === '*/*') plain.add(text)
    const [resource = '', sub] = text.split('/', 2)
    if (whole.has(resource)) invalid(i, text, `if '${resource}/*' is present, must not specify ${text}`)
    if (sub !== undefined && parts.has(sub)) invalid(i, text, `if '*/${sub}' is present, must not specify ${text}`)
    if (sub === '*') whole.add(resource)
    if (resource === '*' && sub !== undefined) parts.add(sub)
  }
  if (resources.length > 1 && plain.has('*/*'))
    errors.push(fieldError.invalid(path, resources, "if '*/*' is present, must not specify other resources"))
  else if (resources.includes('*') && resources.some((text) => text !== '*' && !text.includes('/')))
    errors.push(
      fieldError.invalid(path, resources, "if '*' is present, must not specify other resources without subresources"),
    )
  return errors
}
