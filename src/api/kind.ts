import type { KubeObject, Resource } from './meta/resource.ts'
import type { FieldError } from './meta/status.ts'

/** A cell of a server-side table; numbers stay numbers. */
export type Cell = string | number | boolean | null

/** One column of `kubectl get` (Table, meta.k8s.io/v1). */
export interface Column<K extends KubeObject = KubeObject> {
  readonly name: string
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'date'
  readonly format?: string
  readonly description: string
  /** 0 always shown, 1 only with `-o wide`. */
  readonly priority: 0 | 1
  cell(object: K, now: number): Cell
}

/** Something below an object: `pods/status`, `deployments/scale`, `serviceaccounts/token`. */
export interface Subresource {
  readonly name: string
  readonly verbs: readonly string[]
  /** Where its bodies are of another kind (`Scale` autoscaling/v1, `Binding` v1, `Eviction` policy/v1). */
  readonly kind?: string
  readonly group?: string
  readonly version?: string
}

/**
 * Everything that is particular to one kind; the registry does the rest. Built-in kinds are one file each below
 * src/api/<group>/ and listed in scheme.ts; a CustomResourceDefinition becomes such values at run time.
 * Objects handed to these functions are the request's own copy and may be changed where the name says so.
 */
export interface KindDefinition<K extends KubeObject = KubeObject> {
  readonly resource: Resource<K>
  /** Name in the field table (`core/v1.Pod`); undefined for custom resources, which bring `schema`. */
  readonly message: string | undefined
  readonly singular: string
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
  readonly verbs: readonly string[]
  readonly subresources: readonly Subresource[]
  /** A sentence of ours, shown by `kubectl explain`. */
  readonly description: string
  /** Store prefix where it is not `<group>/<resource>`: both event groups share one. */
  readonly storage?: string
  /** `generation` counts changes of everything but metadata and status. */
  readonly hasGeneration: boolean
  /** Upstream's AllowUnconditionalUpdate: a PUT without resourceVersion is taken. */
  readonly unconditionalUpdate: boolean
  /** Upstream's AllowCreateOnUpdate: PUT of an absent object creates it. */
  readonly createOnUpdate: boolean
  /** Fills in upstream's defaults, in place. */
  defaults(object: K): void
  /** Drops what a client may not set on create (status), sets what the server must, in place. */
  prepareCreate?(object: K): void
  /** Carries over what an update may not change (status on the main resource), in place. */
  prepareUpdate?(next: K, old: K): void
  validate(object: K): FieldError[]
  validateUpdate(next: K, old: K): FieldError[]
  validateStatusUpdate?(next: K, old: K): FieldError[]
  readonly columns: readonly Column<K>[]
  /** Field selector label -> value, beyond metadata.name and metadata.namespace. */
  readonly selectableFields: Readonly<Record<string, (object: K) => string>>
  /** Warnings (299) for what is allowed but deprecated or odd. */
  warnings?(object: K): string[]
  /** Deletion with grace: pods. Returns the seconds to wait, 0 deletes at once. */
  graceSeconds?(object: K, requested: number | undefined): number
  /** propagationPolicy when the request names none. */
  readonly defaultPropagation?: 'Background' | 'Orphan'
  readonly scale?: ScalePaths
  /**
   * Custom resources: what `schema/conform.ts` is for a built-in message. Checks types and prunes in place, returns the
   * paths of unknown fields, throws `DecodeError`.
   */
  conform?(value: unknown): readonly string[]
  /** Custom resources: the structural schema of this version, for managedFields and OpenAPI. */
  readonly schema?: Record<string, unknown>
  /**
   * Where objects are stored in another form than this version's: the two event groups, custom resources of several
   * versions. Both may change their argument and return it. `apiVersion` is the stored form's.
   */
  readonly stored?: {
    readonly apiVersion: string
    to(object: K): KubeObject
    from(object: KubeObject): K
  }
}

/** Where `/scale` reads and writes; paths as in CRDs: `.spec.replicas`. */
export interface ScalePaths {
  readonly specReplicas: string
  readonly statusReplicas: string
  readonly labelSelector?: string
}
