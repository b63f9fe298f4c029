import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from '#api/meta/finalizers.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { fieldError, invalid, modified } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'

/** What the fake's writes do to objects: the rules that controllers lean on, on copies, without storage. */

/** Kinds whose status a client may not write together with the rest. These have no status subresource. */
const withoutStatus = new Set(['Event', 'ConfigMap', 'Secret', 'Lease', 'Endpoints', 'EndpointSlice', 'ServiceAccount'])

const hasStatusSubresource = (resource: Resource): boolean => !withoutStatus.has(resource.kind)

/** `spec` and the like, for telling whether the generation goes up. */
function essence(object: KubeObject): string {
  const { metadata: _, status: __, ...rest } = object as KubeObject & { status?: unknown }
  return JSON.stringify(sorted(rest))
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, v]) => v !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, v]) => [k, sorted(v)]),
  )
}

export const sameJson = (a: unknown, b: unknown): boolean => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b))

/** What an update makes of `old`: `next` is a copy and is changed in place. */
export function prepareUpdate(resource: Resource, next: KubeObject, old: KubeObject, subresource: string): KubeObject {
  const sent = next.metadata.resourceVersion
  if (sent !== undefined && sent !== '' && sent !== old.metadata.resourceVersion)
    throw modified(resource, old.metadata.name)
  if (next.metadata.uid !== undefined && next.metadata.uid !== '' && next.metadata.uid !== old.metadata.uid)
    throw modified(resource, old.metadata.name)
  const body = next as KubeObject & { status?: unknown; spec?: unknown }
  const before = old as KubeObject & { status?: unknown; spec?: unknown }
  let result: KubeObject
  if (subresource === 'status' || subresource === 'approval') {
    result = { ...structuredClone(before), status: body.status } as KubeObject
    result.metadata.labels = next.metadata.labels ?? {}
    result.metadata.annotations = next.metadata.annotations ?? {}
    if (Object.keys(result.metadata.labels).length === 0) delete result.metadata.labels
    if (Object.keys(result.metadata.annotations).length === 0) delete result.metadata.annotations
  } else {
    result = body
    if (hasStatusSubresource(resource)) {
      if (before.status === undefined) delete body.status
      else body.status = structuredClone(before.status)
    }
    // A namespace's own finalizers have a door of their own.
    if (old.kind === 'Namespace' && subresource !== 'finalize') body.spec = structuredClone(before.spec)
    checkFinalizers(resource, next, old)
  }
  const kept = old.metadata
  Object.assign(result.metadata, {
    name: kept.name,
    uid: kept.uid,
    creationTimestamp: kept.creationTimestamp,
    resourceVersion: kept.resourceVersion,
    ...(kept.namespace === undefined ? {} : { namespace: kept.namespace }),
    ...(kept.generation === undefined ? {} : { generation: kept.generation }),
    ...(kept.deletionTimestamp === undefined ? {} : { deletionTimestamp: kept.deletionTimestamp }),
    ...(kept.deletionGracePeriodSeconds === undefined
      ? {}
      : { deletionGracePeriodSeconds: kept.deletionGracePeriodSeconds }),
  })
  if (kept.deletionTimestamp === undefined) delete result.metadata.deletionTimestamp
  result.apiVersion = old.apiVersion
  result.kind = old.kind
  if (essence(result) !== essence(old) && kept.generation !== undefined)
    result.metadata.generation = kept.generation + 1
  return result
}

function checkFinalizers(resource: Resource, next: KubeObject, old: KubeObject): void {
  if (old.metadata.deletionTimestamp === undefined) return
  const added = (next.metadata.finalizers ?? []).filter((f) => !old.metadata.finalizers?.includes(f))
  if (added.length === 0) return
  const words = 'no new finalizers can be added if the object is being deleted'
  throw invalid(resource.group, resource.kind, old.metadata.name, [
    fieldError.forbidden('metadata.finalizers', `${words}, found new finalizers ${JSON.stringify(added)}`),
  ])
}

/** Whether anything still holds an object that is being deleted. */
export function isHeld(object: KubeObject): boolean {
  if ((object.metadata.finalizers ?? []).length > 0) return true
  if (object.kind === 'Namespace') {
    const { finalizers = [] } = (object as KubeObject & { spec?: { finalizers?: string[] } }).spec ?? {}
    return finalizers.length > 0
  }
  return (object.metadata.deletionGracePeriodSeconds ?? 0) > 0
}

/** What DELETE makes of a copy of the object; the caller removes it when `isHeld` says no. */
export function markDeleted(object: KubeObject, options: Partial<DeleteOptions>, now: number): void {
  const { metadata } = object
  const policy = options.propagationPolicy ?? (options.orphanDependents === true ? 'Orphan' : undefined)
  const finalizers = new Set(metadata.finalizers ?? [])
  if (policy !== undefined) {
    for (const finalizer of [orphanFinalizer, foregroundFinalizer]) finalizers.delete(finalizer)
    if (policy === 'Orphan') finalizers.add(orphanFinalizer)
    if (policy === 'Foreground') finalizers.add(foregroundFinalizer)
    if (finalizers.size > 0) metadata.finalizers = [...finalizers]
    else delete metadata.finalizers
  }
  const grace = graceSeconds(object, options.gracePeriodSeconds)
  if (metadata.deletionTimestamp === undefined) {
    metadata.deletionTimestamp = formatTime(now + grace * 1000)
    metadata.deletionGracePeriodSeconds = grace
    if (metadata.generation !== undefined) metadata.generation++
  } else if (grace < (metadata.deletionGracePeriodSeconds ?? 0)) {
    metadata.deletionTimestamp = formatTime(now + grace * 1000)
    metadata.deletionGracePeriodSeconds = grace
  }
  if (object.kind === 'Namespace') {
    const namespace = object as KubeObject & { status?: { phase?: string } }
    namespace.status = { ...namespace.status, phase: 'Terminating' }
  }
}

/** Only pods that a node runs are given time. */
function graceSeconds(object: KubeObject, requested: number | undefined): number {
  if (object.kind !== 'Pod') return 0
  const { spec = {}, status = {} } = object as KubeObject & {
    spec?: { nodeName?: string; terminationGracePeriodSeconds?: number }
    status?: { phase?: string }
  }
  if (!spec.nodeName || status.phase === 'Succeeded' || status.phase === 'Failed') return 0
  return requested ?? spec.terminationGracePeriodSeconds ?? 30
}
