import { applyJsonPatch } from '#api/meta/patch/json.ts'
import { applyMergePatch, type JsonObject } from '#api/meta/patch/merge.ts'
import { applyStrategicPatch } from '#api/meta/patch/strategic.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { forbidden, type StatusError, unsupportedMediaType } from '#api/meta/status.ts'
import type { ListOptions, PatchType } from '../client.ts'

/** What the fake's answers are made of, apart from its storage. */

/** The kind's name in the field table: `core/v1.Pod`, `apps/v1.Deployment`. */
export const messageOf = ({ group, version, kind }: Resource): string =>
  `${group === '' ? 'core' : group.split('.')[0]}/${version}.${kind}`

/** The object with a patch of any type that the fake has. */
export function patched(resource: Resource, old: KubeObject, type: PatchType, patch: unknown): unknown {
  switch (type) {
    case 'json':
      return applyJsonPatch(old, patch)
    case 'merge':
      return applyMergePatch(old, patch)
    case 'strategic':
      return applyStrategicPatch(old as unknown as JsonObject, patch, messageOf(resource))
    case 'apply':
      throw unsupportedMediaType('the fake client has no server-side apply')
    default:
      return type satisfies never
  }
}

/** What a request for metadata only gets to see. */
export function partial(object: KubeObject, { metadataOnly }: ListOptions): KubeObject {
  if (metadataOnly !== true) return object
  return { apiVersion: 'meta.k8s.io/v1', kind: 'PartialObjectMetadata', metadata: object.metadata }
}

/** The revision and the last key of a continue token. */
export function parseContinue(token: string | undefined): [number, string] | undefined {
  if (token === undefined) return undefined
  const colon = token.indexOf(':')
  return [Number(token.slice(0, colon)), token.slice(colon + 1)]
}

/** The refusal to make something in a namespace that is going. */
export function terminating(resource: Resource, name: string, namespace: string): StatusError {
  const words = `unable to create new content in namespace ${namespace} because it is being terminated`
  const error = forbidden(resource, name, words)
  const cause = {
    reason: 'NamespaceTerminating',
    message: `namespace ${namespace} is being terminated`,
    field: 'metadata.namespace',
  }
  Object.assign(error.status, { details: { ...error.status.details, causes: [cause] } })
  return error
}
