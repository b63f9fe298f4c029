/** Milliseconds: a daemon that fails again is replaced after a pause that doubles. */
const firstMs = 1_000
const maxMs = 900_000

/** Per node, how long a failed pod has to stay before it is replaced. */
export class Failures {
  readonly #entries = new Map<string, { readonly at: number; readonly ms: number }>()

  /** Milliseconds until a failed pod may be replaced; 0 at the first failure. */
  hold(id: string, now: number): number {
    const entry = this.#entries.get(id)
    return entry === undefined ? 0 : Math.max(0, entry.at + entry.ms - now)
  }

  /** A failed pod is being replaced now. */
  replaced(id: string, now: number): void {
    this.#forgetOld(now)
    const entry = this.#entries.get(id)
    this.#entries.set(id, { at: now, ms: entry === undefined ? firstMs : Math.min(maxMs, entry.ms * 2) })
  }

  /** What has not failed for twice the longest pause begins anew. */
  #forgetOld(now: number): void {
    for (const [id, { at }] of this.#entries) if (now - at > 2 * maxMs) this.#entries.delete(id)
  }
}
