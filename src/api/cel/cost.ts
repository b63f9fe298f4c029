import type { Type } from './types.ts'

/**
 * Cost as upstream counts it (cel-go checker/cost.go, interpreter/runtimecost.go; apiserver pkg/cel/library/cost.go):
 * a unit is about 50 ns of upstream's machine. An estimate has a least and a most; what has no bound is Infinity.
 */
export interface Range {
  readonly min: number
  readonly max: number
}

/** Sizes of what is in a container. */
export interface Entries {
  readonly key: Range
  readonly value: Range
}

/** 2^64-1 of upstream: more than that is only "too much". */
const unboundedFrom = 2 ** 64
const clamp = (n: number): number => (n >= unboundedFrom || Number.isNaN(n) ? Infinity : n)

export const fixed = (n: number): Range => ({ min: n, max: n })
export const free = fixed(0)
export const one = fixed(1)
export const unknownSize: Range = { min: 0, max: Infinity }

export function add(...ranges: readonly Range[]): Range {
  let min = 0
  let max = 0
  for (const range of ranges) {
    min += range.min
    max += range.max
  }
  return { min: clamp(min), max: clamp(max) }
}
/** Nothing times without bound is nothing. */
const product = (a: number, b: number): number => (a === 0 || b === 0 ? 0 : clamp(a * b))
export const multiply = (a: Range, b: Range): Range => ({ min: product(a.min, b.min), max: product(a.max, b.max) })
export const union = (a: Range, b: Range): Range => ({ min: Math.min(a.min, b.min), max: Math.max(a.max, b.max) })
/** Rounded up. */
export const scale = ({ min, max }: Range, factor: number): Range => ({
  min: clamp(Math.ceil(min * factor)),
  max: clamp(Math.ceil(max * factor)),
})

/** Going over a string costs a tenth of a unit a character. */
export const traversal = 0.1
/** A guess: an expression has a part for every four characters. */
export const regexLength = 0.25
export const listBase = 10
export const mapBase = 30

/** Estimated size of a value of the type where nothing better is known; undefined where it has no bound. */
export function sizeOfType(type: Type): Range | undefined {
  if (type.max !== undefined) return { min: 0, max: type.max }
  switch (type.kind) {
    case 'bool':
    case 'int':
    case 'uint':
    case 'double':
    case 'duration':
    case 'timestamp':
    case 'type':
      return one
    case 'optional':
      return sizeOfType(type.of)?.max === 1 ? one : undefined
    default:
      return undefined
  }
}
