import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import type { KindDefinition } from '#api/kind.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { notFound } from '#api/meta/status.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Change, Store } from '#store/store.ts'
import type { Admission, Attributes, Registry as Steps, User } from '../step.ts'
import { Collection } from './collection.ts'
import { deleteObject } from './delete.ts'
import { Served, segmentOf } from './served.ts'
import { type WriteContext, Writer } from './write.ts'

/** Joined lists that nobody asked for in this time give their memory back. */
const forgetJoinedMs = 30_000

/**
 * Every object of every served kind, in memory, as the store last committed it; and the way to change them.
 * The store tells it of each committed group before the writes of that group are answered, so a read after an answer
 * sees the write.
 */
export class Registry implements Steps {
  readonly store: Store
  readonly clock: Clock
  readonly writer: Writer
  readonly #served = new Map<string, Served>()
  readonly #collections = new Map<string, Collection>()
  readonly #kindListeners: ((kinds: readonly KindDefinition[]) => void)[] = []
  #admission: Admission | undefined
  #unsubscribe: () => void
  #cancelForget: () => void = () => {}

  private constructor(store: Store, clock: Clock) {
    this.store = store
    this.clock = clock
    this.writer = new Writer(
      store,
      () => this.#admission,
      () => clock.now(),
    )
    this.#unsubscribe = store.subscribe((changes) => this.#apply(changes))
    this.#scheduleForget()
  }

  /** Reads everything that the store has of these kinds. */
  static async open(store: Store, kinds: Iterable<KindDefinition>, clock: Clock = systemClock): Promise<Registry> {
    const registry = new Registry(store, clock)
    for (const kind of kinds) await registry.serve(kind)
    return registry
  }

  /** Admission comes later than the registry, because its steps read from it. */
  admitWith(admission: Admission): void {
    this.#admission = admission
  }

  get admission(): Admission | undefined {
    return this.#admission
  }

  /** Starts to serve a kind, or serves it by another definition: a CustomResourceDefinition came or changed. */
  async serve(definition: KindDefinition): Promise<void> {
    const segment = segmentOf(definition)
    let collection = this.#collections.get(segment)
    if (collection === undefined) {
      collection = new Collection(segment, definition.resource.namespaced)
      this.#collections.set(segment, collection)
      await this.#load(collection)
    }
    this.#served.set(idOf(definition.resource), new Served(definition, collection, () => this.clock.now()))
    this.#kindsChanged()
  }

  /** Serves it no longer. Its objects stay in the store until somebody deletes them. */
  forget(resource: Resource): void {
    const served = this.#served.get(idOf(resource))
    if (served === undefined) return
    this.#served.delete(idOf(resource))
    const shared = [...this.#served.values()].some((each) => each.collection === served.collection)
    if (!shared) {
      this.#collections.delete(served.collection.segment)
      served.collection.close()
    }
    this.#kindsChanged()
  }

  /** Called with the served kinds, now and whenever they change. */
  onKinds(listener: (kinds: readonly KindDefinition[]) => void): void {
    this.#kindListeners.push(listener)
    listener(this.#kinds())
  }

  /** What keeps the registry from writing; undefined: nothing. */
  get trouble(): string | undefined {
    return this.writer.trouble
  }

  find(group: string, version: string, resource: string): Served | undefined {
    return this.#served.get(`${group}/${version}/${resource}`)
  }

  all(): Iterable<Served> {
    return this.#served.values()
  }

  /** The newest committed revision; everything up to it is in the collections. */
  get revision(): number {
    return this.store.revision
  }

  get<K extends KubeObject>(resource: Resource<K>, namespace: string, name: string): K | undefined {
    const served = this.#served.get(idOf(resource))
    const item = served?.collection.get(resource.namespaced ? namespace : '', name)
    return served && item && (served.read(item) as K)
  }

  *list<K extends KubeObject>(resource: Resource<K>, namespace?: string): Generator<K, void> {
    const served = this.#served.get(idOf(resource))
    for (const item of served?.collection.items(namespace) ?? []) yield served?.read(item) as K
  }

  async create<K extends KubeObject>(resource: Resource<K>, object: K, user: User): Promise<K> {
    const served = this.#need(resource)
    const copy = structuredClone(object) as KubeObject
    copy.apiVersion = formatApiVersion(resource)
    copy.kind = resource.kind
    const { namespace = '', name = '' } = copy.metadata
    const { item } = await this.writer.create(served, copy, internal(resource, 'create', namespace, name, user))
    return served.read(item) as K
  }

  async change<K extends KubeObject>(
    resource: Resource<K>,
    namespace: string,
    name: string,
    user: User,
    change: (copy: K) => K | undefined,
  ): Promise<K> {
    const served = this.#need(resource)
    const { item } = await this.writer.change(
      served,
      namespace,
      name,
      (present) => change(present as K),
      internal(resource, 'update', namespace, name, user),
    )
    return served.read(item) as K
  }

  async delete(
    resource: Resource,
    namespace: string,
    name: string,
    preconditions?: { readonly uid?: string; readonly resourceVersion?: string },
  ): Promise<void> {
    const options = { gracePeriodSeconds: 0, ...(preconditions ? { preconditions } : {}) }
    await this.remove(resource, namespace, name, server, options)
  }

  async remove(
    resource: Resource,
    namespace: string,
    name: string,
    user: User,
    options: Partial<DeleteOptions>,
  ): Promise<void> {
    const context = internal(resource, 'delete', namespace, name, user)
    await deleteObject(this.writer, this.#need(resource), namespace, name, options, context, this.clock.now())
  }

  serves(resource: Resource): boolean {
    return this.#served.has(idOf(resource))
  }

  *resources(): Generator<Resource, void> {
    for (const { definition } of this.#served.values()) yield definition.resource
  }

  onChange<K extends KubeObject>(
    resource: Resource<K>,
    listener: (next: K | undefined, old: K | undefined) => void,
  ): void {
    const served = this.#need(resource)
    const form = (object: KubeObject | undefined): K | undefined => {
      if (object === undefined || served.definition.stored === undefined) return object as K | undefined
      return served.fromStored(structuredClone(object) as KubeObject) as K
    }
    served.collection.onChange((next, old) => listener(form(next), form(old)))
  }

  onTouch(resource: Resource, namespace: string, name: string | undefined, listener: () => void): void {
    this.#need(resource).collection.follow({
      take({ next, old }) {
        const item = next ?? old
        if (name === undefined || (item?.name === name && item.namespace === namespace)) listener()
      },
      end() {},
    })
  }

  close(): void {
    this.#unsubscribe()
    this.#cancelForget()
  }

  #kinds(): readonly KindDefinition[] {
    return [...this.#served.values()].map((served) => served.definition)
  }

  #kindsChanged(): void {
    for (const listener of this.#kindListeners) listener(this.#kinds())
  }

  #need(resource: Resource): Served {
    const served = this.#served.get(idOf(resource))
    if (served === undefined) throw notFound(resource, '')
    return served
  }

  async #load(collection: Collection): Promise<void> {
    const pageItems = 5000
    let start: string | undefined
    const at = this.store.revision
    for (;;) {
      const page = await this.store.range({
        prefix: collection.prefix,
        limit: pageItems,
        ...(start ? { start } : {}),
        at,
      })
      for (const { key, value, revision } of page.entries) collection.load(key, value, revision)
      const last = page.entries.at(-1)
      if (last === undefined || page.remaining === 0) break
      start = `${last.key}\0`
    }
    collection.loaded(at)
  }

  #apply(changes: readonly Change[]): void {
    for (const change of changes) {
      const segment = change.key.slice(1, change.key.indexOf('/', 1))
      this.#collections.get(segment)?.apply(change)
    }
  }

  #scheduleForget(): void {
    this.#cancelForget = this.clock.schedule(forgetJoinedMs, () => {
      for (const collection of this.#collections.values()) collection.forgetJoined()
      this.#scheduleForget()
    })
  }
}

const idOf = ({ group, version, resource }: Resource): string => `${group}/${version}/${resource}`

/** The server itself, for what no request asked for. */
const server: User = { name: 'system:apiserver', groups: ['system:masters'] }

function internal(resource: Resource, verb: string, namespace: string, name: string, user: User): WriteContext {
  const { group, version, resource: plural } = resource
  const attributes: Attributes = {
    user,
    verb,
    group,
    version,
    resource: plural,
    subresource: '',
    namespace,
    name,
    path: undefined,
  }
  return { attributes, dryRun: false, manager: undefined, warn() {} }
}
