import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import { namespaces } from '#api/gen/resources.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import {
  alreadyExists,
  badRequest,
  conflict,
  expired,
  fieldError,
  forbidden,
  invalid,
  notFound,
  type StatusError,
} from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { findMessage } from '#api/schema/table.ts'
import { type Clock, FakeClock } from '#base/clock.ts'
import type {
  Client,
  Draft,
  KubeList,
  ListOptions,
  ObjectKey,
  PatchType,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './client.ts'
import { messageOf, parseContinue, partial, patched, terminating } from './fake/answer.ts'
import { discoveryDocument } from './fake/discovery.ts'
import { selects } from './fake/select.ts'
import { FakeStorage } from './fake/storage.ts'
import { isHeld, markDeleted, prepareUpdate, sameJson } from './fake/write.ts'
import { formatKey, keyOf, qualifiedName } from './key.ts'

/** One call, as rules and tests see it. */
export interface FakeCall {
  readonly user: string
  readonly verb: 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection'
  /** `pods`, `deployments.apps`. */
  readonly resource: string
  readonly subresource: string
  readonly key: string
  readonly body?: unknown
}

/** Looks at every call before it is done: throw (or return) a StatusError to fail it. */
export type FakeRule = (call: FakeCall) => StatusError | undefined | undefined

/** Answers a create (or createSubresource) that stores nothing: reviews, tokens. Undefined: not mine. */
export type FakeAnswer = (call: FakeCall & { readonly body: KubeObject }) => unknown

export interface FakeClientOptions {
  readonly clock?: Clock
  /** Called on a copy before it is stored: what the server would fill in. */
  readonly defaults?: (resource: Resource, object: KubeObject) => void
  /** What discovery lists; by default nothing. */
  readonly serves?: readonly Resource[]
  /** False: behaves as a server without sendInitialEvents. */
  readonly watchList?: boolean
}

/**
 * An API in memory, with the rules that controllers lean on: revisions and conflicts, generation, status apart from
 * spec, finalizers, grace, uids, watches from a revision, 410. It does not validate and has no server-side apply. Proved by conformance.ts.
 */
export class FakeClient implements Client {
  readonly storage: FakeStorage
  readonly clock: Clock
  readonly user: string
  /** The writes so far, of all users. */
  readonly calls: FakeCall[]
  readonly #options: FakeClientOptions
  readonly #rules: FakeRule[]
  readonly #answers: FakeAnswer[]
  readonly #names: { next: number }

  constructor(options: FakeClientOptions = {}, shared?: FakeClient, user = 'admin') {
    this.#options = options
    this.user = user
    this.clock = options.clock ?? new FakeClock()
    this.storage = shared?.storage ?? new FakeStorage()
    this.calls = shared?.calls ?? []
    this.#rules = shared === undefined ? [] : shared.#rules
    this.#answers = shared === undefined ? [] : shared.#answers
    this.#names = shared === undefined ? { next: 1 } : shared.#names
  }

  /** The same API under another identity. */
  as(user: string): FakeClient {
    return new FakeClient({ ...this.#options, clock: this.clock }, this, user)
  }

  /** Adds a rule; the returned function takes it away. */
  rule(rule: FakeRule): () => void {
    this.#rules.push(rule)
    return () => {
      const at = this.#rules.indexOf(rule)
      if (at >= 0) this.#rules.splice(at, 1)
    }
  }

  /** Takes verbs on a resource away from a user, in upstream's words. */
  deny(user: string, verb: FakeCall['verb'], resource: Resource): () => void {
    const name = qualifiedName(resource)
    return this.rule((call) => {
      if (call.user !== user || call.verb !== verb || call.resource !== name) return undefined
      const words = `User "${user}" cannot ${verb} resource "${resource.resource}" in API group "${resource.group}"`
      return forbidden(resource, call.key, `${words} at the cluster scope`)
    })
  }

  answer(answer: FakeAnswer): void {
    this.#answers.push(answer)
  }

  /** Puts an object as it is, status and all, past every rule: the state a test begins with. */
  seed<K extends KubeObject>(resource: Resource<K>, object: Draft<K>): K {
    const made = this.#complete(resource, structuredClone(object) as unknown as KubeObject)
    return structuredClone(this.storage.put(resource, made)) as K
  }

  /** Takes an object away at once, as if it had never been held. */
  vanish(resource: Resource, key: ObjectKey): void {
    this.storage.remove(resource, this.#find(resource, key))
  }

  async get<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<K> {
    this.#check('get', resource, '', formatKey(key), undefined, options.signal)
    return structuredClone(this.#find(resource, key)) as K
  }

  async list<K extends KubeObject>(
    resource: Resource<K>,
    options: ListOptions & { readonly signal?: AbortSignal } = {},
  ): Promise<KubeList<K>> {
    this.#check('list', resource, '', '', undefined, options.signal)
    const all = [...this.storage.all(resource).values()]
      .filter((o) => this.#matches(o, options))
      .toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
    const [revision, after] = parseContinue(options.continue) ?? [this.storage.revision, '']
    if (options.continue !== undefined && revision !== this.storage.revision)
      throw expired('The provided continue parameter is too old')
    const rest = all.filter((o) => keyOf(o) > after)
    const page = rest.slice(0, options.limit ?? rest.length)
    const last = page.at(-1)
    return {
      metadata: {
        resourceVersion: String(revision),
        ...(page.length < rest.length && last ? { continue: `${revision}:${keyOf(last)}` } : {}),
      },
      items: page.map((o) => structuredClone(partial(o, options)) as K),
    }
  }

  async *watch<K extends KubeObject>(resource: Resource<K>, options: WatchOptions): AsyncGenerator<WatchEvent<K>> {
    this.#check('watch', resource, '', '', undefined, options.signal)
    const initial = options.sendInitialEvents === true
    if (initial && this.#options.watchList === false)
      throw invalid('meta.k8s.io', 'ListOptions', '', [
        fieldError.forbidden('sendInitialEvents', 'sendInitialEvents is forbidden for watch unless it is enabled'),
      ])
    const version = options.resourceVersion ?? ''
    const start = initial
      ? ({ initial: 'with-bookmark' } as const)
      : version === '' || version === '0'
        ? ({ initial: 'plain' } as const)
        : { after: Number(version) }
    for await (const event of this.storage.watch(resource, start, (o) => this.#matches(o, options), options.signal)) {
      yield (event.type === 'BOOKMARK' ? event : { ...event, object: partial(event.object, options) }) as WatchEvent<K>
    }
  }

  async create<K extends KubeObject>(resource: Resource<K>, draft: Draft<K>, options: WriteOptions = {}): Promise<K> {
    const { namespace, name = '' } = draft.metadata
    const body = structuredClone(draft) as unknown as KubeObject & { status?: unknown }
    const call = this.#check('create', resource, '', formatKey({ namespace, name }), body, options.signal)
    for (const answer of this.#answers) {
      const answered = answer({ ...call, body })
      if (answered !== undefined) return answered as K
    }
    if (resource.kind !== 'Event' && resource.namespaced && !namespace)
      throw badRequest('an empty namespace may not be set during creation')
    delete body.status
    const object = this.#complete(resource, body)
    if (resource.kind === 'Pod') Object.assign(object, { status: { phase: 'Pending' } })
    if (resource.kind === 'Namespace')
      Object.assign(object, { spec: { finalizers: ['kubernetes'] }, status: { phase: 'Active' } })
    if (this.storage.all(resource).has(keyOf(object))) throw alreadyExists(resource, object.metadata.name)
    const into = object.metadata.namespace
    if (into !== undefined && this.storage.all(namespaces).get(into)?.metadata.deletionTimestamp !== undefined)
      throw terminating(resource, object.metadata.name, into)
    if (options.dryRun === true) return object as K
    return structuredClone(this.storage.put(resource, object)) as K
  }

  async createSubresource<B extends KubeObject>(
    resource: Resource,
    key: ObjectKey,
    subresource: string,
    body: Draft<B>,
    options: WriteOptions = {},
  ): Promise<B> {
    const call = this.#check('create', resource, subresource, formatKey(key), body, options.signal)
    for (const answer of this.#answers) {
      const answered = answer({ ...call, body: body as unknown as KubeObject })
      if (answered !== undefined) return answered as B
    }
    const object = structuredClone(this.#find(resource, key)) as KubeObject & { spec: { nodeName?: string } }
    if (subresource === 'binding') {
      const { target, metadata } = body as unknown as KubeObject & { target: { name: string } }
      if (object.spec.nodeName)
        throw conflict(resource, key.name, `pod ${key.name} is already assigned to node "${object.spec.nodeName}"`)
      if (object.metadata.deletionTimestamp !== undefined)
        throw conflict(resource, key.name, `pod ${key.name} is being deleted, cannot be assigned to a host`)
      object.spec.nodeName = target.name
      object.metadata.annotations = { ...object.metadata.annotations, ...metadata.annotations }
      const bound = object as unknown as { status: { conditions?: object[] } }
      bound.status.conditions = [{ type: 'PodScheduled', status: 'True', lastProbeTime: null }]
      this.storage.put(resource, object)
    } else if (subresource === 'eviction') {
      this.#delete(resource, key, (body as unknown as { deleteOptions?: Partial<DeleteOptions> }).deleteOptions ?? {})
    } else throw notFound(resource, `${key.name}/${subresource}`)
    return { apiVersion: 'v1', kind: 'Status', status: 'Success', metadata: {} } as unknown as B
  }

  async update<K extends KubeObject>(resource: Resource<K>, object: K, options: WriteOptions = {}): Promise<K> {
    this.#check('update', resource, options.subresource ?? '', keyOf(object), object, options.signal)
    return this.#update(resource, structuredClone(object), options)
  }

  async patch<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    type: PatchType,
    patch: unknown,
    options: WriteOptions = {},
  ): Promise<K> {
    this.#check('patch', resource, options.subresource ?? '', formatKey(key), patch, options.signal)
    const old = structuredClone(this.#find(resource, key))
    const next = patched(resource, old, type, patch)
    return this.#update(resource, structuredClone(next) as K, options)
  }

  async delete(
    resource: Resource,
    key: ObjectKey,
    options: Partial<DeleteOptions> & { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    const { signal, ...body } = options
    this.#check('delete', resource, '', formatKey(key), body, signal)
    this.#delete(resource, key, options)
  }

  async deleteCollection(
    resource: Resource,
    options: ListOptions & Partial<DeleteOptions> & { readonly signal?: AbortSignal },
  ): Promise<void> {
    const { signal, ...body } = options
    this.#check('deletecollection', resource, '', options.namespace ?? '', body, signal)
    for (const object of [...this.storage.all(resource).values()])
      if (this.#matches(object, options)) this.#delete(resource, object.metadata, options)
  }

  /** What `answer` was told to say (its body is `{method, path, body}`), and discovery. */
  async raw(method: string, path: string, body?: unknown): Promise<unknown> {
    const call: FakeCall = { user: this.user, verb: 'get', resource: path, subresource: '', key: '', body }
    for (const rule of this.#rules) {
      const error = rule(call)
      if (error) throw error
    }
    for (const answer of this.#answers) {
      const answered = answer({ ...call, body: { method, path, body } as unknown as KubeObject })
      if (answered !== undefined) return structuredClone(answered)
    }
    const document = method === 'GET' ? discoveryDocument(path, this.#options.serves ?? []) : undefined
    if (document !== undefined) return document
    throw notFound({ group: '', resource: 'path' }, path)
  }

  #check(
    verb: FakeCall['verb'],
    resource: Resource,
    subresource: string,
    key: string,
    body: unknown,
    signal: AbortSignal | undefined,
  ): FakeCall {
    signal?.throwIfAborted()
    const call: FakeCall = {
      user: this.user,
      verb,
      resource: qualifiedName(resource),
      subresource,
      key,
      ...(body === undefined ? {} : { body: structuredClone(body) }),
    }
    for (const rule of this.#rules) {
      const error = rule(call)
      if (error) throw error
    }
    if (verb !== 'get' && verb !== 'list' && verb !== 'watch') this.calls.push(call)
    return call
  }

  #find(resource: Resource, key: ObjectKey): KubeObject {
    const found = this.storage.all(resource).get(formatKey(key))
    if (!found) throw notFound(resource, key.name)
    return found
  }

  #matches(object: KubeObject, { namespace, labelSelector, fieldSelector }: ListOptions): boolean {
    if (namespace !== undefined && object.metadata.namespace !== namespace) return false
    return selects(object, labelSelector, fieldSelector)
  }

  /** Fills in what the server does, in place. */
  #complete(resource: Resource, object: KubeObject): KubeObject {
    const number = this.#names.next++
    const { metadata } = object
    object.apiVersion = formatApiVersion(resource)
    object.kind = resource.kind
    if (!metadata.name) metadata.name = `${metadata.generateName ?? ''}${number.toString(36).padStart(5, '0')}`
    metadata.uid ||= `uid-${number}`
    metadata.creationTimestamp ||= formatTime(this.clock.now())
    metadata.generation ??= 1
    // A server's objects always have these, however empty.
    const parts = object as KubeObject & { spec?: unknown; status?: unknown }
    const fields = findMessage(messageOf(resource))?.fields
    if (fields?.has('spec')) parts.spec ??= {}
    if (fields?.has('status')) parts.status ??= {}
    this.#options.defaults?.(resource, object)
    return object
  }

  #update<K extends KubeObject>(resource: Resource<K>, body: K, options: WriteOptions): K {
    const old = this.#find(resource, body.metadata)
    const next = prepareUpdate(resource, body, old, options.subresource ?? '')
    if (options.dryRun === true) return next as K
    if (sameJson(next, old)) return structuredClone(old) as K
    if (next.metadata.deletionTimestamp !== undefined && !isHeld(next)) return this.storage.remove(resource, next) as K
    return structuredClone(this.storage.put(resource, next)) as K
  }

  #delete(resource: Resource, key: ObjectKey, options: Partial<DeleteOptions>): void {
    const old = this.#find(resource, key)
    const { uid, resourceVersion } = options.preconditions ?? {}
    if (uid !== undefined && uid !== old.metadata.uid)
      throw conflict(
        resource,
        key.name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${old.metadata.uid}`,
      )
    if (resourceVersion !== undefined && resourceVersion !== old.metadata.resourceVersion)
      throw conflict(
        resource,
        key.name,
        `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${old.metadata.resourceVersion}`,
      )
    if ((options.dryRun ?? []).length > 0) return
    const next = structuredClone(old)
    markDeleted(next, options, this.clock.now())
    if (!isHeld(next)) this.storage.remove(resource, next)
    else if (!sameJson(next, old)) this.storage.put(resource, next)
  }
}
