/**
 * JSON as the API takes it: JSON.parse for the value, and beside it what JSON.parse does not say — duplicate keys with
 * their paths, and syntax errors in the words of upstream's decoder.
 */
export class SyntaxProblem extends Error {}

export interface Parsed {
  readonly value: unknown
  /** Paths of keys that came twice (`spec.replicas`); the last one counts. */
  readonly duplicates: readonly string[]
}

/** Far beyond any object's, and far below what recursion over it can bear. */
export const depthMax = 1000
const duplicatesMax = 100

/** Throws SyntaxProblem. */
export function parseJson(text: string): Parsed {
  const { depth, colons } = measure(text)
  if (depth > depthMax) throw new SyntaxProblem('exceeded max depth')
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new SyntaxProblem(new Scanner(text).problem(), { cause })
  }
  // As many keys in the value as colons in the text: none came twice. That is the usual case, and cheap to see.
  if (countKeys(value) === colons) return { value, duplicates: [] }
  return { value, duplicates: new Scanner(text).duplicates() }
}

/** Depth of nesting and number of colons outside strings. Says nothing about the syntax. */
function measure(text: string): { depth: number; colons: number } {
  let depth = 0
  let deepest = 0
  let colons = 0
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22: {
        i = endOfString(text, i)
        break
      }
      case 0x3a:
        colons++
        break
      case 0x5b:
      case 0x7b:
        if (++depth > deepest) deepest = depth
        break
      case 0x5d:
      case 0x7d:
        depth--
    }
  }
  return { depth: deepest, colons }
}

/** Index of the closing quote, or the end of the text. */
function endOfString(text: string, open: number): number {
  let close = text.indexOf('"', open + 1)
  while (close > 0) {
    let slashes = 0
    while (text.charCodeAt(close - 1 - slashes) === 0x5c) slashes++
    if (slashes % 2 === 0) return close
    close = text.indexOf('"', close + 1)
  }
  return text.length
}

function countKeys(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  let count = 0
  if (Array.isArray(value)) {
    for (const item of value) if (typeof item === 'object') count += countKeys(item)
    return count
  }
  for (const key in value) {
    count++
    const item = (value as Record<string, unknown>)[key]
    if (typeof item === 'object') count += countKeys(item)
  }
  return count
}

/** The slow reader, used only for a text that is wrong or repeats itself. Its depth is limited by `measure`. */
class Scanner {
  private at = 0
  private readonly found: string[] = []
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  duplicates(): string[] {
    this.value('')
    return this.found
  }

  problem(): string {
    try {
      this.value('')
      this.space()
      if (this.at < this.text.length) this.fail('after top-level value')
      return 'invalid character in string literal'
    } catch (error) {
      if (error instanceof SyntaxProblem) return error.message
      throw error
    }
  }

  private fail(where: string): never {
    const char = this.text[this.at]
    if (char === undefined) throw new SyntaxProblem('unexpected end of JSON input')
    const code = char.charCodeAt(0)
    const shown =
      char === "'"
        ? "'\\''"
        : char === '"'
          ? "'\"'"
          : code < 0x20
            ? `'${JSON.stringify(char).slice(1, -1).replace('\\u00', '\\x')}'`
            : `'${char}'`
    throw new SyntaxProblem(`invalid character ${shown} ${where}`)
  }

  private space(): void {
    while (' \t\r\n'.includes(this.text[this.at] ?? 'x')) this.at++
  }

  private value(path: string): void {
    this.space()
    const char = this.text[this.at] ?? ''
    if (char === '{') this.object(path)
    else if (char === '[') this.array(path)
    else if (char === '"') this.string()
    else if (char !== '' && '-0123456789'.includes(char)) this.number()
    else this.literal()
  }

  private object(path: string): void {
    this.at++
    const seen = new Set<string>()
    for (let first = true; ; first = false) {
      this.space()
      if (first && this.text[this.at] === '}') break
      if (this.text[this.at] !== '"') this.fail('looking for beginning of object key string')
      const key = this.string()
      const full = path === '' ? key : `${path}.${key}`
      if (seen.has(key) && this.found.length < duplicatesMax && !this.found.includes(full)) this.found.push(full)
      seen.add(key)
      this.space()
      if (this.text[this.at] !== ':') this.fail('after object key')
      this.at++
      this.value(full)
      this.space()
      if (this.text[this.at] === '}') break
      if (this.text[this.at] !== ',') this.fail('after object key:value pair')
      this.at++
    }
    this.at++
  }

  private array(path: string): void {
    this.at++
    for (let index = 0; ; index++) {
      this.space()
      if (index === 0 && this.text[this.at] === ']') break
      this.value(`${path}[${index}]`)
      this.space()
      if (this.text[this.at] === ']') break
      if (this.text[this.at] !== ',') this.fail('after array element')
      this.at++
    }
    this.at++
  }

  private string(): string {
    const open = this.at
    for (this.at++; this.at < this.text.length; this.at++) {
      const char = this.text[this.at] ?? ''
      if (char === '"') {
        this.at++
        return JSON.parse(this.text.slice(open, this.at)) as string
      }
      if (char < ' ') this.fail('in string literal')
      if (char !== '\\') continue
      this.at++
      const escaped = this.text[this.at] ?? ''
      if (escaped === 'u') {
        for (let i = 0; i < 4; i++) {
          this.at++
          if (!/[0-9a-fA-F]/.test(this.text[this.at] ?? '')) this.fail('in \\u hexadecimal character escape')
        }
      } else if (escaped === '' || !'"\\/bfnrt'.includes(escaped)) this.fail('in string escape code')
    }
    return this.fail('in string literal')
  }

  private number(): void {
    const match = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
    match.lastIndex = this.at
    const found = match.exec(this.text)
    if (found === null) {
      this.at++
      this.fail('in numeric literal')
    }
    this.at += found[0].length
  }

  private literal(): void {
    for (const word of ['true', 'false', 'null']) {
      if (this.text[this.at] !== word[0]) continue
      for (let i = 0; i < word.length; i++, this.at++)
        if (this.text[this.at] !== word[i]) this.fail(`in literal ${word} (expecting '${word[i]}')`)
      return
    }
    this.fail('looking for beginning of value')
  }
}
