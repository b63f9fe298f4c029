/** Who has what: an address or a port has at most one owner. Derived from the registry, so nothing of it is stored. */
export class Ownership<T> {
  readonly #owners = new Map<T, string>()

  /** `kept`: it was this owner's already. */
  claim(item: T, owner: string): 'new' | 'kept' | 'taken' {
    const present = this.#owners.get(item)
    if (present === owner) return 'kept'
    if (present !== undefined) return 'taken'
    this.#owners.set(item, owner)
    return 'new'
  }

  /** Does nothing where somebody else has it: a late release never takes another's. */
  release(item: T, owner: string): void {
    if (this.#owners.get(item) === owner) this.#owners.delete(item)
  }

  has(item: T): boolean {
    return this.#owners.has(item)
  }
}

/**
 * Positions `first` to `last`, given out in turn: what was just released comes round last, so that nobody's old packets
 * or cached names reach the next owner.
 */
export class Ring {
  readonly #first: number
  readonly #count: number
  #next: number

  constructor(first: number, last: number) {
    this.#first = first
    this.#count = Math.max(0, last - first + 1)
    this.#next = 0
  }

  /** The next free position, or undefined when all are taken. */
  next(isFree: (position: number) => boolean): number | undefined {
    for (let tried = 0; tried < this.#count; tried++) {
      const position = this.#first + this.#next
      this.#next = (this.#next + 1) % this.#count
      if (isFree(position)) return position
    }
    return undefined
  }
}

/**
 * How many positions at the start of a range are kept for those who name theirs: automatic choice takes from above
 * first, so that a manifest with a fixed address seldom finds it gone (KEP-3070).
 */
export const staticBand = (size: number, share: number, max: number): number =>
  size <= 16 ? 0 : Math.min(Math.max(16, Math.floor(size / share)), max)
