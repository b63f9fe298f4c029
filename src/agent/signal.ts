/** Says "look again": raised any number of times, waited for by one. What was raised while nobody waited is not lost. */
export class Signal {
  #raised = false
  #resolve: (() => void) | undefined

  raise(): void {
    this.#raised = true
    this.#resolve?.()
  }

  /** Resolves once raised since the last wait; rejects when `signal` aborts first. */
  async wait(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (!this.#raised) {
      await new Promise<void>((resolve, reject) => {
        const abort = () => reject(signal.reason)
        signal.addEventListener('abort', abort, { once: true })
        this.#resolve = () => {
          signal.removeEventListener('abort', abort)
          resolve()
        }
      }).finally(() => {
        this.#resolve = undefined
      })
    }
    this.#raised = false
  }
}
