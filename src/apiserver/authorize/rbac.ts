import type { ClusterRole, ClusterRoleBinding, PolicyRule, RoleBinding, RoleRef, Subject } from '#api/gen/rbac-v1.ts'
import { clusterRoleBindings, clusterRoles, roleBindings, roles } from '#api/gen/resources.ts'
import { selectorFrom } from '#api/meta/selector.ts'
import type { Attributes, Decision, Registry, User } from '../step.ts'
import { ruleAllows } from './rules.ts'

/** What one binding gives one subject. */
export interface Grant {
  /** Empty for a ClusterRoleBinding: everywhere. */
  readonly namespace: string
  readonly rules: readonly PolicyRule[]
  readonly why: string
}

interface UserGrants {
  readonly grants: readonly Grant[]
  /** A role that is bound but does not exist, in upstream's words. */
  readonly missing: readonly string[]
  /** Whether any rule looks at object names: only then a decision depends on one. */
  readonly byName: boolean
  readonly decisions: Map<string, Decision>
}

type AnyBinding = ClusterRoleBinding | RoleBinding

/** Decisions remembered per user before they are all forgotten; a list of pods by name would otherwise grow it for ever. */
const decisionsMax = 10_000
const refused: Decision = { allowed: false, reason: '' }

/**
 * Roles and bindings, indexed by subject. A user's grants are gathered once and its decisions remembered until any role
 * or binding changes: these change rarely and are asked on every request.
 */
export class Rbac {
  readonly #registry: Registry
  readonly #bySubject = new Map<string, Map<string, AnyBinding>>()
  #byUser = new WeakMap<User, UserGrants>()
  #aggregated = new Map<string, readonly PolicyRule[]>()

  constructor(registry: Registry) {
    this.#registry = registry
    const forget = () => {
      this.#byUser = new WeakMap()
      this.#aggregated = new Map()
    }
    const rebind = (next: AnyBinding | undefined, old: AnyBinding | undefined) => {
      if (old) this.#unindex(old)
      if (next) this.#index(next)
      forget()
    }
    for (const binding of registry.list(clusterRoleBindings)) this.#index(binding)
    for (const binding of registry.list(roleBindings)) this.#index(binding)
    registry.onChange(clusterRoleBindings, rebind)
    registry.onChange(roleBindings, rebind)
    registry.onChange(clusterRoles, forget)
    registry.onChange(roles, forget)
  }

  authorize(asked: Attributes): Decision {
    const user = this.#of(asked.user)
    const { verb, group, resource, subresource, namespace, path } = asked
    const key =
      path === undefined
        ? `${verb} ${group} ${resource} ${subresource} ${namespace} ${user.byName ? asked.name : ''}`
        : `${verb} ${path}`
    const known = user.decisions.get(key)
    if (known) return known
    const decision = decide(user, asked)
    if (user.decisions.size >= decisionsMax) user.decisions.clear()
    user.decisions.set(key, decision)
    return decision
  }

  /** The rules a user has in a namespace (empty: everywhere), for rules reviews and the escalation check. */
  rulesFor(user: User, namespace: string): readonly PolicyRule[] {
    return this.#of(user)
      .grants.filter((g) => g.namespace === '' || g.namespace === namespace)
      .flatMap((g) => g.rules)
  }

  /** The rules behind a roleRef, aggregation included; undefined where the role does not exist. */
  rulesOf(ref: RoleRef, namespace: string): readonly PolicyRule[] | undefined {
    if (ref.kind === 'Role') {
      const role = this.#registry.get(roles, namespace, ref.name)
      return role && (role.rules ?? [])
    }
    const role = this.#registry.get(clusterRoles, '', ref.name)
    return role && (role.aggregationRule ? this.#aggregate(role) : (role.rules ?? []))
  }

  #of(user: User): UserGrants {
    const known = this.#byUser.get(user)
    if (known) return known
    const grants: Grant[] = []
    const missing: string[] = []
    const subjects = [`User ${user.name}`, ...user.groups.map((g) => `Group ${g}`)]
    for (const subject of subjects) {
      for (const binding of this.#bySubject.get(subject)?.values() ?? []) {
        const namespace = binding.metadata.namespace ?? ''
        const { kind, name } = binding.roleRef
        const rules = this.rulesOf(binding.roleRef, namespace)
        if (rules === undefined) missing.push(`${kind.toLowerCase()}.rbac.authorization.k8s.io "${name}" not found`)
        else grants.push({ namespace, rules, why: explain(binding, subject) })
      }
    }
    const byName = grants.some((g) => g.rules.some((r) => (r.resourceNames?.length ?? 0) > 0))
    const found = { grants, missing, byName, decisions: new Map<string, Decision>() }
    this.#byUser.set(user, found)
    return found
  }

  /** The union of the roles selected, taken from there and not from what a controller may have written into `rules`. */
  #aggregate(role: ClusterRole, seen: ReadonlySet<string> = new Set()): readonly PolicyRule[] {
    const { name } = role.metadata
    const known = this.#aggregated.get(name)
    if (known) return known
    const path = new Set([...seen, name])
    const selectors = (role.aggregationRule?.clusterRoleSelectors ?? []).map(selectorFrom)
    const rules: PolicyRule[] = []
    for (const other of this.#registry.list(clusterRoles)) {
      if (path.has(other.metadata.name)) continue
      if (!selectors.some((s) => s.matches(other.metadata.labels))) continue
      rules.push(...(other.aggregationRule ? this.#aggregate(other, path) : (other.rules ?? [])))
    }
    // Below another role a cycle may have been cut short: only what was asked for itself is remembered.
    if (seen.size === 0) this.#aggregated.set(name, rules)
    return rules
  }

  #index(binding: AnyBinding): void {
    for (const subject of binding.subjects ?? []) {
      const key = subjectKey(subject, binding.metadata.namespace)
      const bindings = this.#bySubject.get(key) ?? new Map<string, AnyBinding>()
      bindings.set(bindingKey(binding), binding)
      this.#bySubject.set(key, bindings)
    }
  }

  #unindex(binding: AnyBinding): void {
    for (const subject of binding.subjects ?? []) {
      const key = subjectKey(subject, binding.metadata.namespace)
      const bindings = this.#bySubject.get(key)
      bindings?.delete(bindingKey(binding))
      if (bindings?.size === 0) this.#bySubject.delete(key)
    }
  }
}

function decide({ grants, missing }: UserGrants, asked: Attributes): Decision {
  for (const { namespace, rules, why } of grants) {
    if (namespace !== '' && (namespace !== asked.namespace || asked.path !== undefined)) continue
    if (rules.some((rule) => ruleAllows(rule, asked))) return { allowed: true, reason: why }
  }
  if (missing.length === 0) return refused
  return { allowed: false, reason: `RBAC: ${missing.length === 1 ? missing[0] : `[${missing.join(', ')}]`}` }
}

const bindingKey = ({ metadata }: AnyBinding): string => `${metadata.namespace ?? ''}/${metadata.name}`

function subjectKey({ kind, name, namespace }: Subject, own: string | undefined): string {
  return kind === 'ServiceAccount' ? `User system:serviceaccount:${namespace ?? own ?? ''}:${name}` : `${kind} ${name}`
}

function explain({ kind, metadata, roleRef }: AnyBinding, subject: string): string {
  const bound = metadata.namespace === undefined ? metadata.name : `${metadata.name}/${metadata.namespace}`
  const [who, ...name] = subject.split(' ')
  return `RBAC: allowed by ${kind} "${bound}" of ${roleRef.kind} "${roleRef.name}" to ${who} "${name.join(' ')}"`
}
