import type { ASTNode } from '@marcbachmann/cel-js'
import { add, fixed, free, listBase, mapBase, multiply, one, type Range, union } from './cost.ts'
import type { Frame, Node, Run } from './frame.ts'
import { sizeOfNode } from './operators.ts'
import * as types from './types.ts'
import { formatType, type Type } from './types.ts'
import {
  compare,
  EvaluationError,
  getKey,
  isRecord,
  keysOf,
  kindOf,
  mapKey,
  noSuchOverload,
  Optional,
} from './values.ts'
import type { Walk } from './walk.ts'

/**
 * What looks like a call but is not: `has`, and the loops over lists and maps with one or two variables. Costs are those
 * of upstream's expansion into steps. Undefined: no macro.
 */
export function expandMacro(
  walk: Walk,
  name: string,
  receiver: ASTNode | undefined,
  args: readonly ASTNode[],
  offset: number,
): Node | undefined {
  if (receiver === undefined) {
    const [only] = args
    return name === 'has' && only !== undefined && args.length === 1 ? walk.presence(only) : undefined
  }
  const [first, second, third, fourth] = args
  switch (name) {
    case 'all':
    case 'exists':
    case 'exists_one':
    case 'existsOne': {
      if (first === undefined || second === undefined) return undefined
      if (name !== 'existsOne' && args.length === 2)
        return loop(walk, receiver, [first], offset, (range) => quantifier(walk, name, range, second))
      if (name === 'exists_one' || third === undefined || args.length !== 3) return undefined
      return loop(walk, receiver, [first, second], offset, (range) => quantifier(walk, name, range, third))
    }
    case 'filter':
      if (first === undefined || second === undefined || args.length !== 2) return undefined
      return loop(walk, receiver, [first], offset, (range) => collect(walk, range, second, undefined))
    case 'map':
      if (first === undefined || second === undefined || args.length > 3) return undefined
      return loop(walk, receiver, [first], offset, (range) =>
        third === undefined ? collect(walk, range, undefined, second) : collect(walk, range, second, third),
      )
    case 'transformList':
    case 'transformMap':
    case 'transformMapEntry': {
      if (first === undefined || second === undefined || third === undefined || args.length > 4) return undefined
      const [test, body] = fourth === undefined ? [undefined, third] : [third, fourth]
      return loop(walk, receiver, [first, second], offset, (range) => {
        if (name === 'transformList') return collect(walk, range, test, body)
        return collectMap(walk, range, test, body, name === 'transformMapEntry')
      })
    }
    case 'sortBy':
      if (first === undefined || second === undefined || args.length !== 2) return undefined
      return loop(walk, receiver, [first], offset, (range) => sortBy(walk, range, second))
    case 'optMap':
    case 'optFlatMap':
      if (first === undefined || second === undefined || args.length !== 2) return undefined
      return optionalMap(walk, receiver, first, second, name === 'optFlatMap', offset)
    default:
      return undefined
  }
}

/** What a loop goes over, and its variables in the frame. */
interface Loop {
  readonly range: Node
  readonly count: Range
  /** Of the variable that stands alone: elements of a list, keys of a map. */
  readonly element: Type
  readonly size: Range | undefined
  readonly offset: number
  readonly name: string
  /** Calls with each step's variables set, until it says false. */
  each(frame: Frame, step: () => boolean): void
}

function loop(
  walk: Walk,
  receiver: ASTNode,
  variables: readonly ASTNode[],
  offset: number,
  body: (loop: Loop) => Node,
): Node {
  const range = walk.compile(receiver)
  const names: string[] = []
  for (const variable of variables) {
    if (variable.op !== 'id') return walk.fail(variable.start, 'argument is not an identifier')
    names.push(variable.args)
  }
  const parts = partsOf(range.type)
  if (parts === undefined) {
    return walk.fail(
      range.offset,
      `expression of type '${formatType(range.type)}' cannot be range of a comprehension (must be list, map, or dynamic)`,
    )
  }
  const count = sizeOfNode(range)
  const isList = range.type.kind === 'list'
  const [name = '', second] = names
  const isRooted = range.isRooted ?? false
  // Upstream takes what does not come from the schema for nothing at all.
  const sizeOfElement = isRooted ? undefined : free
  const shared = { range, count, offset, size: sizeOfElement, name }
  const variable = (type: Type) => ({ type, isRooted, ...(sizeOfElement ? { size: sizeOfElement } : {}) })
  if (second === undefined) {
    const element = isList ? parts.value : parts.key
    return walk.withVariable(name, variable(element), (slot) =>
      body({
        ...shared,
        element,
        each(frame, step) {
          const { slots } = frame
          for (const item of itemsOf(range.run(frame))) {
            slots[slot] = item
            if (!step()) return
          }
        },
      }),
    )
  }
  return walk.withVariable(name, variable(parts.key), (keySlot) =>
    walk.withVariable(second, variable(parts.value), (valueSlot) =>
      body({
        ...shared,
        element: parts.value,
        each(frame, step) {
          const { slots } = frame
          const container = range.run(frame)
          if (Array.isArray(container)) {
            for (let i = 0; i < container.length; i++) {
              slots[keySlot] = BigInt(i)
              slots[valueSlot] = container[i]
              if (!step()) return
            }
            return
          }
          for (const key of itemsOf(container)) {
            slots[keySlot] = key
            slots[valueSlot] = getKey(container, key)
            if (!step()) return
          }
        },
      }),
    ),
  )
}

function partsOf(type: Type): { readonly key: Type; readonly value: Type } | undefined {
  switch (type.kind) {
    case 'list':
      return { key: types.int, value: type.of }
    case 'map':
      return { key: type.key, value: type.value }
    case 'dyn':
    case 'parameter':
      return { key: types.dyn, value: types.dyn }
    default:
      return undefined
  }
}

function itemsOf(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  if (value instanceof Map || isRecord(value)) return keysOf(value)
  const kind = kindOf(value)
  throw new EvaluationError(`got 'types.${kind.charAt(0).toUpperCase()}${kind.slice(1)}', expected iterable type`)
}

function needBool(walk: Walk, node: Node): void {
  if (node.type.kind === 'bool' || node.type.kind === 'dyn' || node.type.kind === 'parameter') return
  walk.fail(node.offset, `expected type 'bool' but found '${formatType(node.type)}'`)
}

/** Cost of the range and of as many steps as it may have elements. */
const loopCost = ({ range, count }: Loop, start: number, step: Range, end: number): Range =>
  add(range.cost, fixed(start), multiply(count, step), fixed(end))

function quantifier(walk: Walk, name: string, over: Loop, predicate: ASTNode): Node {
  const test = walk.compile(predicate)
  needBool(walk, test)
  const { run } = test
  const shared = { type: types.bool, size: one, offset: over.offset }
  if (name === 'exists_one' || name === 'existsOne') {
    const step = add(test.cost, { min: 1, max: 2 })
    return {
      ...shared,
      cost: loopCost(over, 0, step, 2),
      run(frame) {
        let count = 0
        over.each(frame, () => {
          const value = run(frame)
          if (typeof value !== 'boolean') throw noSuchOverload()
          if (value) {
            count++
            frame.cost += 2
          }
          frame.spend(0)
          return true
        })
        frame.cost += 2
        return count === 1
      },
    }
  }
  const decides = name === 'exists'
  // The condition of the loop, then the accumulator and the test.
  const overhead = decides ? 3 : 2
  const step = add(fixed(overhead), { min: 1, max: 1 + test.cost.max })
  return {
    ...shared,
    cost: loopCost(over, 0, step, 1),
    run(frame) {
      let result = !decides
      let failure: EvaluationError | undefined
      over.each(frame, () => {
        frame.spend(overhead + 1)
        try {
          const value = run(frame)
          if (value === decides) {
            result = decides
            // The loop's condition, which ends it.
            frame.spend(overhead)
            return false
          }
          if (typeof value !== 'boolean') failure ??= noSuchOverload()
        } catch (error) {
          // One that decides later makes up for it.
          if (!(error instanceof EvaluationError)) throw error
          failure ??= error
        }
        return true
      })
      frame.cost++
      if (result !== decides && failure !== undefined) throw failure
      return result
    },
  }
}

/** `filter`, `map`, `transformList`: those elements that pass, or what is made of them. */
function collect(walk: Walk, over: Loop, predicate: ASTNode | undefined, body: ASTNode | undefined): Node {
  const test = predicate === undefined ? undefined : walk.compile(predicate)
  if (test !== undefined) needBool(walk, test)
  const made = body === undefined ? undefined : walk.compile(body)
  const append = add(fixed(2 + listBase), made?.cost ?? one)
  const step = test === undefined ? append : add(test.cost, union(append, one))
  const elementSize = made === undefined ? (over.size ?? sizeOfNode(plainNode(over.element))) : sizeOfNode(made)
  const slotOfElement = made === undefined ? elementRun(walk, over) : made.run
  const testRun = test?.run
  return {
    type: types.listOf(made?.type ?? over.element),
    cost: loopCost(over, listBase, step, 1),
    size: over.count,
    entries: { key: one, value: elementSize },
    offset: over.offset,
    run(frame) {
      const list: unknown[] = []
      over.each(frame, () => {
        if (testRun !== undefined) {
          const value = testRun(frame)
          if (typeof value !== 'boolean') throw noSuchOverload()
          if (!value) {
            frame.spend(0)
            return true
          }
        }
        frame.spend((made === undefined ? 3 : 2) + listBase)
        list.push(slotOfElement(frame))
        return true
      })
      frame.cost++
      return list
    },
  }
}

const plainNode = (type: Type): Node => ({ type, cost: free, offset: 0, run: () => undefined })

/** Reads the loop's variable. */
function elementRun(walk: Walk, over: Loop): Run {
  return walk.variable(over.name)
}

function collectMap(walk: Walk, over: Loop, predicate: ASTNode | undefined, body: ASTNode, isEntry: boolean): Node {
  const test = predicate === undefined ? undefined : walk.compile(predicate)
  if (test !== undefined) needBool(walk, test)
  const made = walk.compile(body)
  const entry = isEntry && made.type.kind === 'map' ? made.type : undefined
  if (isEntry && entry === undefined && made.type.kind !== 'dyn')
    return walk.fail(made.offset, `expected type 'map' but found '${formatType(made.type)}'`)
  const parts = partsOf(over.range.type) ?? { key: types.dyn, value: types.dyn }
  const type = isEntry
    ? types.mapOf(entry?.key ?? types.dyn, entry?.value ?? types.dyn)
    : types.mapOf(parts.key, made.type)
  const insert = add(fixed(isEntry ? 2 : 3), made.cost)
  const step = test === undefined ? insert : add(test.cost, union(insert, one))
  const testRun = test?.run
  const key = walk.variable(over.name)
  return {
    type,
    cost: loopCost(over, mapBase, step, 1),
    size: over.count,
    offset: over.offset,
    run(frame) {
      const map = new Map<unknown, unknown>()
      const put = (at: unknown, value: unknown): void => {
        if (map.has(at)) throw new EvaluationError(`insert failed: key ${String(at)} already exists`)
        map.set(at, value)
      }
      over.each(frame, () => {
        frame.spend(isEntry ? 2 : 3)
        if (testRun !== undefined && testRun(frame) !== true) return true
        const value = made.run(frame)
        if (isEntry) for (const each of keysOf(value)) put(mapKey(each), getKey(value, each))
        else put(mapKey(key(frame)), value)
        return true
      })
      frame.cost++
      return map
    },
  }
}

/** `list.sortBy(x, x.key)` */
function sortBy(walk: Walk, over: Loop, body: ASTNode): Node {
  const made = walk.compile(body)
  const element = walk.variable(over.name)
  const step = add(fixed(2 + listBase), made.cost)
  return {
    type: types.listOf(over.element),
    // Upstream's expansion binds the list, makes a list of keys, and sorts one by the other.
    cost: add(loopCost(over, listBase, step, 24), multiply(fixed(2), multiply(over.count, over.count))),
    size: over.count,
    offset: over.offset,
    run(frame) {
      const pairs: { readonly key: unknown; readonly item: unknown }[] = []
      over.each(frame, () => {
        frame.spend(2 + listBase)
        pairs.push({ key: made.run(frame), item: element(frame) })
        return true
      })
      frame.spend(14 + 2 * pairs.length ** 2)
      return pairs.toSorted((a, b) => compare(a.key, b.key) ?? 0).map(({ item }) => item)
    },
  }
}

/** `o.optMap(x, f(x))`: none stays none. */
function optionalMap(
  walk: Walk,
  receiver: ASTNode,
  variable: ASTNode,
  body: ASTNode,
  isFlat: boolean,
  offset: number,
): Node {
  const target = walk.compile(receiver)
  if (variable.op !== 'id') return walk.fail(variable.start, 'variable name must be a simple identifier')
  const inner = target.type.kind === 'optional' ? target.type.of : types.dyn
  if (target.type.kind !== 'optional' && target.type.kind !== 'dyn')
    return walk.fail(offset, `found no matching overload for 'hasValue' applied to '${formatType(target.type)}.()'`)
  return walk.withVariable(variable.args, { type: inner, isRooted: false }, (slot) => {
    const made = walk.compile(body)
    return {
      type: isFlat ? made.type : types.optionalOf(made.type),
      cost: add(target.cost, target.cost, { min: 1, max: 12 + made.cost.max }),
      offset,
      run(frame) {
        frame.spend(2)
        const value = target.run(frame)
        if (!(value instanceof Optional)) throw noSuchOverload()
        if (!value.hasValue) return value
        frame.slots[slot] = value.value
        const result = made.run(frame)
        return isFlat ? result : Optional.of(result)
      },
    }
  })
}
