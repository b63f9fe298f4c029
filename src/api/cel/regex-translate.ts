/** Go's syntax of regular expressions (RE2: regexp/syntax) written as JavaScript's, in a form that both of its modes take. */
export function translateRegex(pattern: string): { readonly source: string; readonly isUnicode: boolean } | undefined {
  const translation = new Translation(pattern)
  try {
    return { source: translation.run(), isUnicode: translation.isUnicode }
  } catch (error) {
    if (error instanceof Unsupported) return undefined
    throw error
  }
}

class Unsupported extends Error {}

/** Members of ASCII classes, as they stand in brackets. */
const classes: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  ascii: '\\x00-\\x7f',
  blank: '\\t ',
  cntrl: '\\x00-\\x1f\\x7f',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`\\{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
}
/** The rest of the basic plane; in unicode mode the other planes follow. */
const notClasses: Readonly<Record<string, string>> = {
  digit: '\\x00-\\/:-\\uffff',
  word: '\\x00-\\/:-@\\[-\\^`\\{-\\uffff',
  space: '\\x00-\\x08\\x0e-\\x1f!-\\uffff',
  perlSpace: '\\x00-\\x08\\x0b\\x0e-\\x1f!-\\uffff',
  alpha: '\\x00-@\\[-`\\{-\\uffff',
  alnum: '\\x00-\\/:-@\\[-`\\{-\\uffff',
  lower: '\\x00-`\\{-\\uffff',
  upper: '\\x00-@\\[-\\uffff',
  ascii: '\\x80-\\uffff',
  punct: '\\x00- 0-9A-Za-z\\x7f-\\uffff',
  xdigit: '\\x00-\\/:-@G-`g-\\uffff',
}
const perl: Readonly<Record<string, string>> = { d: 'digit', w: 'word', s: 'perlSpace' }
const perlSpace = '\\t\\n\\f\\r '

interface Flags {
  readonly s: boolean
  readonly m: boolean
}

const repeatMax = 1000

class Translation {
  readonly #pattern: string
  #at = 0
  #out = ''
  #flags: Flags = { s: false, m: false }
  /** For each open group: the flags outside it, and how many groups of ours must be closed with it. */
  readonly #groups: { flags: Flags; ours: number; repeats: number }[] = []
  /** How often what was read last may come within itself, by counts in braces. */
  #repeats = 1
  isUnicode = false

  constructor(pattern: string) {
    this.#pattern = pattern
  }

  run(): string {
    this.#groups.push({ flags: this.#flags, ours: 0, repeats: 1 })
    while (this.#at < this.#pattern.length) this.#step()
    if (this.#groups.length !== 1) throw new Unsupported()
    return this.#out + ')'.repeat(this.#groups[0]?.ours ?? 0)
  }

  /** What matches here, taken off the pattern. */
  #take(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.#at
    const found = expression.exec(this.#pattern)
    if (found === null) return undefined
    this.#at += found[0].length
    return found
  }

  #step(): void {
    const char = this.#take(/[\s\S]/uy)?.[0] ?? ''
    if (!/[{)*+?]/.test(char)) this.#repeats = 1
    switch (char) {
      case '\\':
        this.#out += this.#escape()
        return
      case '[':
        this.#out += this.#set()
        return
      case '(':
        this.#open()
        return
      case ')':
        this.#close()
        return
      case '.':
        this.#out += this.#flags.s ? '[^]' : '[^\\n]'
        return
      case '^':
        this.#out += this.#flags.m ? '(?<![^\\n])' : '^'
        return
      case '$':
        this.#out += this.#flags.m ? '(?![^\\n])' : '$'
        return
      case '{': {
        const repeat = this.#take(/(\d+)(?:,(\d*))?\}/y)
        if (repeat !== undefined) this.#repeated(Math.max(Number(repeat[1]), Number(repeat[2] || 0)))
        this.#out += repeat === undefined ? '\\{' : `{${repeat[0]}`
        return
      }
      case '}':
      case ']':
      case '/':
        this.#out += `\\${char}`
        return
      default:
        if (char > '\uffff') this.isUnicode = true
        this.#out += char
    }
  }

  /** Counts multiply where they are nested, and Go takes no more than a thousand. */
  #repeated(count: number): void {
    this.#repeats *= Math.max(1, count)
    if (this.#repeats > repeatMax) throw new Unsupported()
    const around = this.#groups.at(-1)
    if (around !== undefined) around.repeats = Math.max(around.repeats, this.#repeats)
  }

  #open(): void {
    const outside = this.#flags
    // Names serve no purpose here, and JavaScript wants them to differ.
    const isNamed = this.#take(/\?P?<[A-Za-z_]\w*>/y) !== undefined
    const flags = isNamed ? undefined : this.#take(/\?([ims]*)(?:-([ims]+))?([:)])/y)
    if (flags === undefined) {
      if (!isNamed && this.#pattern[this.#at] === '?') throw new Unsupported()
      this.#group('(', outside)
      return
    }
    const [, on = '', off = '', end] = flags
    const set = (flag: 's' | 'm'): boolean => (on.includes(flag) || outside[flag]) && !off.includes(flag)
    this.#flags = { s: set('s'), m: set('m') }
    const fold = off.includes('i') ? '(?-i:' : on.includes('i') ? '(?i:' : '(?:'
    if (end === ':') {
      this.#group(fold, outside)
      return
    }
    // `(?i)` lasts to the end of the group that it is in.
    const around = this.#groups.at(-1)
    if (fold === '(?:' || around === undefined) return
    this.#out += fold
    around.ours++
  }

  #group(opening: string, outside: Flags): void {
    this.#out += opening
    this.#groups.push({ flags: outside, ours: 0, repeats: 1 })
  }

  #close(): void {
    const group = this.#groups.pop()
    if (group === undefined || this.#groups.length === 0) throw new Unsupported()
    this.#flags = group.flags
    this.#repeats = group.repeats
    const around = this.#groups.at(-1)
    if (around !== undefined) around.repeats = Math.max(around.repeats, group.repeats)
    this.#out += ')'.repeat(group.ours + 1)
  }

  /** After a backslash, outside brackets. */
  #escape(): string {
    const quoted = this.#take(/Q([\s\S]*?)(?:\\E|$)/y)
    if (quoted !== undefined) return (quoted[1] ?? '').replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
    if (this.#take(/A/y)) return '^'
    if (this.#take(/z/y)) return '$'
    const edge = this.#take(/[bB]/y)
    if (edge !== undefined) return `\\${edge[0]}`
    const named = this.#take(/[dwsDWS]/y)?.[0]
    if (named !== undefined) {
      const members = this.#members(named.toLowerCase())
      return named === named.toLowerCase() ? `[${members}]` : `[^${members}]`
    }
    return this.#property() ?? this.#character()
  }

  #members(letter: string): string {
    return letter === 's' ? perlSpace : (classes[perl[letter] ?? ''] ?? '')
  }

  /** `\pL`, `\p{Greek}`, `\P{^Lu}` */
  #property(): string | undefined {
    const found = this.#take(/([pP])(?:\{(\^?)(\w+)\}|([A-Z]))/y)
    if (found === undefined) return undefined
    this.isUnicode = true
    const isNot = (found[1] === 'P') !== (found[2] === '^')
    const name = found[3] ?? found[4] ?? ''
    if (name === 'Any') return isNot ? '[]' : '[^]'
    return `\\${isNot ? 'P' : 'p'}{${name.length > 2 ? `sc=${name}` : name}}`
  }

  /** One character that is written as an escape. */
  #character(): string {
    const hex = this.#take(/x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))/y)
    if (hex !== undefined) return this.#literal(Number.parseInt(hex[1] ?? hex[2] ?? '', 16))
    const octal = this.#take(/0[0-7]{0,2}|[1-7][0-7]{1,2}/y)
    if (octal !== undefined) return this.#literal(Number.parseInt(octal[0], 8))
    const control = this.#take(/[afnrtv]/y)?.[0]
    if (control !== undefined) return control === 'a' ? '\\x07' : `\\${control}`
    const sign = this.#take(/[!-/:-@[-`{-~]/y)?.[0]
    if (sign !== undefined) return this.#literal(sign.charCodeAt(0))
    throw new Unsupported()
  }

  #literal(code: number): string {
    if (code > 0x10ffff) throw new Unsupported()
    if (code > 0xffff) {
      this.isUnicode = true
      return `\\u{${code.toString(16)}}`
    }
    return `\\u${code.toString(16).padStart(4, '0')}`
  }

  /** After an opening bracket. */
  #set(): string {
    let out = this.#take(/\^/y) ? '[^' : '['
    let isFirst = true
    for (;;) {
      if (this.#at >= this.#pattern.length) throw new Unsupported()
      if (!isFirst && this.#take(/\]/y)) return `${out}]`
      isFirst = false
      out += this.#member()
    }
  }

  #member(): string {
    const named = this.#take(/\[:(\^?)(\w+):\]/y)
    if (named !== undefined) return this.#classMembers(named[2] ?? '', named[1] === '^')
    if (this.#pattern[this.#at] === '\\') {
      const shorthand = this.#take(/\\([dwsDWS])/y)?.[1]
      if (shorthand !== undefined) {
        const letter = shorthand.toLowerCase()
        return shorthand === letter ? this.#members(letter) : this.#classMembers(perl[letter] ?? '', true)
      }
      if (/^\\[pP]/.test(this.#pattern.slice(this.#at, this.#at + 2))) {
        this.#at++
        return this.#property() ?? this.#fail()
      }
    }
    const from = this.#single()
    if (!/^-[^\]]/.test(this.#pattern.slice(this.#at, this.#at + 2))) return from
    this.#at++
    return `${from}-${this.#single()}`
  }

  #classMembers(name: string, isNot: boolean): string {
    const members = isNot ? notClasses[name] : classes[name]
    return members ?? this.#fail()
  }

  /** One character within brackets. */
  #single(): string {
    if (this.#take(/\\/y)) return this.#character()
    const char = this.#take(/[\s\S]/uy)?.[0] ?? this.#fail()
    return this.#literal(char.codePointAt(0) ?? 0)
  }

  #fail(): never {
    throw new Unsupported()
  }
}
