import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { delay } from '#base/async/delay.ts'
import { Scope } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Client, ListOptions } from './client.ts'
import { deepFreeze } from './freeze.ts'
import { compareRevisions, keyOf, qualifiedName } from './key.ts'
import { type Change, type FollowOptions, follow } from './watch.ts'

/** Told of each change, in order: `old` undefined for a new object, `next` undefined for one that is gone. */
export type ChangeListener<K extends KubeObject> = (next: K | undefined, old: K | undefined) => void

/** A way to find objects by something other than their key. */
export interface Index<K extends KubeObject> {
  /** The objects that have `value`; empty when none has. */
  get(value: string): readonly K[]
  values(): Iterable<string>
}

/** The local copy of a resource, for reading only: objects are frozen, who wants to change one copies it. */
export interface Store<K extends KubeObject> {
  /** By `namespace/name`, or `name`. */
  get(key: string): K | undefined
  list(namespace?: string): readonly K[]
  readonly size: number
}

export interface InformerOptions extends Pick<FollowOptions, 'labelSelector' | 'fieldSelector' | 'namespace'> {
  readonly metadataOnly?: boolean
  readonly clock?: Clock
  readonly log?: Log
  readonly backoff?: FollowOptions['backoff']
}

/** Something an informer's user must be able to see: is the copy complete, and if not, what is in the way? */
export interface InformerStatus {
  readonly synced: boolean
  /** The last trouble, gone as soon as anything is heard from the server again. */
  readonly trouble: unknown
  readonly objects: number
  readonly revision: string
}

/** What is the same of informers of any kind: what they copy, and whether they have it. */
export interface Copy {
  readonly resource: Resource
  readonly query: Pick<ListOptions, 'namespace' | 'labelSelector' | 'fieldSelector'>
  whenSynced(signal: AbortSignal): Promise<void>
  status(): InformerStatus
}

interface Waiter {
  readonly reached: () => boolean
  readonly resolve: () => void
}

/**
 * A local copy of the objects of one resource that follows the server. Listeners run synchronously, in order, after
 * the copy has the change; they must be short (put a key on a queue) and may not throw.
 * Guarantees: after a gap (410, a new server) a listener is told of what vanished meanwhile, as a deletion of the
 * last known object; the revision never goes back unless the server's whole history did.
 */
export class Informer<K extends KubeObject> implements Store<K>, Copy {
  readonly resource: Resource<K>
  readonly query: Copy['query']
  readonly #client: Client
  readonly #options: InformerOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #objects = new Map<string, K>()
  readonly #listeners = new Set<ChangeListener<K>>()
  readonly #indexes = new Map<string, LiveIndex<K>>()
  readonly #byNamespace: LiveIndex<K>
  readonly #waiters = new Set<Waiter>()
  #revision = ''
  #synced = false
  #trouble: unknown

  constructor(client: Client, resource: Resource<K>, options: InformerOptions = {}) {
    this.resource = resource
    this.#client = client
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = (options.log ?? silentLog).child({ resource: qualifiedName(resource) })
    const { labelSelector, fieldSelector, namespace } = options
    this.query = {
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
      ...(namespace === undefined ? {} : { namespace }),
    }
    this.#byNamespace = this.#addIndex('namespace', (o) => [o.metadata.namespace ?? ''])
  }

  /** Follows the server until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { metadataOnly, backoff } = this.#options
    const changes = follow(this.#client, this.resource, {
      ...this.query,
      ...(metadataOnly === undefined ? {} : { metadataOnly }),
      ...(backoff === undefined ? {} : { backoff }),
      clock: this.#clock,
      signal,
    })
    for await (const change of changes) this.#apply(change)
  }

  get(key: string): K | undefined {
    return this.#objects.get(key)
  }

  list(namespace?: string): readonly K[] {
    return namespace === undefined ? [...this.#objects.values()] : this.#byNamespace.get(namespace)
  }

  get size(): number {
    return this.#objects.size
  }

  hasSynced(): boolean {
    return this.#synced
  }

  status(): InformerStatus {
    return { synced: this.#synced, trouble: this.#trouble, objects: this.#objects.size, revision: this.#revision }
  }

  /** Resolves once the present objects are in; rejects when `signal` aborts first. */
  whenSynced(signal: AbortSignal): Promise<void> {
    return this.when(() => this.#synced, signal)
  }

  /** Resolves once the copy has everything up to `revision`: reading one's own writes. */
  whenSeen(revision: string, signal: AbortSignal): Promise<void> {
    return this.when(() => this.hasSeen(revision), signal)
  }

  /** Whether the copy has everything up to `revision`. */
  hasSeen(revision: string): boolean {
    return this.#synced && compareRevisions(this.#revision, revision) >= 0
  }

  /**
   * Calls `listener` for every object there is, then for every change, until `signal` aborts or the returned function
   * is called.
   */
  onChange(listener: ChangeListener<K>, signal?: AbortSignal): () => void {
    const stop = () => {
      this.#listeners.delete(listener)
      signal?.removeEventListener('abort', stop)
    }
    if (signal?.aborted) return stop
    for (const object of this.#objects.values()) listener(object, undefined)
    this.#listeners.add(listener)
    signal?.addEventListener('abort', stop, { once: true })
    return stop
  }

  /**
   * Finds objects by what `values` says of them; the name stands for the function, so that users of one informer share
   * an index. Throws when another function has the name.
   */
  index(name: string, values: (object: K) => readonly string[]): Index<K> {
    const known = this.#indexes.get(name)
    if (known === undefined) return this.#addIndex(name, values)
    if (known.valuesOf !== values) throw new Error(`Cannot add index "${name}": another function has this name`)
    return known
  }

  #addIndex(name: string, values: (object: K) => readonly string[]): LiveIndex<K> {
    const index = new LiveIndex(values)
    for (const [key, object] of this.#objects) index.change(key, object, undefined)
    this.#indexes.set(name, index)
    return index
  }

  /** Resolves as soon as `reached` is true; looked at after every change. Rejects when `signal` aborts first. */
  when(reached: () => boolean, signal: AbortSignal): Promise<void> {
    if (reached()) return Promise.resolve()
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const abort = () => {
        this.#waiters.delete(waiter)
        reject(signal.reason)
      }
      const waiter: Waiter = {
        reached,
        resolve: () => {
          signal.removeEventListener('abort', abort)
          resolve()
        },
      }
      signal.addEventListener('abort', abort, { once: true })
      this.#waiters.add(waiter)
    })
  }

  #apply(change: Change<K>): void {
    if (change.type === 'trouble') {
      // Said once per spell of trouble, not once per attempt.
      if (this.#trouble === undefined) this.#log.warn({ err: change.error }, 'cannot follow the resource, trying again')
      this.#trouble = change.error
      return
    }
    this.#trouble = undefined
    this.#revision = change.revision
    switch (change.type) {
      case 'replace': {
        const present = new Set<string>()
        const complete = change.objects.map((object) => [keyOf(object), object] as const)
        for (const [key] of complete) present.add(key)
        for (const [key, old] of [...this.#objects]) if (!present.has(key)) this.#set(key, undefined, old)
        for (const [key, object] of complete) this.#put(key, object)
        this.#synced = true
        break
      }
      case 'changed':
        this.#put(keyOf(change.object), change.object)
        break
      case 'deleted': {
        const key = keyOf(change.object)
        const old = this.#objects.get(key)
        // The last state, with its final revision, is what a listener wants to see of an object that is gone.
        if (old !== undefined) this.#set(key, undefined, prepare(change.object))
        break
      }
      case 'progress':
        break
      default:
        change satisfies never
    }
    for (const waiter of [...this.#waiters]) {
      if (!waiter.reached()) continue
      this.#waiters.delete(waiter)
      waiter.resolve()
    }
  }

  #put(key: string, object: K): void {
    const old = this.#objects.get(key)
    if (old !== undefined && old.metadata.uid === object.metadata.uid) {
      if (old.metadata.resourceVersion === object.metadata.resourceVersion) return
    } else if (old !== undefined) {
      // Deleted and made again while we were not looking: nobody may take the new one for the old.
      this.#set(key, undefined, old)
    }
    this.#set(key, prepare(object), this.#objects.get(key))
  }

  #set(key: string, next: K | undefined, old: K | undefined): void {
    const indexed = this.#objects.get(key)
    if (next === undefined) this.#objects.delete(key)
    else this.#objects.set(key, next)
    for (const index of this.#indexes.values()) index.change(key, next, indexed)
    for (const listener of [...this.#listeners]) {
      try {
        listener(next, old)
      } catch (err) {
        this.#log.error({ err, key }, 'a listener failed')
      }
    }
  }
}

class LiveIndex<K extends KubeObject> implements Index<K> {
  readonly valuesOf: (object: K) => readonly string[]
  readonly #entries = new Map<string, Map<string, K>>()

  constructor(valuesOf: (object: K) => readonly string[]) {
    this.valuesOf = valuesOf
  }

  get(value: string): readonly K[] {
    const found = this.#entries.get(value)
    return found === undefined ? [] : [...found.values()]
  }

  values(): Iterable<string> {
    return this.#entries.keys()
  }

  change(key: string, next: K | undefined, old: K | undefined): void {
    if (old !== undefined) {
      for (const value of this.valuesOf(old)) {
        const entry = this.#entries.get(value)
        entry?.delete(key)
        if (entry?.size === 0) this.#entries.delete(value)
      }
    }
    if (next === undefined) return
    for (const value of this.valuesOf(next)) {
      const entry = this.#entries.get(value)
      if (entry === undefined) this.#entries.set(value, new Map([[key, next]]))
      else entry.set(key, next)
    }
  }
}

/** Nobody here reads managedFields, and they are half of many objects: the server keeps them when an update omits them. */
function prepare<K extends KubeObject>(object: K): K {
  if (Object.isFrozen(object)) {
    if (object.metadata.managedFields === undefined) return object
    const { managedFields: _, ...metadata } = object.metadata
    return deepFreeze({ ...object, metadata })
  }
  delete object.metadata.managedFields
  return deepFreeze(object)
}

/** Index of pods by the node they are bound to; `''` for those that are not. */
export const nodeOfPod = (pod: KubeObject & { spec: { nodeName?: string } }): readonly string[] => [
  pod.spec.nodeName ?? '',
]

export interface InformersOptions {
  readonly client: Client
  readonly clock?: Clock
  readonly log?: Log
  readonly backoff?: FollowOptions['backoff']
}

/**
 * Shares one informer, hence one watch and one copy, between all who ask for the same objects. Informers start when
 * first asked for and stop together.
 */
export class Informers implements AsyncDisposable {
  readonly #options: InformersOptions
  readonly #scope = new Scope()
  readonly #informers = new Map<string, Informer<KubeObject>>()

  constructor(options: InformersOptions) {
    this.#options = options
  }

  of<K extends KubeObject>(
    resource: Resource<K>,
    query: Pick<ListOptions, 'namespace' | 'labelSelector' | 'fieldSelector' | 'metadataOnly'> = {},
  ): Informer<K> {
    const { namespace = '*', labelSelector = '', fieldSelector = '', metadataOnly = false } = query
    const part = metadataOnly ? 'metadata' : ''
    const id = [qualifiedName(resource), resource.version, namespace, labelSelector, fieldSelector, part].join('|')
    const known = this.#informers.get(id)
    // The id contains the resource, and a resource has one type.
    if (known !== undefined) return known as unknown as Informer<K>
    const { client, ...rest } = this.#options
    const informer = new Informer(client, resource, { ...rest, ...query })
    this.#informers.set(id, informer as unknown as Informer<KubeObject>)
    this.#scope.start((signal) => informer.run(signal))
    return informer
  }

  /** Resolves when every informer asked for so far has its objects. */
  async whenSynced(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#informers.values()].map((i) => i.whenSynced(signal)))
  }

  status(): Readonly<Record<string, InformerStatus>> {
    return Object.fromEntries([...this.#informers].map(([id, informer]) => [id, informer.status()]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]()
  }
}

/** `whenSynced` with a limit in time; the error names the resource and the trouble it is in. */
export async function syncedWithin(
  informer: Copy,
  ms: number,
  signal: AbortSignal,
  clock: Clock = systemClock,
): Promise<void> {
  const over = new AbortController()
  const both = AbortSignal.any([signal, over.signal])
  const late = delay(ms, both, clock).then(() => {
    throw new Error(`Cannot read ${qualifiedName(informer.resource)} within ${ms} ms`, {
      cause: informer.status().trouble,
    })
  })
  try {
    await Promise.race([informer.whenSynced(both), late])
  } finally {
    over.abort()
    late.catch(() => {})
  }
}
