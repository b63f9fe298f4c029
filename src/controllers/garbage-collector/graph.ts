import type { ObjectMeta, OwnerReference } from '#api/gen/meta-v1.ts'
import { foregroundFinalizer, orphanFinalizer } from '#api/meta/finalizers.ts'
import type { Resource } from '#api/meta/resource.ts'

/** What the collector keeps of an object: who it is, whom it belongs to, and whether it is going. */
export interface Item {
  readonly uid: string
  /** Undefined: only heard of as somebody's owner, not seen yet; whether it exists must be asked. */
  resource: Resource | undefined
  namespace: string
  name: string
  owners: readonly OwnerReference[]
  /** Being deleted in the foreground: waits for its dependents. */
  waitsForDependents: boolean
  isGoing: boolean
  readonly dependents: Set<Item>
}

/** What a change means for others: uids to look at, and uids whose dependents are to be let go. */
export interface Consequences {
  readonly look: readonly string[]
  readonly orphan: readonly string[]
}

const nothing: Consequences = { look: [], orphan: [] }

/**
 * Who belongs to whom, by uid, over all resources. Changes go in as they are seen, in any order between resources: an
 * owner that is not seen yet is held as a virtual item until it is, or until somebody finds out that it is not there.
 */
export class Graph {
  readonly #items = new Map<string, Item>()
  /** Being deleted with the wish that their dependents stay. */
  readonly #orphaning = new Set<string>()

  get(uid: string): Item | undefined {
    return this.#items.get(uid)
  }

  get size(): number {
    return this.#items.size
  }

  /** An object is as `metadata` says. */
  upsert(resource: Resource, metadata: ObjectMeta): Consequences {
    const { uid, name, namespace = '', ownerReferences: owners = [], deletionTimestamp, finalizers = [] } = metadata
    const known = this.#items.get(uid)
    const wasWaiting = known?.waitsForDependents ?? false
    const wasOrphaning = this.#orphaning.has(uid)
    const item: Item = known ?? this.#add(uid)
    const old = item.owners
    item.resource = resource
    item.namespace = namespace
    item.name = name
    item.owners = owners
    item.isGoing = deletionTimestamp !== undefined
    item.waitsForDependents = item.isGoing && finalizers.includes(foregroundFinalizer)
    const look = new Set<string>()
    const orphan: string[] = []
    for (const owner of this.#relink(item, old, owners)) look.add(owner)
    if (owners.length > 0 && (known === undefined || !sameOwners(old, owners))) look.add(uid)
    if (item.waitsForDependents && !wasWaiting) {
      look.add(uid)
      for (const dependent of item.dependents) look.add(dependent.uid)
    }
    const orphaning = item.isGoing && finalizers.includes(orphanFinalizer)
    if (orphaning) this.#orphaning.add(uid)
    else this.#orphaning.delete(uid)
    if (orphaning && !wasOrphaning) orphan.push(uid)
    return { look: [...look], orphan }
  }

  /** An object is gone: what belonged to it, and what waited for it, must be looked at. */
  remove(uid: string): Consequences {
    const item = this.#items.get(uid)
    if (item === undefined) return nothing
    const look = new Set<string>()
    for (const owner of item.owners) {
      const of = this.#items.get(owner.uid)
      of?.dependents.delete(item)
      if (of?.waitsForDependents) look.add(of.uid)
      this.#forgetIfUnused(of)
    }
    this.#orphaning.delete(uid)
    this.#items.delete(uid)
    for (const dependent of item.dependents) look.add(dependent.uid)
    // Whoever still names it as owner keeps a link, so that a late arrival of the owner would be noticed.
    if (item.dependents.size > 0) {
      const virtual = this.#add(uid)
      for (const dependent of item.dependents) virtual.dependents.add(dependent)
    }
    return { look: [...look], orphan: [] }
  }

  #add(uid: string): Item {
    const item: Item = {
      uid,
      resource: undefined,
      namespace: '',
      name: '',
      owners: [],
      waitsForDependents: false,
      isGoing: false,
      dependents: new Set(),
    }
    this.#items.set(uid, item)
    return item
  }

  /** Moves the item from its old owners to the new ones. Gives the owners for which that may matter. */
  #relink(item: Item, old: readonly OwnerReference[], next: readonly OwnerReference[]): string[] {
    const look: string[] = []
    const kept = new Set(next.map((o) => o.uid))
    for (const { uid, blockOwnerDeletion } of old) {
      const stillBlocks = next.find((o) => o.uid === uid)?.blockOwnerDeletion === true
      const owner = this.#items.get(uid)
      // An owner in the foreground waits only for those that block it.
      if (owner?.waitsForDependents && blockOwnerDeletion === true && !stillBlocks) look.push(uid)
      if (kept.has(uid)) continue
      owner?.dependents.delete(item)
      this.#forgetIfUnused(owner)
    }
    for (const { uid } of next) {
      const owner = this.#items.get(uid) ?? this.#add(uid)
      owner.dependents.add(item)
    }
    return look
  }

  #forgetIfUnused(item: Item | undefined): void {
    if (item !== undefined && item.resource === undefined && item.dependents.size === 0) this.#items.delete(item.uid)
  }
}

const sameOwners = (a: readonly OwnerReference[], b: readonly OwnerReference[]): boolean =>
  a.length === b.length && a.every((o, i) => o.uid === b[i]?.uid && o.blockOwnerDeletion === b[i]?.blockOwnerDeletion)
