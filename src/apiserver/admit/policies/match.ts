import type { MatchResources, NamedRuleWithOperations } from '#api/gen/admissionregistration-v1.ts'
import { namespaces } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { type Selector, selectorFrom } from '#api/meta/selector.ts'
import type { AdmissionRequest, Registry } from '../../step.ts'

/** What a policy or binding is about, ready to be asked often. */
export interface Matcher {
  readonly resources: MatchResources
  readonly namespaces: Selector
  readonly objects: Selector
}

export const matcherOf = (resources: MatchResources): Matcher => ({
  resources,
  namespaces: selectorFrom(resources.namespaceSelector ?? {}),
  objects: selectorFrom(resources.objectSelector ?? {}),
})

/**
 * Whether a request is one of those; the resource that matched tells in which version the policy wants to see the
 * object. Undefined: it is none.
 */
export function matchRequest(matcher: Matcher, request: AdmissionRequest, registry: Registry): Resource | undefined {
  const { resources } = matcher
  const rules = resources.resourceRules ?? []
  if (rules.length > 0 && !rules.some((rule) => mayMatch(rule, request))) return undefined
  if (!matchesNamespace(matcher.namespaces, request, registry)) return undefined
  if (!matchesObjects(matcher.objects, request)) return undefined
  const versions = versionsOf(request, resources.matchPolicy ?? 'Equivalent', registry)
  if (matchRules(resources.excludeResourceRules ?? [], request, versions) !== undefined) return undefined
  return rules.length === 0 ? versions[0] : matchRules(rules, request, versions)
}

/** The request's own version first, then those that the same objects are served in. */
function versionsOf({ attributes }: AdmissionRequest, policy: string, registry: Registry): Resource[] {
  const { group, version, resource } = attributes
  const same = [...registry.resources()].filter((r) => r.group === group && r.resource === resource)
  const own = same.filter((r) => r.version === version)
  return policy === 'Exact' ? own : [...own, ...same.filter((r) => r.version !== version)]
}

function matchRules(
  rules: readonly NamedRuleWithOperations[],
  request: AdmissionRequest,
  versions: readonly Resource[],
): Resource | undefined {
  return versions.find((resource) => rules.some((rule) => matchRule(rule, request, resource)))
}

const holds = (values: readonly string[] | undefined, wanted: string): boolean =>
  values?.some((value) => value === '*' || value === wanted) ?? false

/** Nearly all requests are none of a policy's: told by the names alone. */
const mayMatch = ({ apiGroups, resources = [] }: NamedRuleWithOperations, { attributes }: AdmissionRequest): boolean =>
  holds(apiGroups, attributes.group) &&
  resources.some((text) => {
    const [resource] = text.split('/', 1)
    return resource === '*' || resource === attributes.resource
  })

function matchRule(rule: NamedRuleWithOperations, { attributes, operation }: AdmissionRequest, at: Resource): boolean {
  const isNamespace = at.group === '' && at.resource === 'namespaces'
  const isCluster = isNamespace || attributes.namespace === ''
  const isInScope = (rule.scope ?? '*') === '*' || (rule.scope === 'Cluster') === isCluster
  if (!isInScope || !holds(rule.operations, operation)) return false
  if (!holds(rule.apiGroups, at.group) || !holds(rule.apiVersions, at.version)) return false
  const names = rule.resourceNames ?? []
  if (names.length > 0 && !names.includes(attributes.name)) return false
  return (rule.resources ?? []).some((text) => {
    const [resource, subresource = ''] = text.split('/', 2)
    const isResource = resource === '*' || resource === at.resource
    return isResource && (subresource === '*' || subresource === attributes.subresource)
  })
}

/** Cluster-wide objects are not in a namespace that could be left out; a Namespace is judged by its own labels. */
function matchesNamespace(
  selector: Selector,
  { attributes, object, old }: AdmissionRequest,
  registry: Registry,
): boolean {
  if (selector.requirements.length === 0) return true
  const isNamespace = attributes.group === '' && attributes.resource === 'namespaces'
  if (isNamespace) {
    const itself = (attributes.subresource === '' ? object : undefined) ?? old
    const known = itself ?? registry.get(namespaces, '', attributes.name)
    return selector.matches(known?.metadata.labels ?? {})
  }
  if (attributes.namespace === '') return true
  const namespace = registry.get(namespaces, '', attributes.namespace)
  return namespace !== undefined && selector.matches(namespace.metadata.labels ?? {})
}

const matchesObjects = (selector: Selector, { object, old }: AdmissionRequest): boolean =>
  selector.requirements.length === 0 || matchesLabels(selector, object) || matchesLabels(selector, old)

const matchesLabels = (selector: Selector, object: KubeObject | undefined): boolean =>
  object?.metadata !== undefined && selector.matches(object.metadata.labels ?? {})
