import type { Scale } from '#api/gen/autoscaling-v1.ts'
import type { LabelSelector } from '#api/gen/meta-v1.ts'
import type { ScalePaths } from '#api/kind.ts'
import { isObject } from '#api/meta/patch/merge.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { formatSelector, selectorFrom } from '#api/meta/selector.ts'
import { fieldError, invalid } from '#api/meta/status.ts'
import type { Expected } from '#api/schema/decode.ts'

export const scaleExpected: Expected = { apiVersion: 'autoscaling/v1', kind: 'Scale', message: 'autoscaling/v1.Scale' }

/** The one view of everything that has replicas. */
export function scaleOf(object: KubeObject, paths: ScalePaths): Scale {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata
  const replicas = read(object, paths.specReplicas)
  const present = read(object, paths.statusReplicas)
  const selector = paths.labelSelector === undefined ? undefined : read(object, paths.labelSelector)
  const text = isObject(selector) ? formatSelector(selectorFrom(selector as LabelSelector)) : selector
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), uid, resourceVersion, creationTimestamp },
    spec: typeof replicas === 'number' && replicas !== 0 ? { replicas } : {},
    status: {
      replicas: typeof present === 'number' ? present : 0,
      ...(typeof text === 'string' ? { selector: text } : {}),
    },
  }
}

/** The object with the scale's replicas, in place. Throws 422. */
export function applyScale(object: KubeObject, scale: Scale, paths: ScalePaths): KubeObject {
  const replicas = scale.spec?.replicas ?? 0
  if (replicas < 0) {
    throw invalid('autoscaling', 'Scale', object.metadata.name, [
      fieldError.invalid('spec.replicas', replicas, 'must be greater than or equal to 0'),
    ])
  }
  const path = keysOf(paths.specReplicas)
  const last = path.pop()
  let at = object as unknown as Record<string, unknown>
  for (const key of path) {
    if (!isObject(at[key])) at[key] = {}
    at = at[key] as Record<string, unknown>
  }
  if (last !== undefined) at[last] = replicas
  const { uid, resourceVersion } = scale.metadata
  if (uid) object.metadata.uid = uid
  object.metadata.resourceVersion = resourceVersion ?? ''
  return object
}

const keysOf = (path: string): string[] => path.split('.').filter((key) => key !== '')

function read(object: unknown, path: string): unknown {
  return keysOf(path).reduce((at: unknown, key) => (isObject(at) ? at[key] : undefined), object)
}
