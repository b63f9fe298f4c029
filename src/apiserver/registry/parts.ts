import { sameJson } from '#api/meta/patch/json.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { FieldError } from '#api/meta/status.ts'

/** Which part of an object a write may change. Pure. */

/** What no client may change, whatever it sends. */
export function keepSystemFields(next: KubeObject, { metadata: old, apiVersion, kind }: KubeObject): KubeObject {
  const { metadata } = next
  metadata.uid = old.uid
  metadata.name = old.name
  metadata.creationTimestamp = old.creationTimestamp
  metadata.resourceVersion = old.resourceVersion
  restore(metadata, old, 'namespace')
  restore(metadata, old, 'generation')
  restore(metadata, old, 'deletionTimestamp')
  restore(metadata, old, 'deletionGracePeriodSeconds')
  restore(metadata, old, 'generateName')
  delete metadata.selfLink
  return { ...next, apiVersion, kind }
}

function restore<T extends object, F extends keyof T>(to: T, from: T, field: F): void {
  if (from[field] === undefined) delete to[field]
  else to[field] = from[field]
}

/** Kinds whose annotations may be written through their status, as upstream's strategies for them let it. */
const annotatedWithStatus: ReadonlySet<string> = new Set(['Pod', 'Node', 'Deployment', 'ReplicaSet', 'DaemonSet'])

/** The present object with only the part that a subresource may write. */
export function onlyPart(part: 'status' | 'finalize', wanted: KubeObject, present: KubeObject): KubeObject {
  const managed = wanted.metadata.managedFields
  const metadata = { ...present.metadata, ...(managed ? { managedFields: managed } : {}) }
  if (part === 'status') {
    // Kubelets and controllers write what they know into annotations along with the status: a Deployment's revision.
    const { annotations, labels } = wanted.metadata
    if (annotatedWithStatus.has(present.kind)) {
      if (annotations) metadata.annotations = annotations
      if (labels && present.kind === 'Node') metadata.labels = labels
    }
    const { status } = wanted as { status?: unknown }
    return { ...present, metadata, ...(status === undefined ? {} : { status }) } as KubeObject
  }
  const finalizers = (wanted as { spec?: { finalizers?: unknown } }).spec?.finalizers
  const spec = { ...(present as { spec?: object }).spec, finalizers }
  return { ...present, metadata, spec } as KubeObject
}

/** Whether only metadata or status differ. */
export function sameBeyondStatus(next: KubeObject, old: KubeObject): boolean {
  const strip = (object: KubeObject): unknown => {
    const { metadata: _m, status: _s, apiVersion: _a, kind: _k, ...rest } = object as KubeObject & { status?: unknown }
    return rest
  }
  return sameJson(strip(next), strip(old))
}

export function finalizerErrors({ metadata: next }: KubeObject, { metadata: old }: KubeObject): FieldError[] {
  if (old.deletionTimestamp === undefined) return []
  const added = (next.finalizers ?? []).filter((each) => !old.finalizers?.includes(each))
  if (added.length === 0) return []
  return [
    {
      type: 'FieldValueForbidden',
      path: 'metadata.finalizers',
      message: `Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
    },
  ]
}

/** Deletion was asked for, nobody holds it any longer, and no grace is left: the update that brought this about removes it. */
export function mayGo(object: KubeObject): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds = 0, finalizers } = object.metadata
  if (deletionTimestamp === undefined || deletionGracePeriodSeconds > 0 || (finalizers?.length ?? 0) > 0) return false
  const held = (object as { spec?: { finalizers?: readonly string[] } }).spec?.finalizers
  return object.kind !== 'Namespace' || (held?.length ?? 0) === 0
}
