import { add, fixed, type Range, scale, sizeOfType, traversal, unknownSize } from './cost.ts'
import type { Node } from './frame.ts'
import { type CallEstimate, type Overload, overload } from './functions.ts'
import { isInstant } from './times.ts'
import type { Identity, ListType, Type } from './types.ts'
import {
  compare,
  Duration,
  EvaluationError,
  equals,
  hasKey,
  isSameElement,
  noSuchOverload,
  sizeOf,
  Timestamp,
  Uint,
} from './values.ts'

/** What is known of the size of a part's value: limits of the schema count for what comes from there. */
export function sizeOfNode(node: Node | undefined): Range {
  if (node === undefined) return unknownSize
  return node.size ?? sizeOfType(node.isRooted ? node.type : unsized(node.type)) ?? unknownSize
}
function unsized(type: Type): Type {
  if (type.max === undefined) return type
  const { max: _, ...rest } = type
  return rest as Type
}

/** Comparing goes over the shorter one of the two. */
const comparisonEstimate = ([a, b]: readonly Node[]): CallEstimate => {
  if (a?.type.kind === 'opaque') return { cost: fixed(1) }
  const max = Math.min(sizeOfNode(a).max, sizeOfNode(b).max)
  return { cost: scale({ min: max > 0 ? 1 : 0, max }, traversal) }
}
const comparisonSpend = ([a, b]: readonly unknown[]): number => Math.ceil(Math.min(sizeOf(a), sizeOf(b)) * traversal)
const textCosts = { estimate: comparisonEstimate, spend: comparisonSpend }

const orders: Readonly<Record<string, (order: number | undefined) => boolean>> = {
  '<': (order) => order !== undefined && order < 0,
  '<=': (order) => order !== undefined && order <= 0,
  '>': (order) => order !== undefined && order > 0,
  '>=': (order) => order !== undefined && order >= 0,
}

function comparisons(): Overload[] {
  const pairs: [string, string][] = ['bool', 'int', 'uint', 'double', 'string', 'bytes', 'timestamp', 'duration'].map(
    (type) => [type, type],
  )
  const numbers = ['int', 'uint', 'double']
  for (const a of numbers) for (const b of numbers) if (a !== b) pairs.push([a, b])
  return Object.entries(orders).flatMap(([operator, holds]) =>
    pairs.map(([a, b]) =>
      named(
        operator,
        overload(
          `f(${a}, ${b}): bool`,
          (x: unknown, y: unknown) => holds(compare(x, y)),
          a === 'string' || a === 'bytes' ? textCosts : {},
        ),
      ),
    ),
  )
}

const named = (name: string, each: Overload): Overload => ({ ...each, name })
const operator = (name: string, signature: string, call: Overload['call'], costs = {}): Overload =>
  named(name, overload(`f${signature}`, call, costs))

const intMin = -(2n ** 63n)
const intMax = 2n ** 63n - 1n
const uintMax = 2n ** 64n - 1n

export function checkedInt(value: bigint): bigint {
  if (value < intMin || value > intMax) throw new EvaluationError('integer overflow')
  return value
}
export function checkedUint(value: bigint): Uint {
  if (value < 0n || value > uintMax) throw new EvaluationError('unsigned integer overflow')
  return new Uint(value)
}
const checkedDuration = (nanos: bigint): Duration => {
  if (nanos < intMin || nanos > intMax) throw new EvaluationError('integer overflow')
  return new Duration(nanos)
}
const checkedTimestamp = (nanos: bigint): Timestamp => {
  if (!isInstant(nanos)) throw new EvaluationError('timestamp overflow')
  return new Timestamp(nanos)
}
function nonZero(value: bigint, words: string): bigint {
  if (value === 0n) throw new EvaluationError(words)
  return value
}

type Arithmetic = (a: bigint, b: bigint) => bigint
const whole: Readonly<Record<string, Arithmetic>> = {
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / nonZero(b, 'division by zero'),
  '%': (a, b) => a % nonZero(b, 'modulus by zero'),
}
const fractional: Readonly<Record<string, (a: number, b: number) => number>> = {
  '+': (a, b) => a + b,
  '-': (a, b) => a - b,
  '*': (a, b) => a * b,
  '/': (a, b) => a / b,
}

const concatCosts = {
  estimate: ([a, b]: readonly Node[]): CallEstimate => {
    const size = add(sizeOfNode(a), sizeOfNode(b))
    return { cost: scale(size, traversal), size }
  },
  spend: ([a, b]: readonly unknown[]) => Math.ceil((sizeOf(a) + sizeOf(b)) * traversal),
}
const concatListCosts = {
  estimate: ([a, b]: readonly Node[]): CallEstimate => {
    const [x, y] = [a?.entries, b?.entries]
    const both = x && y ? { key: widen(x.key, y.key), value: widen(x.value, y.value) } : undefined
    return { cost: fixed(1), size: add(sizeOfNode(a), sizeOfNode(b)), ...(both ? { entries: both } : {}) }
  },
  /** Elements of sets and map lists take each other's places. */
  prepare: ([a]: readonly Node[]) => {
    const identity = (a?.type as ListType | undefined)?.identity
    return identity && ((x: readonly unknown[], y: readonly unknown[]) => merge(x, y, identity))
  },
}
const widen = (a: Range, b: Range): Range => ({ min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) })

function merge(a: readonly unknown[], b: readonly unknown[], { keys }: Identity): unknown[] {
  const merged = [...a]
  for (const item of b) {
    const at = merged.findIndex((other) => isSameElement(other, item, keys))
    if (at < 0) merged.push(item)
    else merged[at] = item
  }
  return merged
}

/** The operators, as functions by their sign; `-_` and `!_` take one argument. */
export const operators: readonly Overload[] = [
  ...comparisons(),
  ...Object.entries(whole).flatMap(([sign, run]) => [
    operator(sign, '(int, int): int', (a: bigint, b: bigint) => checkedInt(run(a, b))),
    operator(sign, '(uint, uint): uint', (a: Uint, b: Uint) => checkedUint(run(a.value, b.value))),
  ]),
  ...Object.entries(fractional).map(([sign, run]) => operator(sign, '(double, double): double', run)),
  operator('+', '(string, string): string', (a: string, b: string) => a + b, concatCosts),
  operator('+', '(bytes, bytes): bytes', (a: Uint8Array, b: Uint8Array) => Buffer.concat([a, b]), concatCosts),
  operator('+', '(list<A>, list<A>): list<A>', (a: unknown[], b: unknown[]) => [...a, ...b], concatListCosts),
  operator('+', '(duration, duration): duration', (a: Duration, b: Duration) => checkedDuration(a.nanos + b.nanos)),
  operator('+', '(timestamp, duration): timestamp', (a: Timestamp, b: Duration) => checkedTimestamp(a.nanos + b.nanos)),
  operator('+', '(duration, timestamp): timestamp', (a: Duration, b: Timestamp) => checkedTimestamp(a.nanos + b.nanos)),
  operator('-', '(duration, duration): duration', (a: Duration, b: Duration) => checkedDuration(a.nanos - b.nanos)),
  operator('-', '(timestamp, duration): timestamp', (a: Timestamp, b: Duration) => checkedTimestamp(a.nanos - b.nanos)),
  operator('-', '(timestamp, timestamp): duration', (a: Timestamp, b: Timestamp) => checkedDuration(a.nanos - b.nanos)),
  operator('-_', '(int): int', (a: bigint) => checkedInt(-a)),
  operator('-_', '(double): double', (a: number) => -a),
  operator('!_', '(bool): bool', (a: boolean) => {
    if (typeof a !== 'boolean') throw noSuchOverload()
    return !a
  }),
  ...[
    { sign: '==', wanted: true },
    { sign: '!=', wanted: false },
  ].map(({ sign, wanted }) =>
    operator(sign, '(A, A): bool', (a: unknown, b: unknown) => equals(a, b) === wanted, {
      ...textCosts,
      prepare: ([a, b]: readonly Node[]) => {
        const type = a?.type.kind === 'dyn' ? b?.type : a?.type
        if (type === undefined || ['string', 'bool'].includes(type.kind)) return undefined
        return (x: unknown, y: unknown) => equals(x, y, type) === wanted
      },
    }),
  ),
  operator('in', '(A, list<A>): bool', (a: unknown, list: readonly unknown[]) => list.some((item) => equals(a, item)), {
    estimate: ([, list]: readonly Node[]): CallEstimate => ({ cost: sizeOfNode(list) }),
    spend: ([, list]: readonly unknown[]) => sizeOf(list),
  }),
  operator('in', '(A, map<A, B>): bool', (a: unknown, map: unknown) => hasKey(map, a)),
]
