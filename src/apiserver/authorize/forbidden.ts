import { forbidden, StatusError } from '#api/meta/status.ts'
import type { Attributes, Decision } from '../step.ts'

/** `User "x" cannot list resource "pods" in API group "" in the namespace "default"` */
export function cannot({ user, verb, group, resource, subresource, namespace, path }: Attributes): string {
  const who = `User ${JSON.stringify(user.name)} cannot ${verb}`
  if (path !== undefined) return `${who} path ${JSON.stringify(path)}`
  const full = subresource === '' ? resource : `${resource}/${subresource}`
  const where = namespace === '' ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`
  return `${who} resource "${full}" in API group "${group}" ${where}`
}

/** The 403 of a refusal, in upstream's words. */
export function forbiddenFor(asked: Attributes, { reason }: Pick<Decision, 'reason'>): StatusError {
  const why = reason === '' ? cannot(asked) : `${cannot(asked)}: ${reason}`
  if (asked.path === undefined) return forbidden(asked, asked.name, why)
  return new StatusError({
    status: 'Failure',
    code: 403,
    reason: 'Forbidden',
    message: `forbidden: ${why}`,
    details: {},
  })
}
