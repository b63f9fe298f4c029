import { setFlagsFromString } from 'node:v8'

// Go's expressions run in time linear to the text; V8's usual engine may take exponential time for the same pattern, and
// a custom resource's author chooses the text. With this, V8 changes to its linear engine after too much backtracking.
// It has no unicode mode, so that mode is only used for patterns that cannot do without.
setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks')

/** Go's syntax where JavaScript has the same; undefined for what neither takes. */
export function compilePattern(pattern: string): RegExp | undefined {
  const flags = /^\(\?([ims]+)\)/.exec(pattern)
  const body = (flags ? pattern.slice(flags[0].length) : pattern)
    .replace(/\(\?P</g, '(?<')
    .replace(/\\z/g, '$')
    .replace(/\\A/g, '^')
  const needsUnicode = /\\[pP]|[\u{10000}-\u{10ffff}]/u.test(body)
  try {
    return new RegExp(body, (flags?.[1] ?? '') + (needsUnicode ? 'u' : ''))
  } catch {
    return undefined
  }
}
