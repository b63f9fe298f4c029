import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { expired } from '#api/meta/status.ts'
import { Queue } from '#base/async/queue.ts'
import type { WatchEvent } from '../client.ts'
import { deepFreeze } from '../freeze.ts'
import { keyOf, qualifiedName } from '../key.ts'

/** One committed change. `next` undefined: removed; `old` then is the last state with the revision of the removal. */
export interface Commit {
  readonly resource: string
  readonly revision: number
  readonly next: KubeObject | undefined
  readonly old: KubeObject | undefined
}

/** Changes kept for watches that start in the past; older ones are Expired, as after a compaction. */
const historyMax = 10_000
const watchBufferMax = 10_000

/** The fake's objects, revisions and watches. */
export class FakeStorage {
  readonly #objects = new Map<string, Map<string, KubeObject>>()
  readonly #watches = new Set<(commit: Commit) => void>()
  #history: Commit[] = []
  #compacted = 0
  revision = 1

  all(resource: Resource): Map<string, KubeObject> {
    const name = qualifiedName(resource)
    const known = this.#objects.get(name)
    if (known) return known
    const made = new Map<string, KubeObject>()
    this.#objects.set(name, made)
    return made
  }

  put(resource: Resource, object: KubeObject): KubeObject {
    const objects = this.all(resource)
    const key = keyOf(object)
    const old = objects.get(key)
    const revision = ++this.revision
    object.metadata.resourceVersion = String(revision)
    const next = deepFreeze(object)
    objects.set(key, next)
    this.#commit({ resource: qualifiedName(resource), revision, next, old })
    return next
  }

  remove(resource: Resource, object: KubeObject): KubeObject {
    const revision = ++this.revision
    const last = structuredClone(object)
    last.metadata.resourceVersion = String(revision)
    this.all(resource).delete(keyOf(object))
    this.#commit({ resource: qualifiedName(resource), revision, next: undefined, old: deepFreeze(last) })
    return last
  }

  #commit(commit: Commit): void {
    this.#history.push(commit)
    if (this.#history.length > historyMax) this.compact(this.#history[historyMax / 10]?.revision ?? 0)
    for (const watch of [...this.#watches]) watch(commit)
  }

  /** Forgets the changes up to and including `revision`: a watch from before gets 410. */
  compact(revision = this.revision): void {
    this.#compacted = revision
    this.#history = this.#history.filter((c) => c.revision > revision)
  }

  /** Ends every open watch, as a server that goes down does; with an error, they throw it. */
  disconnect(error?: unknown): void {
    for (const end of [...this.#ends]) end(error)
  }

  readonly #ends = new Set<(error?: unknown) => void>()

  async *watch(
    resource: Resource,
    start: { readonly after: number } | { readonly initial: 'with-bookmark' | 'plain' },
    matches: (object: KubeObject) => boolean,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<KubeObject>, void> {
    const name = qualifiedName(resource)
    const queue = new Queue<WatchEvent<KubeObject>>(watchBufferMax)
    const push = (event: WatchEvent<KubeObject>) => {
      if (!queue.push(event)) queue.close(new Error('the watch is too slow'))
    }
    const onCommit = (commit: Commit) => {
      if (commit.resource !== name) return
      const was = commit.old !== undefined && matches(commit.old)
      if (commit.next !== undefined && matches(commit.next))
        push({ type: was ? 'MODIFIED' : 'ADDED', object: commit.next })
      else if (was && commit.old !== undefined) {
        // What leaves a selector is seen as it was, with the revision at which it left.
        const metadata = { ...commit.old.metadata, resourceVersion: String(commit.revision) }
        push({ type: 'DELETED', object: deepFreeze({ ...commit.old, metadata }) })
      }
    }
    if ('after' in start) {
      if (start.after < this.#compacted)
        throw expired(`too old resource version: ${start.after} (${this.#compacted + 1})`)
      for (const commit of this.#history) if (commit.revision > start.after) onCommit(commit)
    } else {
      for (const object of this.all(resource).values()) if (matches(object)) push({ type: 'ADDED', object })
      if (start.initial === 'with-bookmark')
        push({ type: 'BOOKMARK', resourceVersion: String(this.revision), initialEventsEnd: true })
    }
    const end = (error?: unknown) => queue.close(error)
    const abort = () => queue.close(signal.reason)
    if (signal.aborted) abort()
    this.#watches.add(onCommit)
    this.#ends.add(end)
    signal.addEventListener('abort', abort, { once: true })
    try {
      for await (const event of queue) {
        if (signal.aborted) throw signal.reason
        yield event
      }
    } finally {
      this.#watches.delete(onCommit)
      this.#ends.delete(end)
      signal.removeEventListener('abort', abort)
    }
  }
}
