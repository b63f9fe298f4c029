import { randomBytes } from 'node:crypto'

/** Whom the parts inside the server are; each has the rights of its own name and no other. */
export const schedulerIdentity = 'system:kube-scheduler'
/** Reads the copies that the controllers share. */
export const controllerManagerIdentity = 'system:kube-controller-manager'
export const controllerIdentity = (controller: string): string => `system:serviceaccount:kube-system:${controller}`

export interface InternalUser {
  readonly name: string
  readonly groups: readonly string[]
}

/** A new random token for each name: they live in this process only, and end with it. */
export function issueTokens(names: readonly string[]): {
  readonly tokenOf: ReadonlyMap<string, string>
  readonly users: ReadonlyMap<string, InternalUser>
} {
  const tokenOf = new Map(names.map((name) => [name, randomBytes(32).toString('base64url')]))
  const users = new Map([...tokenOf].map(([name, token]) => [token, { name, groups: groupsOf(name) }]))
  return { tokenOf, users }
}

/** As the authenticator of service-account tokens gives them (kubernetes: serviceaccount.MakeGroupNames). */
function groupsOf(name: string): string[] {
  const [, , kind, namespace] = `:${name}`.split(':')
  return kind === 'serviceaccount'
    ? ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated']
    : ['system:authenticated']
}
