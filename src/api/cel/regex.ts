import '#api/schema/custom/pattern.ts'

/** Compiled expressions; patterns are few, and most are literals. */
const cache = new Map<string, RegExp | undefined>()
const cacheMax = 500

/** An expression in Go's syntax (RE2) as JavaScript runs it; undefined for what RE2 does not take. */
export function compileRegex(pattern: string): RegExp | undefined {
  if (!cache.has(pattern)) {
    if (cache.size >= cacheMax) cache.clear()
    cache.set(pattern, compile(pattern))
  }
  return cache.get(pattern)
}

function compile(pattern: string): RegExp | undefined {
  const translated = translate(pattern)
  if (translated === undefined) return undefined
  // Only where it is needed: V8's linear engine, which takes over from patterns that backtrack, has no unicode mode.
  const needsUnicode = /\\[pP]|[\u{10000}-\u{10ffff}]/u.test(translated)
  try {
    return new RegExp(translated, needsUnicode ? 'gu' : 'g')
  } catch {
    return undefined
  }
}

const classes: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  ascii: '\\x00-\\x7F',
  blank: '\\t ',
  cntrl: '\\x00-\\x1F\\x7F',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
}

function translate(pattern: string): string | undefined {
  let out = ''
  /** Groups of ours that are open within each group of the pattern: `(?i)` lasts to the end of its group. */
  const open: number[] = [0]
  let i = 0
  const rest = (): string => pattern.slice(i)
  while (i < pattern.length) {
    const char = pattern[i] ?? ''
    if (char === '\\') {
      const quoted = /^\\Q([\s\S]*?)(?:\\E|$)/.exec(rest())
      if (quoted !== null) {
        out += (quoted[1] ?? '').replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
        i += quoted[0].length
        continue
      }
      const escaped = translateEscape(rest())
      if (escaped === undefined) return undefined
      out += escaped.text
      i += escaped.length
    } else if (char === '[') {
      const set = /^\[\^?\]?(?:\[:\^?\w+:\]|\\[\s\S]|[^\]\\])*\]/.exec(rest())
      if (set === null) return undefined
      const text = set[0]
        .replace(/\[:(\w+):\]/g, (whole, name: string) => classes[name] ?? whole)
        .replace(/^(\[\^?)\]/, '$1\\]')
        .replace(/(?!^)\[/g, (bracket, at: number, all: string) => (all[at - 1] === '\\' ? bracket : '\\['))
      out += text
      i += set[0].length
    } else if (char === '(') {
      const named = /^\(\?P?<([A-Za-z_]\w*)>/.exec(rest())
      const flags = /^\(\?([imsU]*)(?:-([imsU]+))?([:)])/.exec(rest())
      if (named !== null) {
        out += `(?<${named[1]}>`
        open.push(0)
        i += named[0].length
      } else if (flags !== null) {
        const on = (flags[1] ?? '').replace('U', '')
        const off = flags[2] ? `-${flags[2].replace('U', '')}` : ''
        const prefix = on === '' && (off === '' || off === '-') ? '(?:' : `(?${on}${off}:`
        out += prefix
        if (flags[3] === ':') open.push(0)
        else open[open.length - 1] = (open.at(-1) ?? 0) + 1
        i += flags[0].length
      } else if (rest().startsWith('(?')) {
        return undefined
      } else {
        out += '('
        open.push(0)
        i++
      }
    } else if (char === ')') {
      if (open.length === 1) return undefined
      out += ')'.repeat((open.pop() ?? 0) + 1)
      i++
    } else {
      out += char
      i++
    }
  }
  if (open.length !== 1) return undefined
  return out + ')'.repeat(open[0] ?? 0)
}

function translateEscape(text: string): { readonly text: string; readonly length: number } | undefined {
  const next = text[1]
  if (next === undefined) return undefined
  if (next === 'z') return { text: '$', length: 2 }
  if (next === 'A') return { text: '^', length: 2 }
  if (next === 'a') return { text: '\\x07', length: 2 }
  const property = /^\\([pP])(?:\{(\^?)(\w+)\}|(\w))/.exec(text)
  if (property !== null) {
    const isNot = (property[1] === 'P') !== (property[2] === '^')
    const name = property[3] ?? property[4] ?? ''
    return { text: `\\${isNot ? 'P' : 'p'}{${name.length > 2 ? `sc=${name}` : name}}`, length: property[0].length }
  }
  const hex = /^\\x\{([0-9A-Fa-f]+)\}/.exec(text)
  if (hex !== null) return { text: String.fromCodePoint(Number.parseInt(hex[1] ?? '0', 16)), length: hex[0].length }
  // References back need backtracking, which RE2 does not do.
  if (/[1-9kCEuc]/.test(next)) return undefined
  if (/[A-Za-z0-9]/.test(next) && !'bBdDfnrsStvwWx0'.includes(next)) return undefined
  return { text: text.slice(0, 2), length: 2 }
}

/** Unanchored, as CEL's `matches`. */
export function testRegex(regex: RegExp, text: string): boolean {
  regex.lastIndex = 0
  return regex.test(text)
}
