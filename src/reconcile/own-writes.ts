import type { KubeObject } from '#api/meta/resource.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'

/** How long a local copy may lag behind our own writes before that is an error. */
const lagMaxMs = 30_000

/**
 * Reading one's own writes. A reconciler that acts on a local copy which lacks what it did a moment ago would do it
 * twice. So it notes what it wrote under its key, and waits at the start of the next look at that key.
 */
export class OwnWrites {
  readonly #clock: Clock
  readonly #pending = new Map<string, { readonly informer: Informer<never>; readonly seen: () => boolean }[]>()

  constructor(clock: Clock = systemClock) {
    this.#clock = clock
  }

  /** `answer` is what the server answered to a create, update or patch. */
  wrote<K extends KubeObject>(key: string, informer: Informer<K>, answer: K): void {
    const { resourceVersion } = answer.metadata
    this.#note(key, informer, () => informer.hasSeen(resourceVersion))
  }

  /** `object` was deleted, or told to go. */
  deleted<K extends KubeObject>(key: string, informer: Informer<K>, object: K): void {
    const { uid } = object.metadata
    this.#note(key, informer, () => {
      const now = informer.get(keyOf(object))
      return now === undefined || now.metadata.uid !== uid || now.metadata.deletionTimestamp !== undefined
    })
  }

  /** Resolves when the copies have all that was noted under the key. Throws after 30 s: then the key is tried again. */
  async whenSeen(key: string, signal: AbortSignal): Promise<void> {
    const pending = this.#pending.get(key)
    if (pending === undefined) return
    const late = new AbortController()
    const cancel = this.#clock.schedule(lagMaxMs, () =>
      late.abort(new Error(`Cannot act on "${key}": the local copy is ${lagMaxMs} ms behind our own writes`)),
    )
    try {
      const either = AbortSignal.any([signal, late.signal])
      for (const { informer, seen } of pending) await informer.when(seen, either)
      this.#pending.delete(key)
    } finally {
      cancel()
    }
  }

  /** The key is gone for good. */
  forget(key: string): void {
    this.#pending.delete(key)
  }

  #note<K extends KubeObject>(key: string, informer: Informer<K>, seen: () => boolean): void {
    if (seen()) return
    const entry = { informer: informer as unknown as Informer<never>, seen }
    const pending = this.#pending.get(key)
    if (pending === undefined) this.#pending.set(key, [entry])
    else pending.push(entry)
  }
}
