import type { LabelSelector } from '../gen/meta-v1.ts'
import type { Labels } from './labels.ts'
import { labelValue, qualifiedName } from './names.ts'

/** Label selectors: the string of `-l` and `?labelSelector=`, and the LabelSelector of specs, both into one form. */

export type Operator = '=' | '==' | '!=' | 'in' | 'notin' | 'exists' | '!' | '>' | '<'

export interface Requirement {
  readonly key: string
  readonly operator: Operator
  /** Sorted, without duplicates. */
  readonly values: readonly string[]
}

/** Requirements in order of key; all must hold. No requirements match everything. */
export interface Selector {
  readonly requirements: readonly Requirement[]
  matches(labels: Labels | undefined): boolean
}

/** A selector string that cannot be read; the words are upstream's, for a 400. */
export class SelectorError extends Error {
  constructor(words: string) {
    super(words)
    this.name = 'SelectorError'
  }
}

const noLabels: Labels = {}

export const everything: Selector = { requirements: [], matches: () => true }
export const nothing: Selector = { requirements: [], matches: () => false }

function selectorOf(requirements: readonly Requirement[]): Selector {
  if (requirements.length === 0) return everything
  const sorted = requirements.toSorted((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
  const tests = sorted.map(testOf)
  const [only] = tests
  if (tests.length === 1 && only) return { requirements: sorted, matches: (labels) => only(labels ?? noLabels) }
  return {
    requirements: sorted,
    matches(labels = noLabels) {
      for (const test of tests) if (!test(labels)) return false
      return true
    },
  }
}

function testOf({ key, operator, values }: Requirement): (labels: Labels) => boolean {
  const [value = ''] = values
  switch (operator) {
    case '=':
    case '==':
      return (labels) => labels[key] === value
    case '!=':
      return (labels) => labels[key] !== value
    case 'in': {
      const set = new Set<string | undefined>(values)
      return (labels) => set.has(labels[key])
    }
    case 'notin': {
      const set = new Set<string | undefined>(values)
      return (labels) => !set.has(labels[key])
    }
    case 'exists':
      // Not `labels[key]`: every object has a `constructor`, and no label.
      return (labels) => Object.hasOwn(labels, key)
    case '!':
      return (labels) => !Object.hasOwn(labels, key)
    case '>':
    case '<': {
      const bound = BigInt(value)
      return (labels) => {
        const actual = integerOf(labels[key])
        return actual !== undefined && (operator === '>' ? actual > bound : actual < bound)
      }
    }
    default:
      return operator satisfies never
  }
}

function integerOf(text: string | undefined): bigint | undefined {
  return text !== undefined && /^[+-]?\d{1,19}$/.test(text) ? BigInt(text.replace(/^\+/, '')) : undefined
}

/** Absent selects nothing, empty selects everything (upstream's LabelSelectorAsSelector). Throws `SelectorError`. */
export function selectorFrom(selector: LabelSelector | undefined): Selector {
  if (selector === undefined) return nothing
  const requirements: Requirement[] = []
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) {
    requirements.push(requirement(key, '=', [value]))
  }
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    const op = Object.hasOwn(expressionOperators, operator) ? expressionOperators[operator] : undefined
    if (op === undefined) throw new SelectorError(`"${operator}" is not a valid label selector operator`)
    requirements.push(requirement(key, op, values))
  }
  return selectorOf(requirements)
}

const expressionOperators: Readonly<Record<string, Operator>> = {
  In: 'in',
  NotIn: 'notin',
  Exists: 'exists',
  DoesNotExist: '!',
}

/** `a=b,c in (d,e),!f`: the inverse of `parseSelector`. */
export function formatSelector(selector: Selector): string {
  return selector.requirements.map(formatRequirement).join(',')
}

function formatRequirement({ key, operator, values }: Requirement): string {
  switch (operator) {
    case 'exists':
      return key
    case '!':
      return `!${key}`
    case 'in':
    case 'notin':
      return `${key} ${operator} (${values.join(',')})`
    default:
      return `${key}${operator}${values.join(',')}`
  }
}

function quoted(path: string, value: string, words: readonly string[]): string {
  return `${path}: Invalid value: ${JSON.stringify(value)}: ${words.join('; ')}`
}

function requirement(key: string, operator: Operator, unsorted: readonly string[]): Requirement {
  const values = [...new Set(unsorted)].sort()
  const errors: string[] = []
  const keyWords = qualifiedName(key)
  if (keyWords.length > 0) errors.push(quoted('key', key, keyWords))
  const list = `values: Invalid value: ${JSON.stringify(values)}`
  if ((operator === 'in' || operator === 'notin') && values.length === 0) {
    errors.push(`${list}: for 'in', 'notin' operators, values set can't be empty`)
  }
  if (operator === '>' || operator === '<') {
    for (const [i, value] of values.entries()) {
      if (integerOf(value) === undefined) {
        errors.push(
          `values[${i}]: Invalid value: ${JSON.stringify(value)}: for 'Gt', 'Lt' operators, the value must be an integer`,
        )
      }
    }
  }
  if ((operator === 'exists' || operator === '!') && values.length > 0) {
    errors.push(`${list}: values set must be empty for exists and does not exist`)
  }
  for (const [i, value] of values.entries()) {
    const words = labelValue(value)
    if (words.length > 0) errors.push(quoted(`values[${i}][${key}]`, value, words))
  }
  if (errors.length === 1) throw new SelectorError(errors[0] ?? '')
  if (errors.length > 1) throw new SelectorError(`[${errors.join(', ')}]`)
  return { key, operator, values }
}

interface Token {
  readonly type: 'end' | 'identifier' | 'in' | 'notin' | '(' | ')' | ',' | '!' | '=' | '==' | '!=' | '>' | '<' | 'error'
  readonly text: string
}

const tokenShape = /\s*(?:(==|!=|[=!(),<>])|([^\s=!(),<>]+))/y
const endToken: Token = { type: 'end', text: '' }

function scan(text: string): Token[] {
  const tokens: Token[] = []
  tokenShape.lastIndex = 0
  for (;;) {
    const match = tokenShape.exec(text)
    if (!match) break
    const [, symbol, word] = match
    if (symbol !== undefined) tokens.push({ type: symbol as Token['type'], text: symbol })
    else if (word === 'in' || word === 'notin') tokens.push({ type: word, text: word })
    else tokens.push({ type: 'identifier', text: word ?? '' })
  }
  return tokens
}

/** Longest selector taken: more than any list of 63-byte values a person or a controller writes. */
const selectorLengthMax = 64 * 1024

/** Throws `SelectorError` with upstream's words. */
export function parseSelector(text: string): Selector {
  if (text === '') return everything
  if (text.length > selectorLengthMax) throw new SelectorError('the label selector is too long')
  const tokens = scan(text)
  let position = 0
  const peek = (): Token => tokens[position] ?? endToken
  const next = (): Token => tokens[position++] ?? endToken
  /** Where a value may stand, `in` and `notin` are ordinary words. */
  const isWord = ({ type }: Token): boolean => type === 'identifier' || type === 'in' || type === 'notin'

  const parseRequirement = (): Requirement => {
    let token = next()
    const absent = token.type === '!'
    if (absent) token = next()
    if (!isWord(token)) throw new SelectorError(`found '${token.text}', expected: identifier`)
    const key = token.text
    const keyWords = qualifiedName(key)
    if (keyWords.length > 0) throw new SelectorError(quoted('<nil>', key, keyWords))
    if (absent) return requirement(key, '!', [])
    const after = peek()
    if (after.type === 'end' || after.type === ',') return requirement(key, 'exists', [])
    const operator = next()
    switch (operator.type) {
      case 'in':
      case 'notin':
        return requirement(key, operator.type, parseValues())
      case '=':
      case '==':
      case '!=':
      case '>':
      case '<':
        return requirement(key, operator.type, [parseExactValue()])
      default:
        throw new SelectorError(`found '${operator.text}', expected: in, notin, =, ==, !=, gt, lt`)
    }
  }

  const parseExactValue = (): string => {
    const token = peek()
    if (token.type === 'end' || token.type === ',') return ''
    next()
    if (!isWord(token)) throw new SelectorError(`found '${token.text}', expected: identifier`)
    return token.text
  }

  const parseValues = (): string[] => {
    const open = next()
    if (open.type !== '(') throw new SelectorError(`found '${open.text}' expected: '('`)
    const values: string[] = []
    let wanted = true
    for (;;) {
      const token = next()
      if (token.type === ')') {
        if (wanted) values.push('')
        return values
      }
      if (token.type === ',') {
        if (wanted) values.push('')
        wanted = true
      } else if (isWord(token)) {
        if (!wanted) throw new SelectorError(`found '${token.text}', expected: ',' or ')'`)
        values.push(token.text)
        wanted = false
      } else if (values.length === 0 && wanted) {
        throw new SelectorError(`found '${token.text}', expected: ',', ')' or identifier`)
      } else {
        throw new SelectorError(
          wanted
            ? `found '${token.text}', expected: ',', or identifier`
            : `found '${token.text}', expected: ',' or ')'`,
        )
      }
    }
  }

  const requirements: Requirement[] = []
  for (;;) {
    const token = peek()
    if (token.type === 'end') return selectorOf(requirements)
    if (!isWord(token) && token.type !== '!') {
      throw new SelectorError(`found '${token.text}', expected: !, identifier, or 'end of string'`)
    }
    try {
      requirements.push(parseRequirement())
    } catch (error) {
      if (error instanceof SelectorError) throw new SelectorError(`unable to parse requirement: ${error.message}`)
      throw error
    }
    const separator = next()
    if (separator.type === 'end') return selectorOf(requirements)
    if (separator.type !== ',') {
      throw new SelectorError(`found '${separator.text}', expected: ',' or 'end of string'`)
    }
    const following = peek()
    if (!isWord(following) && following.type !== '!') {
      throw new SelectorError(`found '${following.text}', expected: identifier after ','`)
    }
  }
}
