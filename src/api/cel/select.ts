import { add, fixed, free, one } from './cost.ts'
import type { Node, Run } from './frame.ts'
import * as types from './types.ts'
import { formatType, type Type } from './types.ts'
import { EvaluationError, getKey, hasKey, isRecord, kindOf, noSuchKey, noSuchOverload, Optional } from './values.ts'
import type { Walk } from './walk.ts'

interface Member {
  readonly type: Type
  /** The key in the value. */
  readonly property: string
}

/** What `.field` leads to in a value of the type; undefined where there is nothing of that name. */
function memberOf(type: Type, field: string): Member | undefined {
  switch (type.kind) {
    case 'object':
      return type.fields.get(field)
    case 'map':
      return { type: type.value, property: field }
    case 'dyn':
    case 'parameter':
      return { type: types.dyn, property: field }
    default:
      return undefined
  }
}

function noMember(walk: Walk, operand: Node, field: string, offset: number): Node {
  const isObject = operand.type.kind === 'object'
  return walk.fail(
    offset,
    isObject ? `undefined field '${field}'` : `type '${formatType(operand.type)}' does not support field selection`,
  )
}

const isContainer = (value: unknown): boolean => value instanceof Map || isRecord(value)

function read(value: unknown, property: string): unknown {
  if (typeof value === 'object' && value !== null) {
    const found = value instanceof Map ? value.get(property) : (value as Record<string, unknown>)[property]
    if (found !== undefined && hasKey(value, property)) return found
  }
  throw noSuchKey(property)
}

/** `a.b` */
export function selectNode(walk: Walk, operand: Node, field: string, offset: number, start: number): Node {
  if (operand.type.kind === 'optional') return optionalSelect(walk, operand, operand.type.of, field, offset)
  const member = memberOf(operand.type, field)
  if (member === undefined) return noMember(walk, operand, field, offset)
  const { run } = operand
  const { property } = member
  const isCounted = operand.type.kind !== 'dyn'
  return {
    type: member.type,
    cost: isCounted ? add(operand.cost, one) : operand.cost,
    isRooted: operand.isRooted ?? false,
    ...(operand.type.kind === 'map' && operand.entries ? { size: operand.entries.value } : {}),
    offset: start,
    run(frame) {
      frame.cost++
      return read(run(frame), property)
    },
  }
}

/** `has(a.b)` costs what `a` costs. */
export function presenceNode(walk: Walk, operand: Node, field: string, offset: number): Node {
  const { type } = operand
  const member = memberOf(type.kind === 'optional' ? type.of : type, field)
  if (member === undefined) return noMember(walk, operand, field, offset)
  const { property } = member
  const { run } = operand
  return {
    type: types.bool,
    cost: add(operand.cost, free),
    size: one,
    offset,
    run(frame) {
      const value = run(frame)
      if (value instanceof Optional) return value.hasValue && isContainer(value.value) && hasKey(value.value, property)
      if (!isContainer(value)) throw noSuchOverload()
      return hasKey(value, property)
    },
  }
}

/** `a.?b` */
export function absentIsNone(walk: Walk, operand: Node, field: string, offset: number): Node {
  const { type } = operand
  return optionalSelect(walk, operand, type.kind === 'optional' ? type.of : type, field, offset)
}

function optionalSelect(walk: Walk, operand: Node, type: Type, field: string, offset: number): Node {
  const member = memberOf(type, field)
  if (member === undefined) return noMember(walk, { ...operand, type }, field, offset)
  const { property } = member
  const { run } = operand
  return {
    type: types.optionalOf(member.type),
    cost: add(operand.cost, one),
    offset,
    run(frame) {
      const found = lookUp(run(frame), property)
      if (found.hasValue) frame.cost++
      return found
    },
  }
}

/** The optional of what a key leads to, through an optional if it is one. */
function lookUp(container: unknown, key: unknown): Optional {
  let value = container
  if (value instanceof Optional) {
    if (!value.hasValue) return value
    value = value.value
  }
  if (Array.isArray(value)) {
    const index = indexOf(key)
    return index >= 0 && index < value.length ? Optional.of(value[index]) : Optional.none
  }
  if (!isContainer(value)) throw noSuchOverload()
  return hasKey(value, key) ? Optional.of(getKey(value, key)) : Optional.none
}

function indexOf(key: unknown): number {
  if (typeof key === 'bigint') return Number(key)
  if (typeof key === 'number' && Number.isInteger(key)) return key
  throw new EvaluationError(`unsupported index type '${kindOf(key)}' in list`)
}

/** `a[b]` and `a[?b]` */
export function indexNode(walk: Walk, operand: Node, key: Node, offset: number, isOptional: boolean): Node {
  const isThrough = operand.type.kind === 'optional'
  const type = operand.type.kind === 'optional' ? operand.type.of : operand.type
  const found = elementOf(type, key.type)
  if (found === undefined) {
    const applied = `${formatType(operand.type)}, ${formatType(key.type)}`
    return walk.fail(
      offset,
      `found no matching overload for '${isOptional ? '_[?_]' : '_[_]'}' applied to '(${applied})'`,
    )
  }
  const cost = add(operand.cost, key.cost, fixed(1))
  const [container, index] = [operand.run, key.run]
  if (isOptional || isThrough) {
    const run: Run = (frame) => {
      frame.cost++
      return lookUp(container(frame), index(frame))
    }
    return { type: types.optionalOf(found), cost, offset, run }
  }
  const size = operand.entries?.value
  return {
    type: found,
    cost,
    isRooted: operand.isRooted ?? false,
    ...(size ? { size } : {}),
    offset,
    run(frame) {
      frame.cost++
      const value = container(frame)
      const at = index(frame)
      if (Array.isArray(value)) {
        const i = indexOf(at)
        if (i < 0 || i >= value.length) throw new EvaluationError(`index out of bounds: ${i}`)
        return value[i]
      }
      if (!isContainer(value)) throw noSuchOverload()
      if (!hasKey(value, at)) throw noSuchKey(at)
      return getKey(value, at)
    },
  }
}

function elementOf(type: Type, key: Type): Type | undefined {
  const isInt = key.kind === 'int' || key.kind === 'dyn'
  switch (type.kind) {
    case 'list':
      return isInt ? type.of : undefined
    case 'map':
      return types.isAssignable(key, type.key, new Map()) ? type.value : undefined
    case 'dyn':
    case 'parameter':
      return types.dyn
    default:
      return undefined
  }
}
