import type { KindDefinition } from '#api/kind.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { FieldError } from '#api/meta/status.ts'
import { conform } from '#api/schema/conform.ts'

/** An object as a client writes it. */
export type Manifest = Record<string, unknown>

/** What the API server makes of an object on create, up to its rules: decoded, defaulted, prepared. */
export function created<K extends KubeObject>(kind: KindDefinition<K>, manifest: Manifest): K {
  const { group, version, namespaced } = kind.resource
  const { metadata = {}, ...rest } = structuredClone(manifest) as { metadata?: Manifest }
  const object = {
    apiVersion: group === '' ? version : `${group}/${version}`,
    kind: kind.resource.kind,
    metadata: { name: 'it', ...(namespaced ? { namespace: 'default' } : {}), uid: 'u', ...metadata },
    ...rest,
  } as unknown as K
  if (kind.message !== undefined) conform(kind.message, object)
  kind.defaults(object)
  kind.prepareCreate?.(object)
  return object
}

/** `path: words` of each finding. */
export const words = (errors: readonly FieldError[]): string[] => errors.map((e) => `${e.path}: ${e.message}`)

export function problems<K extends KubeObject>(kind: KindDefinition<K>, manifest: Manifest): string[] {
  return words(kind.validate(created(kind, manifest)))
}

/** What is said to an update of `before` to `after`; the resourceVersion is there as in any read object. */
export function updateProblems<K extends KubeObject>(
  kind: KindDefinition<K>,
  before: Manifest,
  after: Manifest,
): string[] {
  const { old, next } = updated(kind, before, after)
  return words(kind.validateUpdate(next, old))
}

export function updated<K extends KubeObject>(
  kind: KindDefinition<K>,
  before: Manifest,
  after: Manifest,
): { old: K; next: K } {
  const old = created(kind, before)
  old.metadata.resourceVersion = '1'
  const next = created(kind, after)
  next.metadata.resourceVersion = '1'
  kind.prepareUpdate?.(next, old)
  return { old, next }
}
