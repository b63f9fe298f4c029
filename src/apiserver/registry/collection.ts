import type { KubeObject } from '#api/meta/resource.ts'
import type { Change } from '#store/store.ts'
import { CollectionEvent } from '../watch/event.ts'
import { Item } from './item.ts'
import { Shelf } from './shelf.ts'

/** A watch, to the collection. */
export interface Follower {
  take(event: CollectionEvent): void
  end(): void
}

/** Recent events kept for watches that come back a little late; older ones are read from the store. */
const recentMax = 1024

/**
 * Every stored object of one resource, in memory, as of the store's revision, and who wants to hear of changes.
 * `segment` is the first part of its keys: `/pods/default/a`.
 */
export class Collection {
  readonly segment: string
  readonly namespaced: boolean
  #size = 0
  readonly #shelves = new Map<string, Shelf>()
  #namespaces: string[] | undefined
  readonly #followers = new Set<Follower>()
  readonly #listeners: ((next: KubeObject | undefined, old: KubeObject | undefined) => void)[] = []
  readonly #recent: CollectionEvent[] = []
  /** Every event after this revision is in `#recent`. */
  #recentAfter = 0
  /** The newest change. */
  #changedAt = 0

  constructor(segment: string, namespaced: boolean) {
    this.segment = segment
    this.namespaced = namespaced
  }

  get prefix(): string {
    return `/${this.segment}/`
  }

  get size(): number {
    return this.#size
  }

  /** No object changed after this revision. */
  get changedAt(): number {
    return this.#changedAt
  }

  keyOf(namespace: string, name: string): string {
    return this.namespaced ? `/${this.segment}/${namespace}/${name}` : `/${this.segment}/${name}`
  }

  /** Namespace and name in a key of this collection. */
  parseKey(key: string): readonly [namespace: string, name: string] {
    const rest = key.slice(this.segment.length + 2)
    if (!this.namespaced) return ['', rest]
    const slash = rest.indexOf('/')
    return [rest.slice(0, slash), rest.slice(slash + 1)]
  }

  get(namespace: string, name: string): Item | undefined {
    return this.#shelves.get(this.namespaced ? namespace : '')?.get(name)
  }

  /** In order; `namespace` empty: all. `start` is the first object wanted. */
  *items(namespace = '', start?: readonly [namespace: string, name: string]): Generator<Item, void> {
    if (namespace !== '' || !this.namespaced) {
      yield* this.#shelves.get(namespace)?.items(start?.[1]) ?? []
      return
    }
    for (const each of this.namespaces()) {
      if (start && each < start[0]) continue
      yield* this.#shelves.get(each)?.items(start?.[0] === each ? start[1] : '') ?? []
    }
  }

  count(namespace = ''): number {
    return namespace === '' ? this.#size : (this.#shelves.get(namespace)?.size ?? 0)
  }

  /** The JSON of all items in order, joined by commas, in pieces that are kept for the next time. */
  *joined(namespace = ''): Generator<Buffer, void> {
    const namespaces = namespace !== '' || !this.namespaced ? [namespace] : this.namespaces()
    for (const each of namespaces) yield* this.#shelves.get(each)?.joined() ?? []
  }

  namespaces(): readonly string[] {
    this.#namespaces ??= [...this.#shelves.keys()].sort()
    return this.#namespaces
  }

  forgetJoined(): void {
    for (const shelf of this.#shelves.values()) shelf.forgetJoined()
  }

  /** Takes in what the store had at start. */
  load(key: string, value: Uint8Array, revision: number): void {
    const [namespace, name] = this.parseKey(key)
    this.#put(Item.stored(namespace, name, revision, value))
  }

  /** The events up to this revision are not known here. */
  loaded(revision: number): void {
    this.#recentAfter = revision
    this.#changedAt = revision
  }

  /** Takes in a committed change and tells everybody. */
  apply({ key, value, revision, previousRevision }: Change): void {
    const [namespace, name] = this.parseKey(key)
    const old = previousRevision === 0 ? undefined : this.get(namespace, name)
    const next = value && Item.stored(namespace, name, revision, value)
    if (next) this.#put(next)
    else this.#remove(namespace, name)
    if (next === undefined && old === undefined) return
    this.#changedAt = revision
    const event = new CollectionEvent(revision, next, old)
    this.#recent.push(event)
    // Dropped by halves: taking one from the front each time would move the whole array.
    if (this.#recent.length > 2 * recentMax) {
      this.#recent.splice(0, recentMax)
      this.#recentAfter = (this.#recent[0]?.revision ?? revision) - 1
    }
    for (const listener of this.#listeners) listener(next?.object, old?.object)
    for (const follower of this.#followers) follower.take(event)
  }

  /** The events after a revision, or undefined when they are no longer all in memory. */
  recent(after: number): readonly CollectionEvent[] | undefined {
    if (after < this.#recentAfter) return undefined
    let first = this.#recent.length
    while (first > 0 && (this.#recent[first - 1]?.revision ?? 0) > after) first--
    return this.#recent.slice(first)
  }

  follow(follower: Follower): () => void {
    this.#followers.add(follower)
    return () => this.#followers.delete(follower)
  }

  /** It is not served any longer: whoever follows it is told. */
  close(): void {
    for (const follower of [...this.#followers]) follower.end()
  }

  onChange(listener: (next: KubeObject | undefined, old: KubeObject | undefined) => void): void {
    this.#listeners.push(listener)
  }

  #put(item: Item): void {
    let shelf = this.#shelves.get(item.namespace)
    if (shelf === undefined) {
      shelf = new Shelf()
      this.#shelves.set(item.namespace, shelf)
      this.#namespaces = undefined
    }
    this.#size -= shelf.size
    shelf.put(item)
    this.#size += shelf.size
  }

  #remove(namespace: string, name: string): void {
    const shelf = this.#shelves.get(namespace)
    if (shelf === undefined) return
    this.#size -= shelf.size
    shelf.remove(name)
    this.#size += shelf.size
    if (shelf.size > 0) return
    this.#shelves.delete(namespace)
    this.#namespaces = undefined
  }
}
