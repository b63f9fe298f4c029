import { setFlagsFromString } from 'node:v8'
import { Automaton } from './automaton.ts'
import { translateRegex } from './regex-translate.ts'

// Go's expressions run in time linear to the text; V8's usual engine may take exponential time, and the text comes from
// whoever writes an object. V8 has a linear engine, too: it takes over from what backtracks too much, and the flag `l` asks
// for it. It takes neither unicode mode nor large counts; those are run by an automaton of ours.
setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks')
setFlagsFromString('--enable-experimental-regexp-engine')

/** A text so short cannot keep the usual engine for long, and most texts are. */
const shortMax = 20

/** An expression in Go's syntax (RE2), run by JavaScript. */
export class Regex {
  readonly #source: string
  readonly #isUnicode: boolean
  readonly #plain: RegExp
  /** Whether V8 can go on linearly by itself. */
  readonly #isSafe: boolean
  readonly #linear: RegExp | undefined
  #unicode: RegExp | undefined
  #automaton: { readonly of: Automaton | undefined } | undefined

  constructor(source: string, isUnicode: boolean) {
    this.#source = source
    this.#isUnicode = isUnicode
    this.#plain = new RegExp(source, isUnicode ? 'gu' : 'g')
    if (isUnicode) this.#unicode = this.#plain
    this.#linear = isUnicode ? undefined : linear(source)
    // It does not take over where the expression looks around.
    this.#isSafe = this.#linear !== undefined && !/\(\?<?!/.test(source)
  }

  /** Whether it is found anywhere in the text. */
  test(text: string): boolean {
    const isAstral = this.#isUnicode || /[\ud800-\udfff]/.test(text)
    if (!isAstral && this.#isSafe) return this.#find(this.#plain).test(text)
    if (text.length <= shortMax) return this.#for(text).test(text)
    if (!isAstral && this.#linear !== undefined) return this.#find(this.#linear).test(text)
    this.#automaton ??= { of: Automaton.of(this.#source) }
    return this.#automaton.of?.test(text) ?? this.#for(text).test(text)
  }

  first(text: string): string | undefined {
    return this.test(text) ? this.#for(text).exec(text)?.[0] : undefined
  }

  all(text: string, limit: number): string[] {
    const found: string[] = []
    if (limit === 0 || !this.test(text)) return found
    for (const [match] of text.matchAll(this.#for(text))) {
      found.push(match)
      if (found.length === limit) break
    }
    return found
  }

  /** Texts beyond the basic plane need characters of two units taken as one. */
  #for(text: string): RegExp {
    const needsUnicode = /[\ud800-\udfff]/.test(text)
    if (needsUnicode) this.#unicode ??= new RegExp(this.#source, 'gu')
    return this.#find(needsUnicode && this.#unicode !== undefined ? this.#unicode : this.#plain)
  }

  #find(regex: RegExp): RegExp {
    regex.lastIndex = 0
    return regex
  }
}

function linear(source: string): RegExp | undefined {
  try {
    return new RegExp(source, 'gl')
  } catch {
    return undefined
  }
}

/** Compiled expressions; schemas say the same few patterns at many places. */
const cache = new Map<string, Regex | undefined>()
const cacheMax = 2000

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
