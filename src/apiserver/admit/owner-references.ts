import type { OwnerReference } from '#api/gen/meta-v1.ts'
import * as builtin from '#api/gen/resources.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { Resource } from '#api/meta/resource.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import type { AdmissionRequest, Registry } from '../step.ts'
import { type AdmissionStep, refusal } from './step.ts'

const builtinByKind = new Map(Object.values(builtin).map((r) => [`${formatApiVersion(r)}/${r.kind}`, r as Resource]))

/**
 * An owner reference is a right: whoever sets one has the object deleted with its owner, and with blockOwnerDeletion may
 * hold the owner back. So he must be allowed to delete the one and to put finalizers on the other.
 */
export function ownerReferences(registry: Registry, { authorize }: Pick<Authorizer, 'authorize'>): AdmissionStep {
  const resourceOf = ({ apiVersion, kind }: OwnerReference): Resource | undefined => {
    const known = builtinByKind.get(`${apiVersion}/${kind}`)
    if (known) return known
    const [group = '', version = ''] = apiVersion.split('/')
    for (const { spec } of registry.list(builtin.customResourceDefinitions)) {
      if (spec.group !== group || spec.names.kind !== kind) continue
      return { group, version, resource: spec.names.plural, kind, namespaced: spec.scope === 'Namespaced' }
    }
    return undefined
  }
  return {
    name: 'OwnerReferencesPermissionEnforcement',
    validate(request) {
      const { operation, object, old, attributes } = request
      if (operation === 'DELETE' || object === undefined) return
      const next = object.metadata?.ownerReferences ?? []
      const before = old?.metadata.ownerReferences ?? []
      if (JSON.stringify(next) === JSON.stringify(before)) return
      if (operation === 'UPDATE') {
        const { allowed, reason } = authorize({ ...attributes, verb: 'delete', subresource: '' })
        if (!allowed) throw refusal(request, `cannot set an ownerRef on a resource you can't delete: ${reason}, <nil>`)
      }
      for (const ref of newlyBlocking(next, before)) {
        const owner = resourceOf(ref)
        if (owner === undefined) {
          throw refusal(
            request,
            `cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion ${ref.apiVersion} Kind ${ref.kind}`,
          )
        }
        const { allowed, reason } = authorize(finalizersOf(owner, ref.name, request))
        if (allowed) continue
        throw refusal(
          request,
          `cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: ${reason}, <nil>`,
        )
      }
    },
  }
}

const newlyBlocking = (next: readonly OwnerReference[], before: readonly OwnerReference[]): OwnerReference[] =>
  next.filter((ref) => ref.blockOwnerDeletion && !before.some((b) => b.blockOwnerDeletion && b.uid === ref.uid))

const finalizersOf = (owner: Resource, name: string, { attributes }: AdmissionRequest) => ({
  user: attributes.user,
  verb: 'update',
  group: owner.group,
  version: owner.version,
  resource: owner.resource,
  subresource: 'finalizers',
  namespace: owner.namespaced ? attributes.namespace : '',
  name,
  path: undefined,
})
