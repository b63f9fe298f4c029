/** A small generator of numbers (Weyl sequence and mixing): one seed a step, so that steps do not depend on each other. */
export class Draw {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 … n - 1. */
  next(n: number): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    let z = this.#state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) % n
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.next(n) === 0
  }

  of<T>(list: readonly [T, ...T[]] | readonly T[]): T {
    return list[this.next(list.length)] as T
  }
}
