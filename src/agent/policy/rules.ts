import type { Direction, Policy } from './parse.ts'

/** Where a rule number leads: the object as it was compiled, and the element of it. */
export interface RuleSource {
  readonly policy: Policy
  readonly direction: Direction
  /** `spec.ingress[1].from[0]`, or `spec.ingress[1]` where the rule names no peer. */
  readonly path: string
}

/** Rules that went are still asked for by flows that were recorded under them. */
const rememberedMax = 10_000

/** Numbers of rules, as the kernel reports them. 0 is none. */
export class RuleBook {
  readonly #sources = new Map<number, RuleSource>()
  readonly #numbers = new Map<string, { readonly number: number; users: number }>()
  readonly #gone: number[] = []
  #next = 1

  /** Numbers that an earlier agent gave out stay unused, so that nobody takes one of its rules for one of ours. */
  startAfter(number: number): void {
    this.#next = Math.max(this.#next, number + 1)
  }

  acquire(policy: Policy, direction: Direction, path: string): number {
    const key = keyOf(policy, path)
    const known = this.#numbers.get(key)
    if (known !== undefined) {
      known.users++
      return known.number
    }
    const number = this.#next++
    this.#numbers.set(key, { number, users: 1 })
    this.#sources.set(number, { policy, direction, path })
    return number
  }

  release(number: number): void {
    const source = this.#sources.get(number)
    if (source === undefined) return
    const key = keyOf(source.policy, source.path)
    const known = this.#numbers.get(key)
    if (known === undefined || known.number !== number || --known.users > 0) return
    this.#numbers.delete(key)
    this.#gone.push(number)
    if (this.#gone.length <= rememberedMax) return
    const oldest = this.#gone.shift()
    if (oldest !== undefined) this.#sources.delete(oldest)
  }

  /** Undefined for a number that no rule had since the agent started, or long ago. */
  source(number: number): RuleSource | undefined {
    return this.#sources.get(number)
  }
}

const keyOf = ({ uid, generation }: Policy, path: string): string => `${uid}/${generation}/${path}`

/** `spec.ingress[1].from[0]` of an object; undefined where it has no such element. */
export function elementAt(object: unknown, path: string): unknown {
  let at = object
  for (const part of path.match(/[^.[\]]+/g) ?? []) {
    if (typeof at !== 'object' || at === null) return undefined
    at = (at as Record<string, unknown>)[part]
  }
  return at
}
