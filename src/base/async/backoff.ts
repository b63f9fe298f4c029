/** Exponential back-off: the n-th wait is `firstMs * factor^n`, at most `maxMs`, less up to `jitter` of itself. */
export interface BackoffOptions {
  readonly firstMs: number
  readonly maxMs: number
  readonly factor?: number
  /** 0 to 1: the share of the wait that is random. */
  readonly jitter?: number
  readonly random?: () => number
}

export class Backoff {
  readonly #options: Required<BackoffOptions>
  #attempt = 0

  constructor(options: BackoffOptions) {
    this.#options = { factor: 2, jitter: 0, random: Math.random, ...options }
  }

  /** Milliseconds to wait before the next attempt. */
  next(): number {
    const { firstMs, maxMs, factor, jitter, random } = this.#options
    const full = Math.min(maxMs, firstMs * factor ** this.#attempt++)
    return full * (1 - jitter * random())
  }

  reset(): void {
    this.#attempt = 0
  }
}
