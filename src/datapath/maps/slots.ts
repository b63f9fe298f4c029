/**
 * Runs of consecutive numbers, handed out and taken back. What was taken back rests a while before it is handed out
 * again: a connection that is just being translated may still read it. Pure; time is passed in.
 */
export class RunAllocator {
  readonly #limit: number
  readonly #restMs: number
  readonly #now: () => number
  /** By size, a power of two. */
  readonly #free = new Map<number, number[]>()
  readonly #resting: { readonly first: number; readonly size: number; readonly until: number }[] = []
  /** The first of `#resting` that still rests: those before it are taken off now and then. */
  #rested = 0
  #next = 0

  constructor(options: { readonly limit: number; readonly restMs: number; readonly now: () => number }) {
    this.#limit = options.limit
    this.#restMs = options.restMs
    this.#now = options.now
  }

  /** First number of a run of at least `count`; undefined where there is no room. */
  take(count: number): number | undefined {
    const size = sizeOf(count)
    this.#wake()
    const first = this.#find(size)
    if (first !== undefined) return first
    this.#join()
    return this.#find(size)
  }

  #find(size: number): number | undefined {
    const known = this.#free.get(size)?.pop()
    if (known !== undefined) return known
    if (this.#next + size > this.#limit) return this.#split(size)
    this.#next += size
    return this.#next - size
  }

  /** Free runs that lie side by side become one again; one at the end goes back to what was never used. */
  #join(): void {
    const runs = [...this.#free].flatMap(([size, list]) => list.map((first) => ({ first, size })))
    this.#free.clear()
    let open: { first: number; size: number } | undefined
    for (const run of runs.toSorted((a, b) => a.first - b.first)) {
      if (open !== undefined && open.first + open.size === run.first) open.size += run.size
      else {
        if (open !== undefined) this.#release(open.first, open.size)
        open = run
      }
    }
    if (open === undefined) return
    if (open.first + open.size === this.#next) this.#next = open.first
    else this.#release(open.first, open.size)
  }

  /** `count` as it was taken. */
  give(first: number, count: number): void {
    if (count > 0) this.#resting.push({ first, size: sizeOf(count), until: this.#now() + this.#restMs })
  }

  /** Starts from what is in use: the runs that an earlier agent left. Overlapping runs are an error of that agent. */
  restore(used: readonly { readonly first: number; readonly count: number }[]): void {
    this.#free.clear()
    this.#next = 0
    for (const { first, count } of used.filter((r) => r.count > 0).toSorted((a, b) => a.first - b.first)) {
      if (first < this.#next) throw new Error(`Cannot take over the runs of an earlier agent: two overlap at ${first}`)
      this.#release(this.#next, first - this.#next)
      this.#next = first + sizeOf(count)
    }
  }

  #wake(): void {
    const now = this.#now()
    for (
      let run = this.#resting[this.#rested];
      run !== undefined && run.until <= now;
      run = this.#resting[this.#rested]
    ) {
      this.#release(run.first, run.size)
      this.#rested++
    }
    if (this.#rested * 2 > this.#resting.length) {
      this.#resting.splice(0, this.#rested)
      this.#rested = 0
    }
  }

  /** A gap of any length becomes runs of powers of two. */
  #release(first: number, length: number): void {
    let at = first
    for (let left = length; left > 0; ) {
      const size = 2 ** Math.floor(Math.log2(left))
      const list = this.#free.get(size)
      if (list === undefined) this.#free.set(size, [at])
      else list.push(at)
      at += size
      left -= size
    }
  }

  #split(size: number): number | undefined {
    for (const [larger, list] of [...this.#free].toSorted(([a], [b]) => a - b)) {
      const first = larger > size ? list.pop() : undefined
      if (first === undefined) continue
      this.#release(first + size, larger - size)
      return first
    }
    return undefined
  }
}

/** Runs are powers of two long, so that what one Service gives back fits the next. */
const sizeOf = (count: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, count)))
