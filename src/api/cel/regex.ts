import '#api/schema/custom/pattern.ts'
import { translateRegex } from './regex-translate.ts'

/** An expression in Go's syntax (RE2), run by JavaScript. */
export class Regex {
  readonly #source: string
  readonly #plain: RegExp
  #unicode: RegExp | undefined

  constructor(source: string, isUnicode: boolean) {
    this.#source = source
    this.#plain = new RegExp(source, isUnicode ? 'gu' : 'g')
    if (isUnicode) this.#unicode = this.#plain
  }

  /** Whether it is found anywhere in the text. */
  test(text: string): boolean {
    return this.#for(text).test(text)
  }

  first(text: string): string | undefined {
    return this.#for(text).exec(text)?.[0]
  }

  all(text: string, limit: number): string[] {
    const found: string[] = []
    if (limit === 0) return found
    for (const [match] of text.matchAll(this.#for(text))) {
      found.push(match)
      if (found.length === limit) break
    }
    return found
  }

  /**
   * Texts beyond the basic plane need characters of two units taken as one. Others do without: V8's linear engine, which
   * takes over from patterns that backtrack, has no unicode mode.
   */
  #for(text: string): RegExp {
    const needsUnicode = /[\ud800-\udfff]/.test(text)
    if (needsUnicode) this.#unicode ??= new RegExp(this.#source, 'gu')
    const regex = needsUnicode && this.#unicode !== undefined ? this.#unicode : this.#plain
    regex.lastIndex = 0
    return regex
  }
}

/** Compiled expressions; patterns are few, and most are literals. */
const cache = new Map<string, Regex | undefined>()
const cacheMax = 500

/** Undefined for what RE2 does not take, and for `(?U)`, which JavaScript has not. */
export function compileRegex(pattern: string): Regex | undefined {
  if (!cache.has(pattern)) {
    if (cache.size >= cacheMax) cache.clear()
    cache.set(pattern, compile(pattern))
  }
  return cache.get(pattern)
}

function compile(pattern: string): Regex | undefined {
  const translated = translateRegex(pattern)
  if (translated === undefined) return undefined
  try {
    // Both modes must take it, because the text decides which one is used.
    new RegExp(translated.source, 'u')
    return new Regex(translated.source, translated.isUnicode)
  } catch {
    return undefined
  }
}
