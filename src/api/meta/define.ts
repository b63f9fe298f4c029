import type { Column, KindDefinition, ScalePaths, Subresource } from '../kind.ts'
import { plainColumns } from './columns.ts'
import { contentFinalizer, foregroundFinalizer, orphanFinalizer } from './finalizers.ts'
import { type NameCheck, nameIsDnsSubdomain, qualifiedName } from './names.ts'
import { validateObjectMeta, validateObjectMetaUpdate } from './object-meta.ts'
import type { KubeObject, Resource } from './resource.ts'
import { type FieldError, fieldError } from './status.ts'

export const allVerbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'] as const
const subresourceVerbs = ['get', 'patch', 'update'] as const

export const statusSubresource: Subresource = { name: 'status', verbs: subresourceVerbs }
export const scaleSubresource: Subresource = {
  name: 'scale',
  verbs: subresourceVerbs,
  kind: 'Scale',
  group: 'autoscaling',
  version: 'v1',
}

/** What a kind's file says; the rest is the same for all. */
export interface KindOptions<K extends KubeObject> {
  readonly resource: Resource<K>
  readonly message: string
  readonly description: string
  readonly shortNames?: readonly string[]
  readonly categories?: readonly string[]
  readonly verbs?: readonly string[]
  readonly subresources?: readonly Subresource[]
  readonly storage?: string
  readonly hasGeneration?: boolean
  readonly unconditionalUpdate?: boolean
  readonly createOnUpdate?: boolean
  readonly nameCheck?: NameCheck
  /** Finalizers need no owner in their names: definitions of custom resources have one of the server's. */
  readonly plainFinalizers?: boolean
  /** A create may bring its status along: nodes register themselves with it. */
  readonly createsWithStatus?: boolean
  readonly defaults?: (object: K) => void
  readonly prepareCreate?: (object: K) => void
  readonly prepareUpdate?: (next: K, old: K) => void
  /** Everything but metadata. Also run on updates, unless `validateUpdate` is there. */
  readonly validate?: (object: K) => FieldError[]
  /** Everything but metadata. */
  readonly validateUpdate?: (next: K, old: K) => FieldError[]
  readonly validateStatusUpdate?: (next: K, old: K) => FieldError[]
  readonly columns?: readonly Column<K>[]
  readonly selectableFields?: Readonly<Record<string, (object: K) => string>>
  readonly warnings?: (object: K) => string[]
  readonly graceSeconds?: (object: K, requested: number | undefined) => number
  readonly defaultPropagation?: 'Background' | 'Orphan'
  readonly scale?: ScalePaths
}

const none = (_object?: KubeObject): FieldError[] => []

const standardFinalizers: ReadonlySet<string> = new Set([contentFinalizer, orphanFinalizer, foregroundFinalizer])

/** Built-in kinds take no finalizer that has no owner in its name. */
function validateFinalizerNames({ metadata }: KubeObject): FieldError[] {
  const errors: FieldError[] = []
  for (const [i, name] of (metadata.finalizers ?? []).entries()) {
    const path = `metadata.finalizers[${i}]`
    if (name.includes('/') || standardFinalizers.has(name)) continue
    for (const words of qualifiedName(name)) errors.push(fieldError.invalid(path, name, words))
    errors.push(fieldError.invalid(path, name, 'name is neither a standard finalizer name nor is it fully qualified'))
  }
  return errors
}

/** A kind with `/status` keeps it from writes to the object itself; `status` is what an empty one looks like. */
export function defineKind<K extends KubeObject>(options: KindOptions<K>): KindDefinition<K> {
  const { resource, nameCheck = nameIsDnsSubdomain } = options
  const validate = options.validate ?? none
  const validateFinalizers = options.plainFinalizers ? none : validateFinalizerNames
  const hasStatus = options.subresources?.some(({ name }) => name === 'status') ?? false
  const { prepareCreate, prepareUpdate, ...optional } = pickOptional(options)
  return {
    ...optional,
    resource,
    message: options.message,
    singular: resource.kind.toLowerCase(),
    shortNames: options.shortNames ?? [],
    categories: options.categories ?? [],
    verbs: options.verbs ?? allVerbs,
    subresources: options.subresources ?? [],
    description: options.description,
    hasGeneration: options.hasGeneration ?? false,
    unconditionalUpdate: options.unconditionalUpdate ?? true,
    createOnUpdate: options.createOnUpdate ?? false,
    defaults: options.defaults ?? (() => {}),
    prepareCreate(object) {
      if (hasStatus && !options.createsWithStatus) (object as WithStatus).status = {}
      prepareCreate?.(object)
    },
    prepareUpdate(next, old) {
      if (hasStatus) (next as WithStatus).status = (old as WithStatus).status
      prepareUpdate?.(next, old)
    },
    validate(object) {
      return join(
        join(validateObjectMeta(object, resource.namespaced, nameCheck), validateFinalizers(object)),
        validate(object),
      )
    },
    validateUpdate(next, old) {
      return join(
        join(validateObjectMetaUpdate(next, old), validateFinalizers(next)),
        options.validateUpdate ? options.validateUpdate(next, old) : validate(next),
      )
    },
    validateStatusUpdate(next, old) {
      return join(validateObjectMetaUpdate(next, old), options.validateStatusUpdate?.(next, old) ?? none())
    },
    columns: options.columns ?? plainColumns,
    selectableFields: options.selectableFields ?? {},
  }
}

interface WithStatus extends KubeObject {
  status?: unknown
}

const join = (a: FieldError[], b: FieldError[]): FieldError[] =>
  b.length === 0 ? a : a.length === 0 ? b : [...a, ...b]

/** Only what is there: an optional property that is present and undefined is not the same. */
function pickOptional<K extends KubeObject>(options: KindOptions<K>) {
  return {
    ...(options.prepareCreate ? { prepareCreate: options.prepareCreate } : {}),
    ...(options.prepareUpdate ? { prepareUpdate: options.prepareUpdate } : {}),
    ...(options.storage === undefined ? {} : { storage: options.storage }),
    ...(options.warnings ? { warnings: options.warnings } : {}),
    ...(options.graceSeconds ? { graceSeconds: options.graceSeconds } : {}),
    ...(options.defaultPropagation ? { defaultPropagation: options.defaultPropagation } : {}),
    ...(options.scale ? { scale: options.scale } : {}),
  }
}

/** A question that is answered at once: created, never stored, and needs no name. */
export function defineReview<K extends KubeObject>(
  options: Pick<KindOptions<K>, 'resource' | 'message' | 'description' | 'defaults' | 'validate'>,
): KindDefinition<K> {
  const validate = options.validate ?? none
  return {
    ...defineKind<K>({ ...options, verbs: ['create'] }),
    prepareCreate() {},
    validate: (object) => validate(object),
  }
}
