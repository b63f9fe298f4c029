import { badRequest, expired, fieldError, internalError, invalid, type StatusError } from '#api/meta/status.ts'
import type { Clock } from '#base/clock.ts'
import { Compacted, type Store } from '#store/store.ts'
import type { Encoding } from '../registry/encoding.ts'
import { Item } from '../registry/item.ts'
import type { Selection } from '../registry/select.ts'
import type { Served } from '../registry/served.ts'
import { CollectionEvent, type EventType, encodeLine } from './event.ts'

/** Where a watch's bytes go. */
export interface Sink {
  /** False: no more until `ready()` of the watch is called. */
  write(bytes: Uint8Array): boolean
  end(): void
}

/** Who counts. */
export interface WatchObserver {
  opened(): void
  sent(events: number): void
  closed(): void
}

export interface WatchQuery {
  /** Events after this revision; undefined: first the present objects. */
  readonly after: number | undefined
  /** The present objects end with a bookmark that says so. */
  readonly initialEventsEnd: boolean
  readonly bookmarks: boolean
  readonly timeoutMs: number
}

/** Events that a slow reader may be behind; then its watch ends, and it resumes from the last revision it saw. */
const queuedEventsMax = 4096
/** Present objects encoded at a time. */
const initialBatch = 64
const bookmarkMs = 60_000

/**
 * One watch. Events come in order from the collection; they go to the sink at once while it takes them, else they wait
 * in a bounded queue. Starts with the present objects, with kept events, or with the next one.
 */
export class Watch {
  readonly #served: Served
  readonly #store: Store
  readonly #selection: Selection
  readonly #encoding: Encoding
  readonly #query: WatchQuery
  readonly #clock: Clock
  readonly #observer: WatchObserver
  readonly #cancels: (() => void)[] = []
  #initial: { readonly items: readonly Item[]; position: number } | undefined
  /** Events not yet sent; `#head` is the first. */
  #queue: CollectionEvent[] = []
  #head = 0
  #sink: Sink | undefined
  #blocked = true
  #catchingUp = false
  /** Goes on with a catching up that waits for the sink. */
  #wake: () => void = () => {}
  #ended = false
  /** Everything up to here was sent, or did not concern this watch. */
  #seen = 0

  constructor(options: {
    readonly served: Served
    readonly store: Store
    readonly selection: Selection
    readonly encoding: Encoding
    readonly query: WatchQuery
    readonly clock: Clock
    readonly observer: WatchObserver
  }) {
    this.#served = options.served
    this.#store = options.store
    this.#selection = options.selection
    this.#encoding = options.encoding
    this.#query = options.query
    this.#clock = options.clock
    this.#observer = options.observer
  }

  /** Begins. The sink is ready. */
  start(sink: Sink): void {
    if (this.#ended) return
    this.#sink = sink
    this.#blocked = false
    this.#observer.opened()
    const { collection } = this.#served
    const { after, timeoutMs, bookmarks } = this.#query
    this.#cancels.push(
      collection.follow({ take: (event) => this.#offer(event), end: () => this.stop() }),
      this.#clock.schedule(timeoutMs, () => this.#timedOut()),
    )
    if (bookmarks) this.#scheduleBookmark()
    if (after === undefined) {
      this.#seen = this.#store.revision
      const all = collection.items(this.#selection.namespace)
      this.#initial = { items: [...all].filter((item) => this.#selection.matches(item)), position: 0 }
      this.#pump()
      return
    }
    this.#seen = after
    if (after > this.#store.revision) {
      // Of another history: a store that was put back. Only a new list helps.
      this.#fail(expired(`resource version ${after} is newer than anything here (${this.#store.revision})`))
      return
    }
    const recent = collection.recent(after)
    if (recent) for (const event of recent) this.#offer(event)
    else void this.#catchUp(after)
  }

  /** The sink takes bytes again. */
  ready(): void {
    this.#blocked = false
    this.#wake()
    this.#pump()
  }

  /** Ends it; nothing is written after. */
  stop(): void {
    if (this.#ended) return
    this.#ended = true
    for (const cancel of this.#cancels.splice(0)) cancel()
    this.#queue = []
    this.#initial = undefined
    this.#wake()
    if (this.#sink === undefined) return
    this.#observer.closed()
    this.#sink.end()
  }

  #offer(event: CollectionEvent): void {
    if (this.#ended || event.revision <= this.#seen) return
    if (!this.#blocked && !this.#catchingUp && this.#initial === undefined && this.#queue.length === 0) {
      this.#send(event)
      return
    }
    if (this.#typeOf(event) === undefined) return
    if (this.#queue.length - this.#head >= queuedEventsMax) {
      this.stop()
      return
    }
    this.#queue.push(event)
  }

  #send(event: CollectionEvent): void {
    this.#seen = event.revision
    const type = this.#typeOf(event)
    if (type === undefined) return
    this.#observer.sent(1)
    this.#write(event.line(type, this.#encoding))
  }

  #write(bytes: Uint8Array): void {
    if (this.#sink?.write(bytes) === false) this.#blocked = true
  }

  /** What the change is to this watch: an object that leaves its selection is deleted, to it. */
  #typeOf({ next, old }: CollectionEvent): EventType | undefined {
    const sees = next !== undefined && this.#selection.matches(next)
    const saw = old !== undefined && this.#selection.matches(old)
    if (sees) return saw ? 'MODIFIED' : 'ADDED'
    return saw ? 'DELETED' : undefined
  }

  #pump(): void {
    while (!this.#blocked && !this.#ended) {
      if (this.#initial) this.#sendInitial(this.#initial)
      else if (this.#catchingUp || this.#head >= this.#queue.length) break
      else this.#sendQueued()
    }
    if (this.#head >= this.#queue.length && this.#head > 0) {
      this.#queue = []
      this.#head = 0
    }
  }

  #sendQueued(): void {
    const event = this.#queue[this.#head++]
    if (event && event.revision > this.#seen) this.#send(event)
  }

  #sendInitial(initial: { readonly items: readonly Item[]; position: number }): void {
    const batch = initial.items.slice(initial.position, initial.position + initialBatch)
    initial.position += batch.length
    if (batch.length > 0) {
      this.#observer.sent(batch.length)
      this.#write(Buffer.concat(batch.map((item) => encodeLine('ADDED', this.#encoding.one(item)))))
    }
    if (initial.position < initial.items.length) return
    this.#initial = undefined
    if (this.#query.initialEventsEnd) this.#write(this.#bookmark({ 'k8s.io/initial-events-end': 'true' }))
  }

  /** Reads from the store what is no longer in memory. New events wait in the queue meanwhile. */
  async #catchUp(after: number): Promise<void> {
    this.#catchingUp = true
    const { collection } = this.#served
    try {
      for await (const changes of this.#store.changes({ prefix: collection.prefix, after })) {
        for (const { key, value, revision, previousRevision } of changes) {
          const [namespace, name] = collection.parseKey(key)
          const before = previousRevision > 0 ? await this.#store.get(key, previousRevision) : undefined
          if (this.#ended) return
          this.#send(
            new CollectionEvent(
              revision,
              value && Item.stored(namespace, name, revision, value),
              before && Item.stored(namespace, name, before.revision, before.value),
            ),
          )
        }
        while (this.#blocked && !this.#ended) await this.#unblocked()
      }
      this.#catchingUp = false
      this.#pump()
    } catch (error) {
      this.#fail(
        error instanceof Compacted
          ? expired(`too old resource version: ${after} (${error.compactedRevision})`)
          : internalError(error instanceof Error ? error.message : String(error)),
      )
    }
  }

  #unblocked(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #fail(error: StatusError): void {
    if (this.#ended) return
    this.#sink?.write(encodeLine('ERROR', Buffer.from(JSON.stringify(error.status))))
    this.stop()
  }

  #timedOut(): void {
    if (this.#query.bookmarks && this.#idle) this.#sink?.write(this.#bookmark())
    this.stop()
  }

  get #idle(): boolean {
    return !this.#blocked && !this.#catchingUp && this.#initial === undefined && this.#queue.length === 0
  }

  #scheduleBookmark(): void {
    const cancel = this.#clock.schedule(bookmarkMs, () => {
      this.#cancels.splice(this.#cancels.indexOf(cancel), 1)
      if (this.#ended) return
      if (this.#idle) {
        this.#seen = Math.max(this.#seen, this.#store.revision)
        this.#write(this.#bookmark())
      }
      this.#scheduleBookmark()
    })
    this.#cancels.push(cancel)
  }

  #bookmark(annotations?: Record<string, string>): Buffer {
    const { apiVersion, definition } = this.#served
    const resourceVersion = String(this.#seen)
    const metadata = { resourceVersion, ...(annotations ? { annotations } : {}) }
    return encodeLine('BOOKMARK', this.#encoding.bookmark({ kind: definition.resource.kind, apiVersion, metadata }))
  }
}

/** What the query of a watch asks for. Throws as upstream does where the parts do not fit (API concepts, resource versions: watches). */
export function watchQueryOf(
  get: (name: string) => string,
  parseRevision: (text: string) => number,
  random: () => number,
): WatchQuery {
  const version = get('resourceVersion')
  const match = get('resourceVersionMatch')
  const bookmarks = isTrue(get('allowWatchBookmarks'))
  const initial = get('sendInitialEvents')
  const refuse = (path: string, detail: string): StatusError =>
    invalid('meta.k8s.io', 'ListOptions', '', [fieldError.forbidden(path, detail)])
  if (initial === '' && match !== '') {
    throw refuse(
      'resourceVersionMatch',
      'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided',
    )
  }
  if (initial !== '') {
    if (match !== 'NotOlderThan') {
      throw refuse('resourceVersionMatch', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan')
    }
  }
  const seconds = get('timeoutSeconds')
  if (seconds !== '' && !/^\d{1,9}$/.test(seconds))
    throw badRequest(`invalid timeoutSeconds: ${JSON.stringify(seconds)}`)
  // Spread, so that watches opened together are not all opened again together.
  const timeoutMs = seconds === '' || seconds === '0' ? 1_800_000 * (1 + random()) : Number(seconds) * 1000
  const revision = parseRevision(version)
  const present = initial === '' ? version === '' || version === '0' : isTrue(initial)
  // Without initial events and without a revision, a watch begins with what comes next.
  const after = present ? undefined : revision
  return {
    after,
    initialEventsEnd: isTrue(initial) && bookmarks,
    bookmarks,
    timeoutMs: Math.min(timeoutMs, 2 ** 31 - 1),
  }
}

export const isTrue = (text: string): boolean =>
  text === 'true' || text === '1' || text === 'TRUE' || text === 'True' || text === 't' || text === 'T'
