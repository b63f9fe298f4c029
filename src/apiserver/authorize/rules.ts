import type { PolicyRule } from '#api/gen/rbac-v1.ts'
import type { Attributes } from '../step.ts'

const any = '*'
const has = (list: readonly string[] | undefined, value: string): boolean =>
  list !== undefined && (list.includes(value) || list.includes(any))

/** Whether one rule allows what is asked. */
export function ruleAllows(rule: PolicyRule, asked: Attributes): boolean {
  if (!has(rule.verbs, asked.verb)) return false
  return asked.path === undefined ? resourceAllowed(rule, asked) : pathAllowed(rule, asked.path)
}

function resourceAllowed(rule: PolicyRule, { group, resource, subresource, name }: Attributes): boolean {
  if (!has(rule.apiGroups, group) || rule.resources === undefined) return false
  const full = subresource === '' ? resource : `${resource}/${subresource}`
  const named = rule.resources.some((r) => r === any || r === full || (subresource !== '' && r === `*/${subresource}`))
  return (
    named && (rule.resourceNames === undefined || rule.resourceNames.length === 0 || rule.resourceNames.includes(name))
  )
}

function pathAllowed(rule: PolicyRule, path: string): boolean {
  return (rule.nonResourceURLs ?? []).some(
    (url) => url === any || url === path || (url.endsWith(any) && path.startsWith(url.slice(0, -1))),
  )
}

/** One verb on one resource (or path): what a rule says, taken apart. */
function atoms(rule: PolicyRule): PolicyRule[] {
  const of = (list: readonly string[] | undefined): readonly string[] => list ?? []
  const found: PolicyRule[] = []
  for (const verb of of(rule.verbs)) {
    for (const group of of(rule.apiGroups)) {
      for (const resource of of(rule.resources)) {
        const atom = { verbs: [verb], apiGroups: [group], resources: [resource] }
        if (of(rule.resourceNames).length === 0) found.push(atom)
        else for (const name of of(rule.resourceNames)) found.push({ ...atom, resourceNames: [name] })
      }
    }
    for (const url of of(rule.nonResourceURLs)) found.push({ verbs: [verb], nonResourceURLs: [url] })
  }
  return found
}

/** What `wanted` would give beyond `held`, in atoms; empty when everything is held already. */
export function beyond(held: readonly PolicyRule[], wanted: readonly PolicyRule[]): PolicyRule[] {
  return wanted.flatMap(atoms).filter((atom) => !held.some((rule) => covers(rule, atom)))
}

function covers(rule: PolicyRule, atom: PolicyRule): boolean {
  const [verb = '', group = '', resource = '', url = ''] = [
    atom.verbs[0],
    atom.apiGroups?.[0],
    atom.resources?.[0],
    atom.nonResourceURLs?.[0],
  ]
  if (!has(rule.verbs, verb)) return false
  if (atom.nonResourceURLs) return pathAllowed(rule, url)
  if (!has(rule.apiGroups, group) || rule.resources === undefined) return false
  const subresource = resource.split('/')[1]
  const named = rule.resources.some(
    (r) => r === any || r === resource || (subresource !== undefined && r === `*/${subresource}`),
  )
  const names = rule.resourceNames ?? []
  const name = atom.resourceNames?.[0]
  return named && (names.length === 0 || (name !== undefined && names.includes(name)))
}

const list = (values: readonly string[]): string => `[${values.map((v) => JSON.stringify(v)).join(', ')}]`

/** `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`: how a refusal shows a rule. */
export function formatRule(rule: PolicyRule): string {
  const parts: string[] = []
  if (rule.apiGroups?.length) parts.push(`APIGroups:${list(rule.apiGroups)}`)
  if (rule.resources?.length) parts.push(`Resources:${list(rule.resources)}`)
  if (rule.nonResourceURLs?.length) parts.push(`NonResourceURLs:${list(rule.nonResourceURLs)}`)
  if (rule.resourceNames?.length) parts.push(`ResourceNames:${list(rule.resourceNames)}`)
  if (rule.verbs.length) parts.push(`Verbs:${list(rule.verbs)}`)
  return `{${parts.join(', ')}}`
}
