import { add, type Entries, fixed, type Range, sizeOfType, unknownSize } from './cost.ts'
import type { Node } from './frame.ts'
import {
  type Bindings,
  dyn,
  formatType,
  isAssignable,
  isDynamic,
  parseType,
  splitTopLevel,
  substitute,
  type Type,
} from './types.ts'
import { isOfType, noSuchOverload } from './values.ts'

export type Call = (...args: never[]) => unknown

export interface CallEstimate {
  readonly cost: Range
  readonly size?: Range
  readonly entries?: Entries
}

export interface Costs {
  /** What a call costs beyond its arguments. Default: 1. */
  readonly spend?: (args: readonly unknown[], result: unknown) => number
  /** The same, before there are values. Default: 1. */
  readonly estimate?: (args: readonly Node[]) => CallEstimate
  /** Looks at literal arguments when the expression is compiled; a text is what is wrong. */
  readonly check?: (args: readonly Node[]) => string | undefined
  /** Replaces `call` where literal arguments allow work to be done once. */
  readonly prepare?: (args: readonly Node[]) => Call | undefined
}

/** One signature of a function. The receiver of a member function is the first parameter. */
export interface Overload extends Costs {
  readonly name: string
  readonly isMember: boolean
  readonly params: readonly Type[]
  readonly result: Type
  readonly call: Call
}

export type FunctionTable = ReadonlyMap<string, readonly Overload[]>

/** `string.contains(string): bool`, `list<A>.indexOf(A): int`, `duration(string): duration`, `sets.contains(…)`. */
export function overload(signature: string, call: Call, costs: Costs = {}): Overload {
  const found = /^(?:(.+?)\.)?([A-Za-z_]\w*)\((.*)\): (.+)$/.exec(signature)
  if (found === null) throw new Error(`Not a signature: ${signature}`)
  const [, receiver, name = '', params = '', result = ''] = found
  // Lower-case words that are no type are namespaces: ip.isCanonical, sets.contains.
  const isNamespace = receiver !== undefined && namespaces.has(receiver)
  const types = splitTopLevel(params).map(parseType)
  const isMember = receiver !== undefined && !isNamespace
  return {
    name: isNamespace ? `${receiver}.${name}` : name,
    isMember,
    params: isMember ? [parseType(receiver), ...types] : types,
    result: parseType(result),
    call,
    ...costs,
  }
}

const namespaces = new Set(['sets', 'strings', 'optional', 'ip', 'format', 'lists'])

export function tableOf(...libraries: readonly (readonly Overload[])[]): FunctionTable {
  const table = new Map<string, Overload[]>()
  for (const each of libraries.flat()) {
    const known = table.get(each.name)
    if (known === undefined) table.set(each.name, [each])
    else known.push(each)
  }
  return table
}

/** The overloads that these arguments fit, and the type of the result. Undefined: none does. */
export function resolve(
  candidates: readonly Overload[],
  isMember: boolean,
  args: readonly Type[],
): { readonly overloads: readonly Overload[]; readonly type: Type } | undefined {
  const overloads: Overload[] = []
  const results: Type[] = []
  for (const each of candidates) {
    if (each.isMember !== isMember || each.params.length !== args.length) continue
    const bindings: Bindings = new Map()
    if (!args.every((arg, i) => isAssignable(arg, each.params[i] ?? dyn, bindings))) continue
    overloads.push(each)
    results.push(substitute(each.result, bindings))
  }
  const [first] = results
  if (first === undefined) return undefined
  const isOne = results.every((type) => formatType(type) === formatType(first))
  return { overloads, type: isOne ? first : dyn }
}

/** A call whose overload is known, or found by the values when they are there. */
export function callNode(overloads: readonly Overload[], type: Type, args: readonly Node[], offset: number): Node {
  const estimates = overloads.map((each): CallEstimate => each.estimate?.(args) ?? { cost: fixed(1) })
  const cost = estimates
    .map((e) => e.cost)
    .reduce((a, b) => ({ min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) }))
  const [estimate] = estimates
  const { max: _, ...unsized } = type
  const size = estimate?.size ?? sizeOfType(unsized as Type) ?? unknownSize
  return {
    type,
    cost: add(cost, ...args.map((arg) => arg.cost)),
    size,
    ...(estimate?.entries ? { entries: estimate.entries } : {}),
    offset,
    run: runOf(overloads, args),
  }
}

function runOf(overloads: readonly Overload[], args: readonly Node[]): Node['run'] {
  const [only] = overloads
  if (only === undefined) throw new Error('A call needs an overload')
  const isKnown = overloads.length === 1 && args.every((arg, i) => !isDynamic(arg.type) || isAny(only.params[i]))
  if (!isKnown) {
    const runs = args.map((arg) => arg.run)
    return (frame) => {
      const values = runs.map((run) => run(frame))
      const fit = overloads.find((each) => values.every((value, i) => isOfType(value, each.params[i] ?? dyn)))
      if (fit === undefined) throw noSuchOverload()
      const result = (fit.call as (...args: unknown[]) => unknown)(...values)
      frame.spend(fit.spend?.(values, result) ?? 1)
      return result
    }
  }
  const call = (only.prepare?.(args) ?? only.call) as (...args: unknown[]) => unknown
  // Whether a value is one of those that are written there is found at once.
  const isMember = only.name === 'in' && args[1]?.literal !== undefined
  const spend = isMember ? () => 0 : only.spend
  const [a, b] = args
  if (args.length === 1 && a !== undefined) {
    return (frame) => {
      const x = a.run(frame)
      const result = call(x)
      frame.spend(spend === undefined ? 1 : spend([x], result))
      return result
    }
  }
  if (args.length === 2 && a !== undefined && b !== undefined) {
    return (frame) => {
      const x = a.run(frame)
      const y = b.run(frame)
      const result = call(x, y)
      frame.spend(spend === undefined ? 1 : spend([x, y], result))
      return result
    }
  }
  return (frame) => {
    const values = args.map((arg) => arg.run(frame))
    const result = call(...values)
    frame.spend(spend === undefined ? 1 : spend(values, result))
    return result
  }
}

const isAny = (type: Type | undefined): boolean => type?.kind === 'dyn' || type?.kind === 'parameter'
