/** A bounded queue between one producer side and one consumer. `push` says whether the item was taken. */
export class Queue<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  readonly #itemsMax: number
  #wake: (() => void) | undefined
  #closed: { readonly error?: unknown } | undefined

  constructor(itemsMax: number) {
    this.#itemsMax = itemsMax
  }

  get size(): number {
    return this.#items.length
  }

  /** False when the queue is full or closed: the caller decides what that means, it is never silent. */
  push(item: T): boolean {
    if (this.#closed || this.#items.length >= this.#itemsMax) return false
    this.#items.push(item)
    this.#wake?.()
    return true
  }

  /** Ends iteration after what is queued; with an error, iteration throws it. */
  close(error?: unknown): void {
    this.#closed ??= error === undefined ? {} : { error }
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift() as T
      if (this.#closed) {
        if ('error' in this.#closed) throw this.#closed.error
        return
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
  }
}
