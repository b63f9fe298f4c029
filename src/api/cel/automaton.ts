/**
 * Runs an expression in time linear to the text (K. Thompson, "Regular expression search algorithm", 1968): all ways to
 * go on are followed at once. For what V8's own linear engine does not take. Reads what regex-translate.ts writes.
 */
export class Automaton {
  readonly #program: readonly Instruction[]

  private constructor(program: readonly Instruction[]) {
    this.#program = program
  }

  /** Undefined where the expression would need too many states. */
  static of(source: string): Automaton | undefined {
    const reader = new Reader(source)
    reader.alternatives(false)
    reader.emit({ do: 'match' })
    return reader.isTooLarge ? undefined : new Automaton(reader.program)
  }

  /** Whether it is found anywhere in the text. */
  test(text: string): boolean {
    const points = Array.from(text, (char) => char.codePointAt(0) ?? 0)
    const program = this.#program
    const seen = new Int32Array(program.length).fill(-1)
    let current: number[] = []
    for (let at = 0; at <= points.length; at++) {
      const next: number[] = []
      // A match may begin anywhere.
      current.push(0)
      const point = points[at]
      const stack = current.reverse()
      for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
        if (seen[state] === at) continue
        seen[state] = at
        const instruction = program[state]
        if (instruction === undefined) continue
        switch (instruction.do) {
          case 'match':
            return true
          case 'split':
            for (const target of instruction.to) stack.push(target)
            break
          case 'assert':
            if (holds(instruction.what, points, at)) stack.push(state + 1)
            break
          case 'take':
            if (point !== undefined && instruction.class.has(point)) next.push(state + 1)
            break
          default:
            instruction satisfies never
        }
      }
      current = next
    }
    return false
  }
}

type Assertion = 'start' | 'end' | 'lineStart' | 'lineEnd' | 'edge' | 'noEdge'
type Instruction =
  | { readonly do: 'match' }
  | { readonly do: 'split'; to: readonly number[] }
  | { readonly do: 'assert'; readonly what: Assertion }
  | { readonly do: 'take'; readonly class: CharacterClass }

const newline = 10
const isWord = (point: number | undefined): boolean =>
  point !== undefined && point < 128 && /\w/.test(String.fromCharCode(point))

function holds(what: Assertion, points: readonly number[], at: number): boolean {
  switch (what) {
    case 'start':
      return at === 0
    case 'end':
      return at === points.length
    case 'lineStart':
      return at === 0 || points[at - 1] === newline
    case 'lineEnd':
      return at === points.length || points[at] === newline
    case 'edge':
      return isWord(points[at - 1]) !== isWord(points[at])
    case 'noEdge':
      return isWord(points[at - 1]) === isWord(points[at])
    default:
      return what satisfies never
  }
}

/** The characters that one position takes, asked of JavaScript once each. */
class CharacterClass {
  readonly #regex: RegExp
  readonly #known = new Map<number, boolean>()

  constructor(atom: string, isFolded: boolean) {
    this.#regex = new RegExp(`^${atom}$`, isFolded ? 'ui' : 'u')
  }

  has(point: number): boolean {
    let has = this.#known.get(point)
    if (has === undefined) {
      has = this.#regex.test(String.fromCodePoint(point))
      if (this.#known.size < 1000) this.#known.set(point, has)
    }
    return has
  }
}

const statesMax = 50_000

class Reader {
  readonly program: Instruction[] = []
  isTooLarge = false
  readonly #source: string
  #at = 0

  constructor(source: string) {
    this.#source = source
  }

  emit(instruction: Instruction): number {
    if (this.program.length >= statesMax) this.isTooLarge = true
    else this.program.push(instruction)
    return this.program.length - 1
  }

  #take(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.#at
    const found = expression.exec(this.#source)
    if (found === null) return undefined
    this.#at += found[0].length
    return found
  }

  /** Up to the end, or to the bracket that closes a group. */
  alternatives(isFolded: boolean): void {
    const ends: { to: readonly number[] }[] = []
    for (;;) {
      const fork = { do: 'split' as const, to: [] as readonly number[] }
      const at = this.emit(fork)
      this.#sequence(isFolded)
      if (!this.#take(/\|/y)) {
        fork.to = [at + 1]
        break
      }
      const end = { do: 'split' as const, to: [] as readonly number[] }
      this.emit(end)
      ends.push(end)
      fork.to = [at + 1, this.program.length]
    }
    for (const end of ends) end.to = [this.program.length]
  }

  #sequence(isFolded: boolean): void {
    while (this.#at < this.#source.length && !/[|)]/.test(this.#source[this.#at] ?? '')) {
      const begin = this.#at
      const first = this.program.length
      this.#atom(isFolded)
      const afterAtom = this.#at
      const quantifier = this.#take(/([*+?])\??|\{(\d+)(,(\d*))?\}\??/y)
      if (quantifier === undefined) continue
      const afterQuantifier = this.#at
      const [, sign, low, comma, high] = quantifier
      const min = sign === undefined ? Number(low) : sign === '+' ? 1 : 0
      const unbounded = sign === undefined ? comma !== undefined && high === '' : sign !== '?'
      const max = sign === undefined ? Number(high || low) : 1
      this.program.length = first
      // The atom again and again: as often as it must come, then as often as it may.
      const copy = (): void => {
        this.#at = begin
        this.#atom(isFolded)
        this.#at = afterAtom
      }
      for (let i = 0; i < min && !this.isTooLarge; i++) copy()
      if (unbounded) this.#loop(copy)
      else this.#options(copy, max - min)
      this.#at = afterQuantifier
    }
  }

  #loop(copy: () => void): void {
    const fork = { do: 'split' as const, to: [] as readonly number[] }
    const at = this.emit(fork)
    copy()
    this.emit({ do: 'split', to: [at] })
    fork.to = [at + 1, this.program.length]
  }

  #options(copy: () => void, count: number): void {
    const forks: { to: readonly number[] }[] = []
    const starts: number[] = []
    for (let i = 0; i < count && !this.isTooLarge; i++) {
      const fork = { do: 'split' as const, to: [] as readonly number[] }
      starts.push(this.emit(fork) + 1)
      forks.push(fork)
      copy()
    }
    for (const [i, fork] of forks.entries()) fork.to = [starts[i] ?? 0, this.program.length]
  }

  #atom(isFolded: boolean): void {
    const assertion = this.#assertion()
    if (assertion !== undefined) {
      this.emit({ do: 'assert', what: assertion })
      return
    }
    const group = this.#take(/\((?:\?(-?i)?:)?/y)
    if (group !== undefined) {
      this.alternatives(group[1] === undefined ? isFolded : group[1] === 'i')
      this.#take(/\)/y)
      return
    }
    const atom = this.#take(
      /\[(?:\\[\s\S]|[^\]\\])*\]|\\u\{[^}]*\}|\\u[0-9a-f]{4}|\\[pP]\{[^}]*\}|\\x[0-9a-f]{2}|\\[\s\S]|[\s\S]/uy,
    )
    if (atom !== undefined) this.emit({ do: 'take', class: new CharacterClass(atom[0], isFolded) })
  }

  #assertion(): Assertion | undefined {
    if (this.#take(/\(\?<!\[\^\\n\]\)/y)) return 'lineStart'
    if (this.#take(/\(\?!\[\^\\n\]\)/y)) return 'lineEnd'
    if (this.#take(/\^/y)) return 'start'
    if (this.#take(/\$/y)) return 'end'
    if (this.#take(/\\b/y)) return 'edge'
    return this.#take(/\\B/y) ? 'noEdge' : undefined
  }
}
