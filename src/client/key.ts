import type { Resource } from '#api/meta/resource.ts'
import { compareText } from '#base/order.ts'
import type { ObjectKey } from './client.ts'

/** The name of an object within its resource, as work queues and stores use it: `namespace/name`, or `name`. */
export function keyOf(object: { readonly metadata: { readonly namespace?: string; readonly name: string } }): string {
  const { namespace, name } = object.metadata
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`
}

/** The inverse of `keyOf`. */
export function parseKey(key: string): ObjectKey {
  const slash = key.indexOf('/')
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) }
}

export const formatKey = ({ namespace, name }: ObjectKey): string =>
  namespace === undefined || namespace === '' ? name : `${namespace}/${name}`

/** `pods`, `deployments.apps`: the resource's name in messages and as a map key. */
export const qualifiedName = ({ group, resource }: Resource): string =>
  group === '' ? resource : `${resource}.${group}`

/** Revisions are integers, comparable within a resource (facts: KEP-5504). Empty counts as 0. */
export function compareRevisions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length
  return compareText(a, b)
}
