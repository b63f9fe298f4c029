import type { PolicyRule, RoleRef } from '#api/gen/rbac-v1.ts'
import type { Attributes, Authorize, Decision, Registry, User } from '../step.ts'
import { NodeAuthorizer } from './node.ts'
import { Rbac } from './rbac.ts'
import { beyond } from './rules.ts'

export interface Authorizer {
  readonly authorize: Authorize
  /** A user's rules in a namespace; `incomplete` where they cannot be listed (nodes). */
  rulesFor(user: User, namespace: string): { readonly rules: readonly PolicyRule[]; readonly incomplete: boolean }
  /** The rules behind a roleRef; undefined where there is no such role. */
  rulesOf(ref: RoleRef, namespace: string): readonly PolicyRule[] | undefined
  /** What `wanted` gives that the user does not hold: nobody may grant more than he has. */
  notHeld(user: User, namespace: string, wanted: readonly PolicyRule[]): readonly PolicyRule[]
}

const everything: readonly PolicyRule[] = [
  { verbs: ['*'], apiGroups: ['*'], resources: ['*'] },
  { verbs: ['*'], nonResourceURLs: ['*'] },
]

/** system:masters, then nodes, then RBAC: the first that allows is enough, and the reasons of those that do not are joined. */
export function createAuthorize(registry: Registry): Authorizer {
  const rbac = new Rbac(registry)
  const node = new NodeAuthorizer(registry)
  const isMaster = (user: User): boolean => user.groups.includes('system:masters')
  const master: Decision = { allowed: true, reason: '' }
  const held = (user: User, namespace: string): readonly PolicyRule[] =>
    isMaster(user) ? everything : rbac.rulesFor(user, namespace)
  return {
    authorize(asked: Attributes): Decision {
      if (isMaster(asked.user)) return master
      const ofNode = node.authorize(asked)
      if (ofNode?.allowed) return ofNode
      const ofRoles = rbac.authorize(asked)
      if (ofRoles.allowed || ofNode === undefined || ofNode.reason === '') return ofRoles
      return { allowed: false, reason: ofRoles.reason === '' ? ofNode.reason : `${ofNode.reason}\n${ofRoles.reason}` }
    },
    rulesFor: (user, namespace) => ({
      rules: held(user, namespace),
      incomplete: user.groups.includes('system:nodes'),
    }),
    rulesOf: (ref, namespace) => rbac.rulesOf(ref, namespace),
    notHeld: (user, namespace, wanted) => beyond(held(user, namespace), wanted),
  }
}
