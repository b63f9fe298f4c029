import { type Clock, systemClock } from '#base/clock.ts'

interface Waiter {
  readonly at: number
  readonly late: () => void
  previous: Waiter | undefined
  next: Waiter | undefined
}

/**
 * Many waits of one length, most of which end long before: starting and ending one costs a list entry, not a timer.
 * A wait is late by up to a quarter of its length.
 */
export class Deadlines {
  readonly #ms: number
  readonly #clock: Clock
  /** In order of their time, because all are of one length. */
  #first: Waiter | undefined
  #last: Waiter | undefined
  #cancel: (() => void) | undefined

  constructor(ms: number, clock: Clock = systemClock) {
    this.#ms = ms
    this.#clock = clock
  }

  /** Calls `late` once the time is over, unless the returned function was called before. */
  start(late: () => void): () => void {
    const waiter: Waiter = { at: this.#clock.monotonic() + this.#ms, late, previous: this.#last, next: undefined }
    if (this.#last) this.#last.next = waiter
    else this.#first = waiter
    this.#last = waiter
    this.#schedule()
    return () => this.#remove(waiter)
  }

  /** Nothing will be late any more: a timer that is left would keep the process from ending. */
  close(): void {
    this.#cancel?.()
    this.#cancel = () => {}
  }

  #remove(waiter: Waiter): void {
    const { previous, next } = waiter
    if (previous) previous.next = next
    else if (this.#first === waiter) this.#first = next
    else return
    if (next) next.previous = previous
    else this.#last = previous
    waiter.previous = undefined
    waiter.next = undefined
  }

  #schedule(): void {
    this.#cancel ??= this.#clock.schedule(this.#ms / 4, () => {
      this.#cancel = undefined
      const now = this.#clock.monotonic()
      while (this.#first && this.#first.at <= now) {
        const { late } = this.#first
        this.#remove(this.#first)
        late()
      }
      if (this.#first) this.#schedule()
    })
  }
}
