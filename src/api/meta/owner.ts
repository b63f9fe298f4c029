import type { OwnerReference } from '../gen/meta-v1.ts'
import { formatApiVersion } from './gvk.ts'
import type { KubeObject, Resource } from './resource.ts'

/** The reference that says `controller: true`; there is at most one. */
export function controllerOf(object: KubeObject): OwnerReference | undefined {
  return object.metadata.ownerReferences?.find((reference) => reference.controller === true)
}

/** Whether `owner` controls `object`; by uid, because names come back. */
export function isControlledBy(object: KubeObject, owner: KubeObject): boolean {
  return controllerOf(object)?.uid === owner.metadata.uid
}

export function ownerReference<K extends KubeObject>(resource: Resource<K>, owner: K): OwnerReference {
  return {
    apiVersion: formatApiVersion(resource),
    kind: resource.kind,
    name: owner.metadata.name,
    uid: owner.metadata.uid,
  }
}

/** What a controller writes into what it makes: the owner's deletion in the foreground waits for it. */
export function controllerReference<K extends KubeObject>(resource: Resource<K>, owner: K): OwnerReference {
  return { ...ownerReference(resource, owner), controller: true, blockOwnerDeletion: true }
}
