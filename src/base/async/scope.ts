/**
 * Owns tasks: every task started here is awaited when the scope closes, and the first failure aborts the others.
 * So no promise floats, and `run()` of a component resolves when its work has truly stopped.
 */
export class Scope implements AsyncDisposable {
  readonly #controller = new AbortController()
  readonly #tasks = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined
  readonly #detach: () => void

  constructor(parent?: AbortSignal) {
    const abort = () => this.#controller.abort(parent?.reason)
    if (parent?.aborted) abort()
    parent?.addEventListener('abort', abort, { once: true })
    this.#detach = () => parent?.removeEventListener('abort', abort)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Starts a task. A rejection that is not the scope's own end closes the scope and is thrown by `done()`. */
  start(task: (signal: AbortSignal) => Promise<void>): void {
    const running = task(this.signal)
      .catch((error: unknown) => {
        if (this.signal.aborted && (error === this.signal.reason || isAbort(error))) return
        this.#failure ??= { error }
        this.#controller.abort(error)
      })
      .finally(() => this.#tasks.delete(running))
    this.#tasks.add(running)
  }

  stop(reason: unknown = new DOMException('stopped', 'AbortError')): void {
    this.#controller.abort(reason)
  }

  /** Resolves when every task has ended; throws the first failure, once: disposal after it must not hide it. */
  async done(): Promise<void> {
    while (this.#tasks.size > 0) await Promise.all(this.#tasks)
    this.#detach()
    const failure = this.#failure
    this.#failure = undefined
    if (failure) throw failure.error
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop()
    await this.done()
  }
}

export function isAbort(error: unknown): boolean {
  return error instanceof Error && (error.name === 'AbortError' || (error as { code?: unknown }).code === 'ABORT_ERR')
}
