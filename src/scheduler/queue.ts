import type { Pod } from '#api/gen/core-v1.ts'
import type { Clock } from '#base/clock.ts'
import { type ClusterEvent, mayHelp } from './hints.ts'
import { type PodInfo, podInfo } from './snapshot.ts'

/** Milliseconds: the first wait after a failed attempt, doubling up to the last. */
const backoffFirstMs = 1_000
const backoffMaxMs = 10_000
/** A pod that no event has woken for this long is tried again all the same. */
const waitingMaxMs = 300_000
const flushEveryMs = 30_000

export interface Waiter {
  info: PodInfo
  attempts: number
  /** Wall milliseconds of being put in line: of equal priority, who came first goes first. */
  since: number
  /** Counts up: who came first within a millisecond. */
  readonly serial: number
  rejectedBy: ReadonlySet<string>
  /** `active`: in line. `backing-off`: in line from `until` on. `waiting`: for an event. `taken`: being worked on. */
  state: 'active' | 'backing-off' | 'waiting' | 'taken' | 'gone'
  until: number
  /** The attempt ended by an error rather than by a no: its pause is kept even when there is nothing else to do. */
  isError: boolean
}

/**
 * Pods that want a node, each in one of three places: in line (by priority, then age), backing off after a failed
 * attempt, or waiting for an event that may help. A pod is tried, and its answer noted, within one turn of the event
 * loop, so no event can fall between the two.
 */
export class SchedulingQueue {
  readonly #clock: Clock
  readonly #onReady: () => void
  readonly #all = new Map<string, Waiter>()
  readonly #active = new Heap<Waiter>(
    (a, b) => priority(b) - priority(a) || a.since - b.since || a.serial - b.serial,
    ({ state }) => state === 'active',
  )
  readonly #backoff = new Heap<Waiter>(
    (a, b) => a.until - b.until,
    ({ state }) => state === 'backing-off',
  )
  readonly #waiting = new Set<Waiter>()
  #cancelTimer: (() => void) | undefined
  #cancelFlush: () => void
  #closed = false
  #serial = 0

  /** `onReady` is called whenever `pop` may have something to give. */
  constructor(clock: Clock, onReady: () => void) {
    this.#clock = clock
    this.#onReady = onReady
    this.#cancelFlush = clock.schedule(flushEveryMs, () => this.#flush())
  }

  get size(): {
    readonly active: number
    readonly backoff: number
    readonly waiting: number
    readonly all: number
  } {
    return { active: this.#active.size, backoff: this.#backoff.size, waiting: this.#waiting.size, all: this.#all.size }
  }

  /** Puts a pod in line; one that is known is brought up to date, and tried again if what matters has changed. */
  put(pod: Pod): void {
    const known = this.#all.get(pod.metadata.uid)
    if (known === undefined) {
      const waiter: Waiter = {
        info: podInfo(pod),
        attempts: 0,
        since: this.#clock.now(),
        serial: this.#serial++,
        rejectedBy: new Set(),
        state: 'active',
        until: 0,
        isError: false,
      }
      this.#all.set(pod.metadata.uid, waiter)
      this.#active.push(waiter)
      this.#onReady()
      return
    }
    const isNews = matters(pod) !== matters(known.info.pod)
    known.info = isNews ? podInfo(pod) : { ...known.info, pod }
    if (isNews && known.state === 'waiting') this.#wake(known)
  }

  remove(uid: string): void {
    const known = this.#all.get(uid)
    if (known === undefined) return
    known.state = 'gone'
    this.#all.delete(uid)
    this.#waiting.delete(known)
  }

  /** The next pod to try. It must be given back by `reject`, `fail` or `remove`. */
  pop(): Waiter | undefined {
    this.#release()
    let next = this.#active.pop()
    if (next === undefined) {
      // Nothing else to do: who was told no and then woken need not sit out the pause.
      const early = this.#backoff.peek()
      if (early !== undefined && !early.isError) next = this.#backoff.pop()
    }
    if (next === undefined) return undefined
    next.state = 'taken'
    next.attempts++
    return next
  }

  /** No node will do: the pod waits until an event may change that. */
  reject(waiter: Waiter, rejectedBy: ReadonlySet<string>): void {
    if (waiter.state !== 'taken') return
    waiter.state = 'waiting'
    waiter.rejectedBy = rejectedBy
    waiter.isError = false
    waiter.since = this.#clock.now()
    this.#waiting.add(waiter)
  }

  /** The attempt ended by an error: it is tried again after a pause. */
  fail(waiter: Waiter): void {
    if (waiter.state !== 'taken') return
    waiter.isError = true
    waiter.since = this.#clock.now()
    this.#wake(waiter)
  }

  /** Something happened: wakes the pods that it may help. */
  tell(event: ClusterEvent): void {
    for (const waiter of [...this.#waiting]) {
      if (mayHelp(waiter.info, waiter.rejectedBy, event)) this.#wake(waiter)
    }
  }

  close(): void {
    this.#closed = true
    this.#cancelTimer?.()
    this.#cancelFlush()
  }

  #wake(waiter: Waiter): void {
    this.#waiting.delete(waiter)
    const now = this.#clock.now()
    const pause = Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.max(0, waiter.attempts - 1))
    waiter.until = waiter.since + pause
    if (waiter.until <= now) {
      waiter.state = 'active'
      waiter.since = now
      this.#active.push(waiter)
    } else {
      waiter.state = 'backing-off'
      this.#backoff.push(waiter)
      this.#arm()
    }
    this.#onReady()
  }

  /** Moves whose pause is over into line. */
  #release(): void {
    const now = this.#clock.now()
    for (;;) {
      const first = this.#backoff.peek()
      if (first === undefined || first.until > now) break
      this.#backoff.pop()
      first.state = 'active'
      first.since = now
      this.#active.push(first)
    }
    this.#arm()
  }

  #arm(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    const first = this.#backoff.peek()
    if (first === undefined || this.#closed) return
    this.#cancelTimer = this.#clock.schedule(Math.max(0, first.until - this.#clock.now()), this.#onReady)
  }

  #flush(): void {
    if (this.#closed) return
    const before = this.#clock.now() - waitingMaxMs
    for (const waiter of [...this.#waiting]) if (waiter.since <= before) this.#wake(waiter)
    this.#cancelFlush = this.#clock.schedule(flushEveryMs, () => this.#flush())
  }
}

const priority = ({ info }: Waiter): number => info.pod.spec.priority ?? 0

/** All of a pod that placement looks at; its status and managed fields do not matter. */
const matters = ({ metadata, spec }: Pod): string => JSON.stringify([metadata.labels, spec])

/** A binary heap; entries that are no longer `isCurrent` are passed over. */
class Heap<T> {
  readonly #compare: (a: T, b: T) => number
  readonly #isCurrent: (item: T) => boolean
  readonly #items: T[] = []

  constructor(compare: (a: T, b: T) => number, isCurrent: (item: T) => boolean) {
    this.#compare = compare
    this.#isCurrent = isCurrent
  }

  get size(): number {
    return this.#items.length
  }

  push(item: T): void {
    const items = this.#items
    let at = items.length
    items.push(item)
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = items[parent] as T
      if (this.#compare(above, item) <= 0) break
      items[at] = above
      at = parent
    }
    items[at] = item
  }

  peek(): T | undefined {
    for (;;) {
      const [first] = this.#items
      if (first === undefined || this.#isCurrent(first)) return first
      this.#takeFirst()
    }
  }

  pop(): T | undefined {
    const first = this.peek()
    if (first !== undefined) this.#takeFirst()
    return first
  }

  #takeFirst(): void {
    const items = this.#items
    const last = items.pop() as T
    if (items.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= items.length) break
      if (child + 1 < items.length && this.#compare(items[child + 1] as T, items[child] as T) < 0) child++
      if (this.#compare(last, items[child] as T) <= 0) break
      items[at] = items[child] as T
      at = child
    }
    items[at] = last
  }
}
