/** From what is named to who names it. */
export class ReverseIndex {
  readonly #ids = new Map<string, Set<string>>()

  get(key: string): Iterable<string> {
    return this.#ids.get(key) ?? []
  }

  change(id: string, before: Iterable<string> | undefined, next: Iterable<string> | undefined): void {
    for (const key of before ?? []) {
      const ids = this.#ids.get(key)
      ids?.delete(id)
      if (ids?.size === 0) this.#ids.delete(key)
    }
    for (const key of next ?? []) {
      const ids = this.#ids.get(key)
      if (ids === undefined) this.#ids.set(key, new Set([id]))
      else ids.add(id)
    }
  }
}
