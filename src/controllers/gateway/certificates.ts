import { isDeepStrictEqual } from 'node:util'
import type { PolicyRule, Role, RoleBinding, Subject } from '#api/gen/rbac-v1.ts'
import type { Draft } from '#client/client.ts'

/**
 * Nodes serve certificates, so they must read their Secrets: those that a Gateway names and may use, and no other. One
 * Role and its binding in each namespace say which; nothing else lets a node read them.
 */
export const certificatesName = 'weft:gateway-certificates'
export const managedLabels = { 'app.kubernetes.io/managed-by': 'weft-gateway-controller' } as const

const rulesFor = (names: readonly string[]): PolicyRule[] => [
  { verbs: ['get', 'list', 'watch'], apiGroups: [''], resources: ['secrets'], resourceNames: [...names] },
]

export type RoleAction =
  | { readonly do: 'create'; readonly role: Draft<Role> }
  | { readonly do: 'update'; readonly role: Role }
  | { readonly do: 'delete' }

/** What to do with the Role of a namespace. Pure. */
export function planRole(
  namespace: string,
  names: readonly string[] | undefined,
  present: Role | undefined,
): RoleAction | undefined {
  if (names === undefined || names.length === 0) return present === undefined ? undefined : { do: 'delete' }
  const rules = rulesFor(names)
  if (present === undefined)
    return {
      do: 'create',
      role: { metadata: { name: certificatesName, namespace, labels: { ...managedLabels } }, rules },
    }
  return isDeepStrictEqual(present.rules, rules) ? undefined : { do: 'update', role: { ...present, rules } }
}

/** Whoever serves certificates: nodes with a certificate of their own, and the chart's agents as their service account. */
export const certificateReaders: readonly Subject[] = [
  { apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'system:nodes' },
]

/** Binds the Role of a namespace to those who serve certificates. */
export const bindingFor = (namespace: string, readers: readonly Subject[]): Draft<RoleBinding> => ({
  metadata: { name: certificatesName, namespace, labels: { ...managedLabels } },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: certificatesName },
  subjects: [...readers],
})
