import { randomUUID } from 'node:crypto'
import { generateName } from '#api/meta/generate-name.ts'
import { trackFields } from '#api/meta/managed-fields.ts'
import { sameJson } from '#api/meta/patch/json.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import {
  alreadyExists,
  badRequest,
  conflict,
  type FieldError,
  invalid,
  modified,
  notFound,
  StatusError,
  serviceUnavailable,
  tooManyRequests,
} from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { Busy, CompareFailed, type Store, WriteFailed } from '#store/store.ts'
import type { Admission, AdmissionRequest, Attributes } from '../step.ts'
import { encodeStored, Item } from './item.ts'
import { finalizerErrors, keepSystemFields, mayGo, onlyPart, sameBeyondStatus } from './parts.ts'
import type { Served } from './served.ts'

/** Who writes, and how. */
export interface WriteContext {
  readonly attributes: Attributes
  readonly dryRun: boolean
  /** For managedFields; undefined: the write is the server's own and leaves no entry. */
  readonly manager: string | undefined
  warn(text: string): void
}

export interface UpdateRequest {
  readonly namespace: string
  readonly name: string
  /** `''`: the object itself; `status`: only its status; `finalize`: only a namespace's finalizers. */
  readonly part: '' | 'status' | 'finalize'
  /** The object wanted, from the present one (a copy of the caller's own, in the served version). Undefined: leave it. */
  next(present: KubeObject): KubeObject | undefined
  /** Try again when another write came between; otherwise that is a Conflict. */
  readonly retry: boolean
  /** A PUT without resourceVersion is refused where the kind wants one. */
  readonly versionRequired: boolean
}

export interface Outcome {
  readonly item: Item
  /** False: nothing had to be written, or it was a dry run. */
  readonly written: boolean
}

/** Upstream's numbers: generated names that collide, and patches that meet another write. */
const generateTries = 8
const updateTries = 5

/** The steps of create and update that are the same for every kind. */
export class Writer {
  readonly #store: Store
  readonly #admission: () => Admission | undefined
  readonly #now: () => number

  #trouble: string | undefined
  #second = -1
  #secondText = ''

  constructor(store: Store, admission: () => Admission | undefined, now: () => number) {
    this.#store = store
    this.#admission = admission
    this.#now = now
  }

  /** The time as objects have it; made once a second. */
  #time(): string {
    const second = Math.floor(this.#now() / 1000)
    if (second !== this.#second) {
      this.#second = second
      this.#secondText = formatTime(second * 1000)
    }
    return this.#secondText
  }

  /** Why the last write could not be stored; undefined: it could. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** `object` has been decoded and is the caller's own; it is in the served version's form. */
  async create(served: Served, object: KubeObject, context: WriteContext): Promise<Outcome> {
    const { metadata } = object
    if (metadata.resourceVersion) throw badRequest('resourceVersion should not be set on objects to be created')
    const base = metadata.name ? undefined : metadata.generateName
    for (let attempt = 1; ; attempt++) {
      const mine = base === undefined ? object : (structuredClone(object) as KubeObject)
      if (base !== undefined && base !== '') mine.metadata.name = generateName(base)
      try {
        return await this.#createOnce(served, mine, context)
      } catch (error) {
        const collided = base && error instanceof StatusError && error.reason === 'AlreadyExists'
        if (!collided) throw error
        if (attempt >= generateTries) throw exhausted(error)
      }
    }
  }

  async #createOnce(served: Served, object: KubeObject, context: WriteContext): Promise<Outcome> {
    const { definition, collection } = served
    this.#fillNewMetadata(served, object)
    definition.defaults(object)
    definition.prepareCreate?.(object)
    const { namespace = '', name } = object.metadata
    return this.#admitted('CREATE', object, undefined, context, async () => {
      refuse(served, name, definition.validate(object))
      for (const text of definition.warnings?.(object) ?? []) context.warn(text)
      return async () => {
        if (context.dryRun && collection.get(namespace, name)) throw alreadyExists(definition.resource, name)
        this.#track(served, object, undefined, context, ['status'])
        return this.#put(served, namespace, name, object, undefined, context)
      }
    })
  }

  #fillNewMetadata(served: Served, { metadata }: KubeObject): void {
    metadata.uid = randomUUID()
    metadata.creationTimestamp = this.#time()
    delete metadata.deletionTimestamp
    delete metadata.deletionGracePeriodSeconds
    delete metadata.selfLink
    if (served.definition.hasGeneration) metadata.generation = 1
    else delete metadata.generation
  }

  /** Throws NotFound, Conflict, Invalid. */
  async update(served: Served, request: UpdateRequest, context: WriteContext): Promise<Outcome> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#updateOnce(served, request, context)
      } catch (error) {
        if (!(error instanceof StaleRead)) throw error
        if (!request.retry || attempt >= updateTries) throw modified(served.definition.resource, request.name)
      }
    }
  }

  async #updateOnce(served: Served, request: UpdateRequest, context: WriteContext): Promise<Outcome> {
    const { definition, collection } = served
    const { namespace, name, part } = request
    const item = collection.get(namespace, name)
    if (item === undefined) throw notFound(definition.resource, name)
    const old = served.read(item)
    const wanted = request.next(served.copyOf(item))
    if (wanted === undefined) return { item, written: false }
    this.#checkPreconditions(served, request, wanted, old)
    const next = keepSystemFields(part === '' ? wanted : onlyPart(part, wanted, served.copyOf(item)), old)
    if (part === '') definition.defaults(next)
    // A namespace's finalizers are its own business until `/finalize`; everything else follows the kind's rules.
    if (part === '') definition.prepareUpdate?.(next, old)
    if (definition.hasGeneration && part === '' && !sameBeyondStatus(next, old)) {
      next.metadata.generation = (old.metadata.generation ?? 0) + 1
    }
    return this.#admitted('UPDATE', next, old, context, async () => {
      const errors =
        part === 'status' && definition.validateStatusUpdate
          ? definition.validateStatusUpdate(next, old)
          : definition.validateUpdate(next, old)
      refuse(served, name, [...errors, ...finalizerErrors(next, old)])
      for (const text of definition.warnings?.(next) ?? []) context.warn(text)
      return async () => {
        this.#track(served, next, old, context, part === '' ? ['status'] : ['spec'])
        if (sameJson(next, old)) return { item, written: false }
        if (mayGo(next)) return this.delete(served, item, context)
        return this.#put(served, namespace, name, next, item, context)
      }
    })
  }

  /**
   * A change by the server itself, in any part of the object: bindings, addresses. It passes neither admission nor the
   * kind's rules for clients, and is tried again when another write comes between. `generation` counts what clients
   * ask for, so it stays: a pod that is bound is still at its first.
   */
  async change(
    served: Served,
    namespace: string,
    name: string,
    change: (copy: KubeObject) => KubeObject | undefined,
    context: WriteContext,
  ): Promise<Outcome> {
    for (;;) {
      const item = served.collection.get(namespace, name)
      if (item === undefined) throw notFound(served.definition.resource, name)
      const next = change(served.copyOf(item))
      if (next === undefined || sameJson(next, served.read(item))) return { item, written: false }
      try {
        // The last finalizer of a deleted object may be the server's own.
        if (mayGo(next)) return await this.delete(served, item, context)
        return await this.#put(served, namespace, name, next, item, context)
      } catch (error) {
        if (!(error instanceof StaleRead)) throw error
      }
    }
  }

  #checkPreconditions(served: Served, request: UpdateRequest, wanted: KubeObject, old: KubeObject): void {
    const { resource } = served.definition
    const { uid, resourceVersion } = wanted.metadata
    if (uid && uid !== old.metadata.uid) {
      throw conflict(
        resource,
        request.name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`,
      )
    }
    if (resourceVersion && resourceVersion !== old.metadata.resourceVersion) throw modified(resource, request.name)
    if (!resourceVersion && request.versionRequired) {
      throw invalid(resource.group, resource.kind, request.name, [
        {
          type: 'FieldValueInvalid',
          path: 'metadata.resourceVersion',
          message: 'Invalid value: 0: must be specified for an update',
        },
      ])
    }
  }

  /** Writes the marks of a deletion: neither the kind's rules nor admission of updates apply. Throws `StaleRead`. */
  async mark(served: Served, item: Item, marked: KubeObject, context: WriteContext): Promise<Outcome> {
    return this.#put(served, item.namespace, item.name, marked, item, context)
  }

  /** Removes it now; watches are shown its present state. Throws NotFound, `StaleRead`. */
  async delete(served: Served, item: Item, context: WriteContext): Promise<Outcome> {
    if (context.dryRun) return { item, written: false }
    const [revision = 0] = await this.#commit(served, item.namespace, item.name, item, undefined)
    return { item: item.at(revision), written: true }
  }

  /** Mutating admission, the kind's own checks, validating admission, the write; and what was reserved is settled. */
  async #admitted(
    operation: 'CREATE' | 'UPDATE',
    object: KubeObject,
    old: KubeObject | undefined,
    context: WriteContext,
    check: () => Promise<() => Promise<Outcome>>,
  ): Promise<Outcome> {
    const admission = context.manager === undefined ? undefined : this.#admission()
    const { attributes, dryRun } = context
    const request: AdmissionRequest = { attributes, operation, object, old, dryRun, warn: (text) => context.warn(text) }
    let outcome: 'written' | 'failed' = 'failed'
    try {
      const waiting = admission?.prepare?.(request)
      if (waiting) await waiting
      admission?.mutate(request)
      const write = await check()
      admission?.validate(request)
      const result = await write()
      if (!dryRun) outcome = 'written'
      return result
    } finally {
      admission?.settled(request, outcome)
    }
  }

  #track(
    served: Served,
    next: KubeObject,
    old: KubeObject | undefined,
    context: WriteContext,
    ignored: readonly string[],
  ): void {
    if (context.manager === undefined) return
    trackFields(next, old, served.shape, {
      manager: context.manager,
      apiVersion: served.apiVersion,
      subresource: context.attributes.subresource,
      time: this.#time(),
      ignored,
    })
  }

  async #put(
    served: Served,
    namespace: string,
    name: string,
    object: KubeObject,
    old: Item | undefined,
    context: WriteContext,
  ): Promise<Outcome> {
    const value = encodeStored(served.toStored(object))
    if (context.dryRun) return { item: Item.stored(namespace, name, old?.revision ?? 0, value), written: false }
    await this.#commit(served, namespace, name, old, value)
    const item = served.collection.get(namespace, name)
    if (item === undefined) throw notFound(served.definition.resource, name)
    return { item, written: true }
  }

  async #commit(
    served: Served,
    namespace: string,
    name: string,
    old: Item | undefined,
    value: Uint8Array | undefined,
  ): Promise<readonly number[]> {
    try {
      const key = served.collection.keyOf(namespace, name)
      const revisions = await this.#store.commit([{ key, expect: old?.revision ?? 0, value }])
      this.#trouble = undefined
      return revisions
    } catch (error) {
      if (error instanceof WriteFailed) this.#trouble = error.message
      if (error instanceof CompareFailed) {
        if (old === undefined) throw alreadyExists(served.definition.resource, name)
        throw error.actual === 0 ? notFound(served.definition.resource, name) : new StaleRead()
      }
      throw storeTrouble(error)
    }
  }
}

/** The object was read, and another write of it was committed before ours. */
export class StaleRead extends Error {}

/** What a client is told when the store cannot. */
export function storeTrouble(error: unknown): unknown {
  if (error instanceof Busy) return tooManyRequests('too many writes are waiting for the disk', 1)
  if (error instanceof WriteFailed) return Object.assign(serviceUnavailable(error.message), { cause: error })
  return error
}

function exhausted(error: StatusError): StatusError {
  const { details } = error.status
  return new StatusError({
    ...error.status,
    message: `${error.message}, the server was not able to generate a unique name for the object`,
    details: { ...details, retryAfterSeconds: 1 },
  })
}

function refuse(served: Served, name: string, errors: readonly FieldError[]): void {
  const { group, kind } = served.definition.resource
  if (errors.length > 0) throw invalid(group, kind, name, errors)
}
