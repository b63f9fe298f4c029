import { add, fixed, multiply, type Range, regexLength, scale, traversal } from '../cost.ts'
import { type Costs, type Overload, overload } from '../functions.ts'
import { sizeOfNode } from '../operators.ts'
import { compileRegex } from '../regex.ts'
import { EvaluationError, sizeOf, toText } from '../values.ts'
import { formatText } from './format-text.ts'
import { overText, regexOf } from './standard.ts'

/** The result is as long as the text. */
const keepsSize: Costs = {
  ...overText(),
  estimate: ([text]) => ({ cost: scale(sizeOfNode(text), traversal), size: sizeOfNode(text) }),
}

const characters = (text: string): string[] => [...text]
/** Positions count characters; only texts beyond the basic plane need to be taken apart. */
const isPlain = (text: string): boolean => !/[\ud800-\udfff]/.test(text)

function within(at: bigint, size: number): number {
  const index = Number(at)
  if (index < 0 || index > size) throw new EvaluationError(`index out of range: ${at}`)
  return index
}

function charAt(text: string, at: bigint): string {
  const all = isPlain(text) ? text : characters(text)
  return all[within(at, all.length)] ?? ''
}

function substring(text: string, from: bigint, to?: bigint): string {
  const all = isPlain(text) ? text : characters(text)
  const start = within(from, all.length)
  const end = to === undefined ? all.length : within(to, all.length)
  if (start > end) throw new EvaluationError(`invalid substring range. start: ${start}, end: ${end}`)
  const part = all.slice(start, end)
  return typeof part === 'string' ? part : part.join('')
}

/** Found position in characters, from a position in characters. */
function indexOf(text: string, part: string, from = 0n): bigint {
  const all = characters(text)
  if (from > BigInt(all.length)) return -1n
  const start = within(from, all.length)
  const found = text.indexOf(part, all.slice(0, start).join('').length)
  return found < 0 ? -1n : BigInt(characters(text.slice(0, found)).length)
}
function lastIndexOf(text: string, part: string, from?: bigint): bigint {
  const all = characters(text)
  if (from !== undefined && from > BigInt(all.length)) return -1n
  const start = from === undefined ? text.length : all.slice(0, within(from, all.length)).join('').length
  const found = text.lastIndexOf(part, start)
  return found < 0 ? -1n : BigInt(characters(text.slice(0, found)).length)
}

const lower = (text: string): string => text.replace(/[A-Z]/g, (c) => c.toLowerCase())
const upper = (text: string): string => text.replace(/[a-z]/g, (c) => c.toUpperCase())

function split(text: string, separator: string, limit = -1n): string[] {
  if (limit === 0n) return []
  const all = separator === '' ? characters(text) : text.split(separator)
  const max = Number(limit)
  if (max < 0 || all.length <= max) return all
  return [...all.slice(0, max - 1), all.slice(max - 1).join(separator)]
}

function replace(text: string, from: string, to: string, limit = -1n): string {
  if (limit < 0n) {
    if (from !== '') return text.replaceAll(from, () => to)
    return `${to}${characters(text)
      .map((c) => c + to)
      .join('')}`
  }
  let rest = Number(limit)
  if (from === '') {
    let out = ''
    for (const c of ['', ...characters(text)]) out += c + (rest-- > 0 ? to : '')
    return out
  }
  return text.replaceAll(from, (found) => (rest-- > 0 ? to : found))
}

const splitCosts: Costs = {
  estimate: ([text, , limit]) => {
    const size = sizeOfNode(text)
    const max = typeof limit?.literal?.value === 'bigint' ? Number(limit.literal.value) : size.max
    return { cost: scale(size, 2 * traversal), size: { min: 0, max: max < 0 ? size.max : max } }
  },
  spend: ([text]) => Math.ceil(sizeOf(text) * 2 * traversal),
}

const replaceCosts: Costs = {
  estimate: ([text, from, to]) => {
    const [size, old, by] = [sizeOfNode(text), sizeOfNode(from), sizeOfNode(to)]
    const bound = (length: number, shortest: number, longest: number): { count: number; kept: number } => {
      if (shortest === 0) return { count: length + 1, kept: length }
      return longest <= shortest ? { count: 0, kept: length } : { count: Math.ceil(length / shortest), kept: 0 }
    }
    const most = bound(size.max, old.min, by.max)
    const least = old.max === 0 || old.max > by.min ? bound(size.min, old.max, Infinity) : { count: 0, kept: size.min }
    const result = add(multiply({ min: least.count, max: most.count }, by), { min: least.kept, max: most.kept })
    return { cost: scale(size, 2 * traversal), size: result }
  },
  spend: ([text]) => Math.ceil(sizeOf(text) * 2 * traversal),
}

const joinCosts: Costs = {
  estimate: ([list, separator]) => {
    const count = sizeOfNode(list)
    const of = list?.type.kind === 'list' ? list.type.of : undefined
    const each: Range = { min: 0, max: (list?.isRooted ? of?.max : undefined) ?? Infinity }
    const between = separator === undefined ? fixed(0) : sizeOfNode(separator)
    const gaps = { min: Math.max(0, count.min - 1), max: Math.max(0, count.max - 1) }
    const size = add(multiply(count, each), multiply(gaps, between))
    return { cost: scale(size, traversal), size }
  },
  spend: (_, result) => Math.ceil(sizeOf(result) * 2 * traversal),
}

function join(list: readonly unknown[], separator = ''): string {
  return list.map(toText).join(separator)
}

const findCosts: Costs = {
  check([, pattern]) {
    const text = pattern?.literal?.value
    const isWrong = typeof text === 'string' && compileRegex(text) === undefined
    return isWrong ? `error parsing regexp: invalid or unsupported: \`${text}\`` : undefined
  },
  estimate: ([text, pattern]) => {
    const size = sizeOfNode(text)
    const cost = multiply(scale(add(size, fixed(1)), traversal), scale(sizeOfNode(pattern), regexLength))
    return { cost, size: { min: 0, max: size.max } }
  },
  spend: ([text, pattern]) => Math.ceil((1 + sizeOf(text)) * traversal) * Math.ceil(sizeOf(pattern) * regexLength),
}

const findAll = (text: string, pattern: string, limit = -1n): string[] => regexOf(pattern).all(text, Number(limit))
const find = (text: string, pattern: string): string => regexOf(pattern).first(text) ?? ''

const quoted: Readonly<Record<string, string>> = {
  '\u0007': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
  '"': '\\"',
}
const quote = (text: string): string => `"${[...text].map((c) => quoted[c] ?? c).join('')}"`

const positionCosts: Costs = { ...overText(), spend: ([text]) => Math.floor(sizeOf(text) * traversal) }

/** cel-go's string extension, version 2, and Kubernetes' `find` and `findAll`. */
export const strings: readonly Overload[] = [
  overload('string.charAt(int): string', charAt),
  overload('string.indexOf(string): int', indexOf, positionCosts),
  overload('string.indexOf(string, int): int', indexOf, positionCosts),
  overload('string.lastIndexOf(string): int', lastIndexOf, positionCosts),
  overload('string.lastIndexOf(string, int): int', lastIndexOf, positionCosts),
  overload('string.lowerAscii(): string', lower, keepsSize),
  overload('string.upperAscii(): string', upper, keepsSize),
  overload('string.trim(): string', (text: string) => text.trim(), keepsSize),
  overload('string.substring(int): string', substring, keepsSize),
  overload('string.substring(int, int): string', substring, keepsSize),
  overload('string.split(string): list<string>', split, splitCosts),
  overload('string.split(string, int): list<string>', split, splitCosts),
  overload('string.replace(string, string): string', replace, replaceCosts),
  overload('string.replace(string, string, int): string', replace, replaceCosts),
  overload('list<string>.join(): string', join, joinCosts),
  overload('list<string>.join(string): string', join, joinCosts),
  overload('string.format(list<dyn>): string', formatText, {
    estimate: ([text]) => ({ cost: scale(sizeOfNode(text), traversal) }),
    spend: ([text]) => Math.ceil(sizeOf(text) * traversal),
  }),
  overload('strings.quote(string): string', quote, {
    estimate: ([text]) => {
      const { min, max } = sizeOfNode(text)
      return { cost: scale({ min, max }, traversal), size: { min: min + 2, max: max * 2 + 2 } }
    },
    spend: ([text]) => Math.ceil(sizeOf(text) * traversal),
  }),
  overload('string.find(string): string', find, findCosts),
  overload('string.findAll(string): list<string>', findAll, findCosts),
  overload('string.findAll(string, int): list<string>', findAll, findCosts),
]
