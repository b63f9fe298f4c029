import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding } from '#api/gen/rbac-v1.ts'
import { clusterRoleBindings, clusterRoles, roleBindings, roles } from '#api/gen/resources.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import { formatRule } from '../authorize/rules.ts'
import type { AdmissionRequest } from '../step.ts'
import { type AdmissionStep, isAbout, objectOf, oldOf, refusal } from './step.ts'

const everything: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
]

/** Nobody grants by a role or a binding what he does not hold, unless he may `escalate` or `bind`. */
export function escalation(authorizer: Authorizer): AdmissionStep {
  const may = ({ attributes }: AdmissionRequest, verb: string, resource: string, name: string): boolean =>
    authorizer.authorize({ ...attributes, verb, resource, subresource: '', name }).allowed

  const checkHeld = (request: AdmissionRequest, wanted: readonly PolicyRule[]): void => {
    const { user, namespace } = request.attributes
    const missing = authorizer.notHeld(user, namespace, wanted)
    if (missing.length === 0) return
    const groups = user.groups.map((g) => JSON.stringify(g)).join(' ')
    const shown = [...new Set(missing.map(formatRule))].join('\n')
    throw refusal(
      request,
      `user "${user.name}" (groups=[${groups}]) is attempting to grant RBAC permissions not currently held:\n${shown}`,
    )
  }

  const checkRole = (
    request: AdmissionRequest,
    next: Role | ClusterRole,
    old: Role | ClusterRole | undefined,
  ): void => {
    const rules = (role: Role | ClusterRole | undefined) => JSON.stringify(role?.rules ?? [])
    const aggregation = (role: Role | ClusterRole | undefined) =>
      role && 'aggregationRule' in role && role.aggregationRule ? JSON.stringify(role.aggregationRule) : ''
    if (old && rules(next) === rules(old) && aggregation(next) === aggregation(old)) return
    if (may(request, 'escalate', request.attributes.resource, next.metadata.name)) return
    // What an aggregated role will hold is not known yet: it may become anything.
    const aggregated = aggregation(next) !== '' && aggregation(next) !== aggregation(old)
    checkHeld(request, aggregated ? everything : (next.rules ?? []))
  }

  const checkBinding = (
    request: AdmissionRequest,
    next: RoleBinding | ClusterRoleBinding,
    old: RoleBinding | ClusterRoleBinding | undefined,
  ): void => {
    const what = ({ subjects, roleRef }: RoleBinding | ClusterRoleBinding) => JSON.stringify([subjects ?? [], roleRef])
    if (old && what(next) === what(old)) return
    const { kind, name } = next.roleRef
    if (may(request, 'bind', kind === 'Role' ? 'roles' : 'clusterroles', name)) return
    const rules = authorizer.rulesOf(next.roleRef, request.attributes.namespace)
    if (rules === undefined) {
      throw refusal(request, `${kind.toLowerCase()}s.rbac.authorization.k8s.io "${name}" not found`)
    }
    checkHeld(request, rules)
  }

  return {
    name: 'RoleEscalation',
    validate(request) {
      if (request.operation === 'DELETE') return
      for (const resource of [roles, clusterRoles] as const) {
        const next = objectOf<Role | ClusterRole>(request, resource)
        if (isAbout(request, resource) && next) checkRole(request, next, oldOf<Role | ClusterRole>(request, resource))
      }
      for (const resource of [roleBindings, clusterRoleBindings] as const) {
        const next = objectOf<RoleBinding | ClusterRoleBinding>(request, resource)
        const old = oldOf<RoleBinding | ClusterRoleBinding>(request, resource)
        if (isAbout(request, resource) && next) checkBinding(request, next, old)
      }
    },
  }
}
