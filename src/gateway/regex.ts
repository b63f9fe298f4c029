/**
 * Whether a pattern is one that both RE2 and PCRE take alike, and that cannot be made to take for ever: the engines
 * backtrack, and the text it is matched against comes from anybody. Returns what is wrong, or undefined.
 *
 * Refused: what RE2 has not (look-around, back references, atomic groups, possessive quantifiers, conditions, \K, \G …),
 * and an unbounded repetition of something that itself repeats without bound (`(a+)+`, `(.*)*`), or of alternatives that
 * may begin alike (`(a|ab)*`): those try exponentially many ways. What is left is at worst polynomial in the length of a
 * header, which the engine limits.
 */
export function regexFault(pattern: string): string | undefined {
  if (pattern.length > maxLength) return `the pattern is longer than ${maxLength} characters`
  if (/[\0\r\n]/.test(pattern)) return 'the pattern holds a control character'
  try {
    new RegExp(pattern.replaceAll('(?P<', '(?<'))
  } catch (error) {
    return `the pattern is not a regular expression: ${error instanceof Error ? error.message : String(error)}`
  }
  return walk(pattern)
}

const maxLength = 1024
/** `{n,m}` up to here; RE2's own limit. */
const maxRepeat = 1000

/** A group that is open: what is in it decides whether it may be repeated. */
interface Group {
  /** Something in it repeats without bound. */
  repeats: boolean
  /** How each alternative begins, as far as one character tells; undefined: it may begin with anything. */
  readonly starts: (string | undefined)[]
  /** Nothing of the present alternative has been read. */
  atStart: boolean
}

const open = (): Group => ({ repeats: false, starts: [], atStart: true })

function walk(pattern: string): string | undefined {
  const groups: Group[] = [open()]
  const top = (): Group => groups.at(-1) ?? open()
  const atom = (start: string | undefined): void => {
    const group = top()
    if (group.atStart) group.starts.push(start)
    group.atStart = false
  }
  /** The group that was closed just before, for the quantifier after it. */
  let closed: Group | undefined
  for (let i = 0; i < pattern.length; ) {
    const char = pattern[i] ?? ''
    const before = closed
    closed = undefined
    if (char === '\\') {
      const next = pattern[i + 1] ?? ''
      if (/[1-9kKGgRXpPuLlNEQ]/.test(next)) return `\\${next} is not to be used here`
      atom(/[A-Za-z0-9]/.test(next) ? undefined : next)
      i += 2
    } else if (char === '[') {
      const end = endOfClass(pattern, i)
      atom(undefined)
      i = end + 1
    } else if (char === '(') {
      const [, kind] = /^\(\?(:|P<\w+>|<\w+>|[imsU-]+:)/.exec(pattern.slice(i)) ?? []
      if (pattern[i + 1] === '?' && kind === undefined)
        return 'look-around, atomic groups and conditions are not to be used here'
      if (pattern[i + 1] === '*') return 'verbs are not to be used here'
      groups.push(open())
      i += kind === undefined ? 1 : 2 + kind.length
    } else if (char === ')') {
      closed = groups.pop()
      if (groups.length === 0 || closed === undefined) return 'a parenthesis is closed that was not opened'
      top().repeats ||= closed.repeats
      atom(undefined)
      i++
    } else if (char === '|') {
      const group = top()
      if (group.atStart) group.starts.push(undefined)
      group.atStart = true
      i++
    } else {
      const [quantifier] = /^(?:[*+?]|\{\d+(?:,\d*)?\})/.exec(pattern.slice(i)) ?? []
      if (quantifier === undefined) {
        if (char !== '^' && char !== '$') atom(char === '.' ? undefined : char)
        i++
        continue
      }
      i += quantifier.length
      if (pattern[i] === '+') return 'possessive quantifiers are not to be used here'
      if (pattern[i] === '?') i++
      const [, low = '', comma, high = ''] = /^\{(\d+)(,?)(\d*)\}$/.exec(quantifier) ?? []
      if (Math.max(Number(low), Number(high)) > maxRepeat) return `a repetition of more than ${maxRepeat}`
      const unbounded = quantifier === '*' || quantifier === '+' || (comma === ',' && high === '')
      const many = unbounded || Math.max(Number(low), Number(high)) > 1
      if (many && before !== undefined) {
        if (before.repeats) return 'a repetition of something that itself repeats can take for ever'
        if (beginAlike(before.starts)) return 'a repetition of alternatives that may begin alike can take for ever'
      }
      if (unbounded) top().repeats = true
    }
  }
  return groups.length === 1 ? undefined : 'a parenthesis is not closed'
}

/** Index of the `]` that ends the class which begins at `from`. */
function endOfClass(pattern: string, from: number): number {
  let i = from + 1
  if (pattern[i] === '^') i++
  if (pattern[i] === ']') i++
  while (i < pattern.length && pattern[i] !== ']') {
    if (pattern[i] === '\\') i++
    else if (pattern.startsWith('[:', i)) i = Math.max(i, pattern.indexOf(':]', i) + 1)
    i++
  }
  return i
}

function beginAlike(starts: readonly (string | undefined)[]): boolean {
  if (starts.length < 2) return false
  return starts.includes(undefined) || new Set(starts).size < starts.length
}
