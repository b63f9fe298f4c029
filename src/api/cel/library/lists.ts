import { add, type Entries, fixed, multiply, one, type Range, scale, traversal, unknownSize } from '../cost.ts'
import type { Node } from '../frame.ts'
import { type Costs, type Overload, overload } from '../functions.ts'
import { checkedInt, checkedUint, sizeOfNode } from '../operators.ts'
import {
  compare,
  Duration,
  EvaluationError,
  equals,
  getKey,
  keysOf,
  kindOf,
  Optional,
  sizeOf,
  type Uint,
} from '../values.ts'

/** Cost of going over everything that is in a value. */
function traversalOf(value: unknown): number {
  if (typeof value === 'string' || value instanceof Uint8Array) return Math.floor(sizeOf(value) * traversal)
  if (Array.isArray(value)) return value.reduce((sum: number, item) => sum + traversalOf(item), 0)
  if (kindOf(value) === 'map')
    return keysOf(value).reduce((sum: number, key) => sum + traversalOf(key) + traversalOf(getKey(value, key)), 0)
  return 1
}

/** One unit an element, and for texts what comparing them costs. */
const once: Costs = {
  estimate: ([list]) => {
    const of = list?.type.kind === 'list' ? list.type.of : undefined
    const isText = of?.kind === 'string' || of?.kind === 'bytes'
    const each = { min: 0, max: (list?.isRooted ? of?.max : undefined) ?? Infinity }
    return { cost: multiply(sizeOfNode(list), isText ? add(one, scale(each, traversal)) : one) }
  },
  spend: ([list]) => traversalOf(list),
}

const comparable = ['int', 'uint', 'double', 'bool', 'duration', 'timestamp', 'string', 'bytes']

function isSorted(list: readonly unknown[]): boolean {
  return list.every((item, i) => i === 0 || (compare(list[i - 1], item) ?? 1) <= 0)
}
const extreme =
  (name: string, sign: number) =>
  (list: readonly unknown[]): unknown => {
    if (list.length === 0) throw new EvaluationError(`${name} called on empty list`)
    return list.reduce((best, item) => ((compare(item, best) ?? 0) * sign > 0 ? item : best))
  }

const indexOf = (list: readonly unknown[], wanted: unknown): bigint =>
  BigInt(list.findIndex((item) => equals(item, wanted)))
const lastIndexOf = (list: readonly unknown[], wanted: unknown): bigint =>
  BigInt(list.findLastIndex((item) => equals(item, wanted)))

function slice(list: readonly unknown[], from: bigint, to: bigint): unknown[] {
  if (from < 0n || to < 0n) throw new EvaluationError(`cannot slice(${from}, ${to}), negative indexes not supported`)
  if (from > to)
    throw new EvaluationError(`cannot slice(${from}, ${to}), start index must be less than or equal to end index`)
  if (to > BigInt(list.length)) throw new EvaluationError(`cannot slice(${from}, ${to}), list is length ${list.length}`)
  return list.slice(Number(from), Number(to))
}
function flatten(list: readonly unknown[], depth = 1n): unknown[] {
  if (depth < 0n) throw new EvaluationError('level must be non-negative')
  return list.flat(Number(depth))
}
const rangeMax = 1_000_000n
function range(count: bigint): bigint[] {
  if (count > rangeMax) throw new EvaluationError(`lists.range(${count}) is longer than ${rangeMax}`)
  return Array.from({ length: Math.max(0, Number(count)) }, (_, i) => BigInt(i))
}
function distinct(list: readonly unknown[]): unknown[] {
  const kept: unknown[] = []
  for (const item of list) if (!kept.some((other) => equals(other, item))) kept.push(item)
  return kept
}
const sort = (list: readonly unknown[]): unknown[] => list.toSorted((a, b) => compare(a, b) ?? 0)

const entriesOf = (node: Node | undefined): { readonly entries?: Entries } =>
  node?.entries === undefined ? {} : { entries: node.entries }
const keepsSize = (cost: (size: Range) => Range): Costs => ({
  estimate: ([list]) => ({ cost: cost(sizeOfNode(list)), size: sizeOfNode(list), ...entriesOf(list) }),
  spend: ([list]) => Math.max(1, cost(fixed(sizeOf(list))).max),
})
const linear = keepsSize((size) => add(fixed(11), size))
const quadratic = keepsSize((size) => add(fixed(11), multiply(fixed(2), multiply(size, size))))

/** Kubernetes' list functions, and cel-go's list extension. */
export const lists: readonly Overload[] = [
  ...comparable.flatMap((type) => [
    overload(`list<${type}>.isSorted(): bool`, isSorted, once),
    overload(`list<${type}>.min(): ${type}`, extreme('min', -1), once),
    overload(`list<${type}>.max(): ${type}`, extreme('max', 1), once),
  ]),
  overload('list<int>.sum(): int', (list: readonly bigint[]) => checkedInt(list.reduce((a, b) => a + b, 0n)), once),
  overload(
    'list<uint>.sum(): uint',
    (list: readonly Uint[]) => checkedUint(list.reduce((a, b) => a + b.value, 0n)),
    once,
  ),
  overload('list<double>.sum(): double', (list: readonly number[]) => list.reduce((a, b) => a + b, 0), once),
  overload(
    'list<duration>.sum(): duration',
    (list: readonly Duration[]) => new Duration(checkedInt(list.reduce((a, b) => a + b.nanos, 0n))),
    once,
  ),
  overload('list<A>.indexOf(A): int', indexOf, once),
  overload('list<A>.lastIndexOf(A): int', lastIndexOf, once),
  overload('list<A>.slice(int, int): list<A>', slice, {
    estimate: ([list, from, to]) => {
      const [start, end] = [from?.literal?.value, to?.literal?.value]
      const isKnown = typeof start === 'bigint' && typeof end === 'bigint' && end >= start
      const size = isKnown ? fixed(Number(end - start)) : sizeOfNode(list)
      return { cost: add(fixed(11), size), size }
    },
    spend: (_, result) => 11 + sizeOf(result),
  }),
  overload('list<list<A>>.flatten(): list<A>', (list: readonly unknown[]) => flatten(list), linear),
  overload('list<dyn>.flatten(int): list<dyn>', flatten, linear),
  overload('lists.range(int): list<int>', range, {
    estimate([count]) {
      const known = typeof count?.literal?.value === 'bigint' ? fixed(Number(count.literal.value)) : unknownSize
      return { cost: add(fixed(11), known), size: known }
    },
    spend: (_, result) => 11 + sizeOf(result),
  }),
  overload('list<A>.distinct(): list<A>', distinct, quadratic),
  overload('list<A>.reverse(): list<A>', (list: readonly unknown[]) => list.toReversed(), linear),
  overload('list<A>.first(): optional<A>', (list: readonly unknown[]) =>
    list.length === 0 ? Optional.none : Optional.of(list[0]),
  ),
  overload('list<A>.last(): optional<A>', (list: readonly unknown[]) =>
    list.length === 0 ? Optional.none : Optional.of(list.at(-1)),
  ),
  ...comparable.map((type) => overload(`list<${type}>.sort(): list<${type}>`, sort, quadratic)),
]

/** cel-go's set functions on lists. */
const contains = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  b.every((item) => a.some((other) => equals(item, other)))
const crossCosts = (factor: number): Costs => ({
  estimate: ([a, b]) => ({ cost: add(one, scale(multiply(sizeOfNode(a), sizeOfNode(b)), factor)) }),
  spend: ([a, b]) => 1 + sizeOf(a) * sizeOf(b) * factor,
})
export const sets: readonly Overload[] = [
  overload('sets.contains(list<A>, list<A>): bool', contains, crossCosts(1)),
  overload(
    'sets.equivalent(list<A>, list<A>): bool',
    (a: readonly unknown[], b: readonly unknown[]) => contains(a, b) && contains(b, a),
    crossCosts(2),
  ),
  overload(
    'sets.intersects(list<A>, list<A>): bool',
    (a: readonly unknown[], b: readonly unknown[]) => a.some((item) => b.some((other) => equals(item, other))),
    crossCosts(1),
  ),
]
