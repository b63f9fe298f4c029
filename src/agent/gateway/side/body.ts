/** What one request may hold in memory so that it can be sent again, or to a mirror that is slower. */
const replayBytesMax = 16 << 20
/** How far the source may run ahead of the reader that matters. */
const aheadBytesMax = 1 << 20

interface Reader {
  /** Number of the next chunk. */
  at: number
  bytes: number
  readonly essential: boolean
  wake: (() => void) | undefined
  cut: boolean
}

/**
 * A request's body, read by the backend that answers and by mirrors at their own pace, from its first byte for every one of
 * them. It is kept from the start while it fits into `replayBytesMax`; a larger one cannot be sent again, and a mirror
 * that falls that far behind is cut off: it never gets a body that looks whole and is not.
 */
export class Body {
  readonly #chunks: (Buffer | undefined)[] = []
  readonly #readers = new Set<Reader>()
  #bytes = 0
  #first = 0
  #held = 0
  #ended = false
  #error: Error | undefined
  #resume: (() => void) | undefined

  constructor(source: AsyncIterable<Buffer>) {
    this.#pump(source).catch((error: unknown) => {
      this.#error = error instanceof Error ? error : new Error(String(error))
      this.#wakeAll()
    })
  }

  /** Everything that came is still here. */
  get replayable(): boolean {
    return this.#first === 0 && this.#error === undefined
  }

  async #pump(source: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of source) {
      this.#chunks.push(chunk)
      this.#bytes += chunk.length
      this.#held += chunk.length
      this.#wakeAll()
      this.#forget()
      while (this.#ahead() > aheadBytesMax)
        await new Promise<void>((resolve) => {
          this.#resume = resolve
        })
    }
    this.#ended = true
    this.#wakeAll()
  }

  /** How much has come that the slowest essential reader has not had; with none the body is kept until there is one. */
  #ahead(): number {
    const read = [...this.#readers].filter((r) => r.essential).map((r) => r.bytes)
    return read.length === 0 ? this.#held - replayBytesMax : this.#bytes - Math.min(...read)
  }

  /** Past the limit only what is still to be read stays. */
  #forget(): void {
    if (this.#held <= replayBytesMax) return
    for (const reader of this.#readers)
      if (!reader.essential && this.#bytes - reader.bytes > replayBytesMax) {
        reader.cut = true
        this.#readers.delete(reader)
        reader.wake?.()
      }
    const needed = Math.min(this.#chunks.length, ...[...this.#readers].map((r) => r.at))
    while (this.#first < needed) {
      this.#held -= this.#chunks[this.#first]?.length ?? 0
      this.#chunks[this.#first++] = undefined
    }
  }

  #wakeAll(): void {
    for (const reader of this.#readers) reader.wake?.()
  }

  /** From the first byte. Throws where that is gone, where the client went away, or where a mirror was too slow. */
  async *read(reading: 'essential' | 'mirror'): AsyncGenerator<Buffer, void> {
    if (!this.replayable) throw this.#error ?? new Error('the body is not there any more')
    const reader: Reader = { at: 0, bytes: 0, essential: reading === 'essential', wake: undefined, cut: false }
    this.#readers.add(reader)
    try {
      for (;;) {
        if (reader.cut) throw new Error('the mirror was too slow')
        const chunk = this.#chunks[reader.at]
        if (chunk !== undefined) {
          reader.at++
          reader.bytes += chunk.length
          this.#resume?.()
          yield chunk
          continue
        }
        if (this.#error !== undefined) throw this.#error
        if (this.#ended) return
        await new Promise<void>((resolve) => {
          reader.wake = resolve
        })
        reader.wake = undefined
      }
    } finally {
      this.#readers.delete(reader)
      this.#forget()
      this.#resume?.()
    }
  }
}
