import { fixed, multiply, regexLength, scale, traversal } from '../cost.ts'
import type { Node } from '../frame.ts'
import { type Call, type Costs, type Overload, overload } from '../functions.ts'
import { checkedInt, checkedUint, sizeOfNode } from '../operators.ts'
import { compileRegex, type Regex } from '../regex.ts'
import { calendarOf, isInstant, parseGoDuration, parseRfc3339 } from '../times.ts'
import { Duration, EvaluationError, kindOf, sizeOf, Timestamp, TypeValue, textSize, toText, Uint } from '../values.ts'

/** Going over the text once, or `factor` times. */
export const overText = (factor = 1, at = 0): Costs => ({
  estimate: (args) => ({ cost: scale(sizeOfNode(args[at]), factor * traversal) }),
  spend: (args) => Math.ceil(sizeOf(args[at]) * factor * traversal),
})

function regexOf(pattern: string): Regex {
  const regex = compileRegex(pattern)
  if (regex === undefined) throw new EvaluationError(`error parsing regexp: invalid or unsupported: \`${pattern}\``)
  return regex
}

const literalText = (node: Node | undefined): string | undefined =>
  typeof node?.literal?.value === 'string' ? node.literal.value : undefined

/** A literal must be right when the expression is compiled. */
const checkLiteral =
  (at: number, isRight: (text: string) => boolean, words: string): NonNullable<Costs['check']> =>
  (args) => {
    const text = literalText(args[at])
    return text !== undefined && !isRight(text) ? words : undefined
  }

const matchesCosts: Costs = {
  estimate: ([text, pattern]) => {
    const { min, max } = sizeOfNode(text)
    const textCost = scale({ min: min + 1, max: max + 1 }, traversal)
    return { cost: multiply(textCost, scale(sizeOfNode(pattern), regexLength)) }
  },
  spend: ([text, pattern]) => Math.ceil((1 + sizeOf(text)) * traversal) * Math.ceil(sizeOf(pattern) * regexLength),
  check: checkLiteral(1, (text) => compileRegex(text) !== undefined, 'invalid matches argument'),
  prepare([, pattern]): Call | undefined {
    const text = literalText(pattern)
    const regex = text === undefined ? undefined : compileRegex(text)
    return regex && ((value: string) => regex.test(value))
  },
}
const matches = (text: string, pattern: string): boolean => regexOf(pattern).test(text)

const containsCosts: Costs = {
  estimate: ([text, part]) => ({
    cost: multiply(scale(sizeOfNode(text), traversal), scale(sizeOfNode(part), traversal)),
  }),
  spend: ([text, part]) => Math.ceil(sizeOf(text) * traversal) * Math.ceil(sizeOf(part) * traversal),
}
const endCosts: Costs = {
  estimate: ([, part]) => ({ cost: scale(sizeOfNode(part), traversal) }),
  spend: ([text]) => Math.ceil(sizeOf(text) * traversal),
}

const conversionError = (type: string): EvaluationError =>
  new EvaluationError(`type conversion error from 'string' to '${type}'`)

const size = (value: unknown): bigint => BigInt(typeof value === 'string' ? textSize(value) : sizeOf(value))

function textToInt(text: string): bigint {
  const value = /^[+-]?\d+$/.test(text) ? BigInt(text.replace(/^\+/, '')) : undefined
  if (value === undefined || BigInt.asIntN(64, value) !== value) throw conversionError('int')
  return value
}
function doubleToInt(value: number): bigint {
  if (!Number.isFinite(value) || Math.abs(value) >= 2 ** 63) throw new EvaluationError('integer overflow')
  return BigInt(Math.trunc(value))
}
function textToDouble(text: string): number {
  if (/^[+-]?(Inf|inf|Infinity|NaN)$/.test(text))
    return /NaN/.test(text) ? Number.NaN : text.startsWith('-') ? -Infinity : Infinity
  if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text) || !Number.isFinite(Number(text)))
    throw conversionError('double')
  return Number(text)
}
function textToDuration(text: string): Duration {
  const nanos = parseGoDuration(text)
  if (nanos === undefined) throw new EvaluationError(`time: invalid duration ${JSON.stringify(text)}`)
  return new Duration(nanos)
}
function textToTimestamp(text: string): Timestamp {
  const nanos = parseRfc3339(text)
  if (nanos === undefined)
    throw new EvaluationError(`parsing time ${JSON.stringify(text)}: not in the form of RFC 3339`)
  return new Timestamp(nanos)
}
function textToBool(text: string): boolean {
  if (['true', 'True', 'TRUE', 't', 'T', '1'].includes(text)) return true
  if (['false', 'False', 'FALSE', 'f', 'F', '0'].includes(text)) return false
  throw conversionError('bool')
}
function timestampOf(seconds: bigint): Timestamp {
  const nanos = seconds * 1_000_000_000n
  if (!isInstant(nanos)) throw new EvaluationError('timestamp overflow')
  return new Timestamp(nanos)
}

const same = <T>(value: T): T => value
const sameText: Costs = { estimate: ([text]) => ({ cost: fixed(1), size: sizeOfNode(text) }) }

const conversions: readonly Overload[] = [
  overload('int(int): int', same),
  overload('int(uint): int', (a: Uint) => checkedInt(a.value)),
  overload('int(double): int', doubleToInt),
  overload('int(string): int', textToInt),
  overload('int(timestamp): int', (a: Timestamp) => a.nanos / 1_000_000_000n),
  overload('int(duration): int', (a: Duration) => a.nanos),
  overload('uint(uint): uint', same),
  overload('uint(int): uint', (a: bigint) => checkedUint(a)),
  overload('uint(double): uint', (a: number) => {
    if (!Number.isFinite(a) || a < 0) throw new EvaluationError('unsigned integer overflow')
    return checkedUint(BigInt(Math.trunc(a)))
  }),
  overload('uint(string): uint', (a: string) => {
    if (!/^\d+$/.test(a) || BigInt(a) >= 2n ** 64n) throw conversionError('uint')
    return new Uint(BigInt(a))
  }),
  overload('double(double): double', same),
  overload('double(int): double', (a: bigint) => Number(a)),
  overload('double(uint): double', (a: Uint) => Number(a.value)),
  overload('double(string): double', textToDouble),
  overload('bool(bool): bool', same),
  overload('bool(string): bool', textToBool),
  overload('string(string): string', same, sameText),
  overload('string(bytes): string', toText, {
    ...overText(),
    estimate([value]) {
      const { min, max } = sizeOfNode(value)
      return { cost: scale({ min, max }, traversal), size: { min: Math.floor(min / 4), max } }
    },
  }),
  ...['bool', 'int', 'uint', 'double', 'timestamp', 'duration'].map((type) =>
    overload(`string(${type}): string`, (a: unknown) => toText(a)),
  ),
  overload('bytes(bytes): bytes', same),
  overload('bytes(string): bytes', (a: string) => new Uint8Array(Buffer.from(a)), {
    ...overText(),
    estimate([value]) {
      const { min, max } = sizeOfNode(value)
      return { cost: scale({ min, max }, traversal), size: { min, max: max * 4 } }
    },
  }),
  overload('duration(duration): duration', same),
  overload('duration(int): duration', (a: bigint) => new Duration(a)),
  overload('duration(string): duration', textToDuration, {
    check: checkLiteral(0, (text) => parseGoDuration(text) !== undefined, 'invalid duration argument'),
  }),
  overload('timestamp(timestamp): timestamp', same),
  overload('timestamp(int): timestamp', timestampOf),
  overload('timestamp(string): timestamp', textToTimestamp, {
    check: checkLiteral(0, (text) => parseRfc3339(text) !== undefined, 'invalid timestamp argument'),
  }),
  overload('type(A): type', (a: unknown) => new TypeValue(kindOf(a))),
  overload('dyn(A): dyn', same),
]

type Part = (date: Date) => number
const calendar: Readonly<Record<string, Part>> = {
  getFullYear: (date) => date.getUTCFullYear(),
  getMonth: (date) => date.getUTCMonth(),
  getDate: (date) => date.getUTCDate(),
  getDayOfMonth: (date) => date.getUTCDate() - 1,
  getDayOfWeek: (date) => date.getUTCDay(),
  getDayOfYear: (date) => Math.floor((date.getTime() - Date.UTC(date.getUTCFullYear(), 0, 1)) / 86_400_000),
  getHours: (date) => date.getUTCHours(),
  getMinutes: (date) => date.getUTCMinutes(),
  getSeconds: (date) => date.getUTCSeconds(),
  getMilliseconds: (date) => date.getUTCMilliseconds(),
}
const times: readonly Overload[] = [
  ...Object.entries(calendar).flatMap(([name, part]) => {
    const read = (value: Timestamp, zone: string): bigint => {
      const date = calendarOf(value.nanos, zone)
      if (date === undefined) throw new EvaluationError(`unknown time zone ${zone}`)
      return BigInt(part(date))
    }
    return [
      overload(`timestamp.${name}(): int`, (value: Timestamp) => read(value, '')),
      overload(`timestamp.${name}(string): int`, read),
    ]
  }),
  overload('duration.getHours(): int', (value: Duration) => value.nanos / 3_600_000_000_000n),
  overload('duration.getMinutes(): int', (value: Duration) => value.nanos / 60_000_000_000n),
  overload('duration.getSeconds(): int', (value: Duration) => value.nanos / 1_000_000_000n),
  overload('duration.getMilliseconds(): int', (value: Duration) => value.nanos / 1_000_000n),
]

/** CEL's own functions (cel-spec: "Standard Definitions"). */
export const standard: readonly Overload[] = [
  ...['string', 'bytes', 'list<A>', 'map<A, B>'].flatMap((type) => [
    overload(`size(${type}): int`, size),
    overload(`${type}.size(): int`, size),
  ]),
  overload('string.contains(string): bool', (a: string, b: string) => a.includes(b), containsCosts),
  overload('string.startsWith(string): bool', (a: string, b: string) => a.startsWith(b), endCosts),
  overload('string.endsWith(string): bool', (a: string, b: string) => a.endsWith(b), endCosts),
  overload('string.matches(string): bool', matches, matchesCosts),
  overload('matches(string, string): bool', matches, matchesCosts),
  ...conversions,
  ...times,
]

export { regexOf }
