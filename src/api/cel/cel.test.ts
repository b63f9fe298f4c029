import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { Automaton } from './automaton.ts'
import { compile, Failure, ProgramError } from './compile.ts'
import { CompileError } from './issue.ts'
import { kubernetesFunctions } from './library/library.ts'
import { compileRegex } from './regex.ts'
import { translateRegex } from './regex-translate.ts'
import { toValue } from './schema/convert.ts'
import { escapeName } from './schema/escape.ts'
import { typeOfSchema } from './schema/schema-type.ts'
import { formatInstant, parseGoDuration, parseRfc3339 } from './times.ts'
import { dyn, type Type } from './types.ts'
import { Duration, getKey, isRecord, keysOf, kindOf, Optional, Timestamp, TypeValue, toText, Uint } from './values.ts'

/** What upstream (apiserver v0.36.3, cel-go v0.26.0) makes of an expression; `self` is the object on the first line. */
interface Row {
  readonly expression: string
  readonly problem?: string
  readonly error?: string
  readonly value?: string
  /** Estimate of the most that it may cost. */
  readonly max?: number | 'unbounded'
  /** What it did cost. */
  readonly cost?: number
}

const [head = '', ...lines] = readFileSync(new URL('../../../test/api/cel.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
const { schema, object } = JSON.parse(head)
const rows = lines.map((line) => JSON.parse(line) as Row)
const selfType = typeOfSchema(schema, true)?.type ?? dyn
const self = toValue(object, schema)

function show(value: unknown): string {
  if (typeof value === 'number') return `double ${toText(value)}`
  if (typeof value === 'string') return JSON.stringify(value)
  if (value instanceof Uint) return `${value.value}u`
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString('hex')}`
  if (value instanceof Duration) return `duration ${value.nanos}`
  if (value instanceof Timestamp) return `timestamp ${formatInstant(value.nanos)}`
  if (value instanceof Optional) return value.hasValue ? `of ${show(value.value)}` : 'none'
  if (value instanceof TypeValue) return `type ${value.name}`
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`
  if (value instanceof Map || isRecord(value)) {
    const pairs = keysOf(value).map((key) => `${show(key)}: ${show(getKey(value, key))}`)
    return `{${pairs.toSorted().join(', ')}}`
  }
  return ['bigint', 'boolean'].includes(typeof value) || value === null ? String(value) : `opaque ${kindOf(value)}`
}

const limit = 1_000_000
const compiled = (expression: string, variables: ReadonlyMap<string, Type> = new Map([['self', selfType]])) =>
  compile(expression, { variables, functions: kubernetesFunctions })

function judge(expression: string): Row {
  try {
    const { cost, run } = compiled(expression)
    const max = cost.max > Number.MAX_SAFE_INTEGER ? 'unbounded' : cost.max
    try {
      const result = run([self], limit)
      return { expression, value: show(result.value), max, cost: result.cost }
    } catch (error) {
      if (error instanceof Failure) return { expression, error: error.message, max, cost: error.cost }
      throw error
    }
  } catch (error) {
    if (error instanceof CompileError) return { expression, problem: error.message }
    if (error instanceof ProgramError) return { expression, problem: `program: ${error.message}` }
    throw error
  }
}

/** The grammar's complaints are the library's own words. */
const upToSyntax = (text: string | undefined): string | undefined => text?.replace(/(Syntax error)[\s\S]*/, '$1')

test('what upstream makes of hundreds of expressions is what we make of them', (t) => {
  t.true(rows.length > 1300)
  for (const row of rows) {
    const ours = judge(row.expression)
    t.is(upToSyntax(ours.problem), row.problem, row.expression)
    // An empty error stands for any: what is wrong with a text is said in words of our own.
    if (row.error === '') t.not(ours.error, undefined, row.expression)
    else t.is(ours.error, row.error, row.expression)
    t.is(ours.value, row.value, row.expression)
    if (row.max !== undefined) t.is(ours.max, row.max, `the estimate of ${row.expression}`)
  }
})

test('what an evaluation costs is about what it costs upstream', (t) => {
  for (const { expression, cost } of rows) {
    if (cost === undefined) continue
    const ours = judge(expression).cost ?? 0
    // Checking a URL is one regular expression less here.
    if (expression.startsWith('format.uri')) continue
    t.true(Math.abs(ours - cost) <= 3 + cost * 0.15, `${expression}: ${ours}, upstream ${cost}`)
  }
})

test('an expression that costs too much ends, and || does not make up for it', (t) => {
  const list = JSON.stringify(Array.from({ length: 100 }, (_, i) => i))
  const expression = `${list}.all(a, ${list}.all(b, ${list}.all(c, a + b + c >= 0))) || true`
  const { run } = compiled(expression)
  const error = t.throws(() => run([self], limit), { instanceOf: Failure })
  t.is(error?.message, 'operation cancelled: actual cost limit exceeded')
  t.true(error?.isTooCostly)
})

test('a problem is shown with its line and a mark', (t) => {
  const error = t.throws(() => compiled('self.spec.count > 1 &&\n  self.spec.nope'), { instanceOf: CompileError })
  t.is(error?.message, "ERROR: <input>:2:12: undefined field 'nope'\n |   self.spec.nope\n | ...........^")
})

test('what is nested too deeply is refused, not overflowed', (t) => {
  t.throws(() => compiled(`${'('.repeat(2000)}1${')'.repeat(2000)}`), { instanceOf: CompileError })
  t.throws(() => compiled(`${'!'.repeat(20_000)}true`), { instanceOf: CompileError })
  t.throws(() => compiled(`[${'1,'.repeat(20_000)}1].size() > 0`), { instanceOf: CompileError })
})

test('whatever is written, there is a problem, an error or a value', (t) => {
  const words = rows.flatMap(({ expression }) => expression.match(/[A-Za-z_]\w*|\d+|'[^']*'|\S/g) ?? [])
  const edit = fc.record({
    at: fc.nat(80),
    removed: fc.nat(6),
    put: fc.oneof(fc.constantFrom('', ...words), fc.string({ maxLength: 4 })),
  })
  const mangled = fc
    .tuple(fc.constantFrom(...rows.map(({ expression }) => expression)), fc.array(edit, { minLength: 1, maxLength: 4 }))
    .map(([expression, edits]) =>
      edits.reduce((text, { at, removed, put }) => text.slice(0, at) + put + text.slice(at + removed), expression),
    )
  fc.assert(
    fc.property(mangled, (expression) => {
      judge(expression)
    }),
    { numRuns: 3000 },
  )
  t.deepEqual(judge('[] + [3]').value, '[3]')
})

test('what is known only when it is there is judged then', (t) => {
  const variables = new Map<string, Type>([['object', dyn]])
  const run = (expression: string, value: unknown): unknown => compiled(expression, variables).run([value], limit).value
  t.true(run('object.a.startsWith("x")', { a: 'xy' }))
  t.true(run('object.list.exists(e, e > 2)', { list: [1n, 3n] }))
  t.true(run('object.a + object.b == 3', { a: 1n, b: 2n }))
  t.true(run('object.a < 1.5', { a: 1n }))
  t.is(t.throws(() => run('object.a + 1', { a: 'x' }))?.message, 'no such overload')
  t.is(t.throws(() => run('object.a.size()', { a: 1n }))?.message, 'no such overload')
  t.is(t.throws(() => run('object.b', { a: 1n }))?.message, 'no such key: b')
})

const regexes: readonly [pattern: string, text: string, expected: boolean | undefined][] = [
  ['^(?i)\\.?[a-z_]+$', '.ABC', true],
  ['a(?i:B)c', 'abc', true],
  ['a(?i:B)c', 'abC', false],
  ['(?s)a.b', 'a\nb', true],
  ['a.b', 'a\nb', false],
  ['(?m)^b$', 'a\nb', true],
  ['\\Aab\\z', 'ab', true],
  ['\\Qa.b\\E', 'axb', false],
  ['[[:digit:]]+', 'x1', true],
  ['[]a]', ']', true],
  ['[^]a]', ']', false],
  ['\\pL', 'é', true],
  ['\\p{Greek}', 'α', true],
  ['\\x{41}', 'A', true],
  ['(?P<n>a)', 'a', true],
  ['a{2}', 'aa', true],
  ['(?=a)', 'a', undefined],
  ['(a)\\1', 'aa', undefined],
  ['(?<!a)b', 'b', undefined],
  ['[', '', undefined],
  ['(', '', undefined],
  ['a)', '', undefined],
  ['*', '', undefined],
]
for (const [pattern, text, expected] of regexes)
  test(`Go takes ${pattern} for ${JSON.stringify(text)} as we do`, (t) => {
    const regex = compileRegex(pattern)
    t.is(regex?.test(text), expected)
  })

const greedy: readonly [pattern: string, text: string][] = [
  ['^(a+)+$', `${'a'.repeat(20_000)}!`],
  ['^(a{0,30}){0,30}b$', 'a'.repeat(300)],
  ['(?m)^(a+)+$', `${'a'.repeat(100)}!`],
  ['(?i)^(a|aa)+$', `${'a'.repeat(5_000)}!`],
  ['^(\\pL+)+$', `${'é'.repeat(100)}!`],
  ['^(a+)+$', `${'a'.repeat(100)}😀`],
  ['(x+x+)+y', 'x'.repeat(5_000)],
]
for (const [i, [pattern, text]] of greedy.entries())
  test(`${i}: ${pattern}, which keeps others busy for years, takes a moment`, (t) => {
    const before = performance.now()
    t.false(compileRegex(pattern)?.test(text))
    t.true(performance.now() - before < 5_000)
  })

test('counts that multiply to more than a thousand are refused, as by Go', (t) => {
  t.not(compileRegex('(a{30}){30}'), undefined)
  t.is(compileRegex('(a{0,50}){0,50}'), undefined)
  t.is(compileRegex('((a{10})|b){101}'), undefined)
})

test('the automaton finds what V8 finds', (t) => {
  const patterns = [
    '^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$',
    'a+b*c?',
    '^(a|ab)(c|bcd)$',
    '(?i)x(?-i:Y)z',
    '(?m)^b$|^$',
    '\\bfoo\\B',
    '[^a-c]{2,3}?d',
    '(a{0,2}b){2,}',
    '(?s)a.c',
    'a.c',
    '\\pL\\d|[[:punct:]]{2}',
    '()|x',
    '^$',
  ]
  const texts = fc.array(
    fc.constantFrom('a', 'b', 'c', 'd', 'X', 'x', 'Y', 'z', '-', '.', '/', 'foo', '1', '\n', 'é', '_'),
    {
      maxLength: 9,
    },
  )
  for (const pattern of patterns) {
    const source = translateRegex(pattern)?.source ?? ''
    const automaton = Automaton.of(source)
    fc.assert(
      fc.property(texts, (parts) => {
        const text = parts.join('')
        return automaton?.test(text) === new RegExp(source, 'u').test(text)
      }),
      { numRuns: 300 },
    )
  }
  t.pass()
})

test('times are Go’s and RFC 3339’s', (t) => {
  t.is(parseGoDuration('1h1m1.5s'), 3_661_500_000_000n)
  t.is(parseGoDuration('-2us'), -2_000n)
  for (const text of ['', '1', '1d', '1h x', '9999999h']) t.is(parseGoDuration(text), undefined, text)
  t.is(parseRfc3339('1970-01-01T01:00:00+01:00'), 0n)
  for (const text of ['2023-02-29T00:00:00Z', '2023-01-01T24:00:00Z', '2023-01-01', '0000-01-01T00:00:00Z'])
    t.is(parseRfc3339(text), undefined, text)
})

test('names that CEL has no room for are written another way', (t) => {
  t.is(escapeName('namespace'), '__namespace__')
  t.is(escapeName('a-b.c/d'), 'a__dash__b__dot__c__slash__d')
  t.is(escapeName('a__b'), 'a__underscores__b')
  t.is(escapeName('$ref'), undefined)
  t.is(escapeName('1a'), undefined)
})
