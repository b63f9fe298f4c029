import { setFlagsFromString } from 'node:v8'
import { translateRegex } from '#api/cel/regex-translate.ts'

// Go's expressions run in time linear to the text; V8's usual engine may take exponential time for the same pattern, and
// a custom resource's author chooses the text. With this, V8 changes to its linear engine after too much backtracking.
// It has no unicode mode, so that mode is only used for patterns that cannot do without.
setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks')

/** Schemas say the same few patterns at many places. */
const cache = new Map<string, RegExp | undefined>()
const cacheMax = 2000

/** An expression in Go's syntax; undefined for what Go does not take. */
export function compilePattern(pattern: string): RegExp | undefined {
  if (!cache.has(pattern)) {
    if (cache.size >= cacheMax) cache.clear()
    cache.set(pattern, compile(pattern))
  }
  return cache.get(pattern)
}

function compile(pattern: string): RegExp | undefined {
  const translated = translateRegex(pattern)
  if (translated === undefined) return undefined
  try {
    return new RegExp(translated.source, translated.isUnicode ? 'u' : '')
  } catch {
    return undefined
  }
}
