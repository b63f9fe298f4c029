import type { ASTNode } from '@marcbachmann/cel-js'
import { UnsignedInt } from '@marcbachmann/cel-js/evaluator'
import { fixed, free } from './cost.ts'
import type { Node } from './frame.ts'
import type { Type } from './types.ts'
import * as types from './types.ts'
import { textSize, Uint } from './values.ts'

/** What is written out: a text, a number. */
export function literalNode(value: unknown, offset: number): Node {
  const shown = value instanceof UnsignedInt ? new Uint(value.value) : value
  const type = literalType(shown)
  const size = typeof shown === 'string' ? textSize(shown) : shown instanceof Uint8Array ? shown.length : 1
  return { type, cost: free, size: fixed(size), literal: { value: shown }, offset, run: () => shown }
}

function literalType(value: unknown): Type {
  if (value === null) return types.nullType
  if (value instanceof Uint) return types.uint
  if (value instanceof Uint8Array) return types.bytes
  switch (typeof value) {
    case 'string':
      return types.string
    case 'bigint':
      return types.int
    case 'number':
      return types.double
    default:
      return types.bool
  }
}

/** `a.b` as text where it is only names. */
export function pathOf(ast: ASTNode): string | undefined {
  if (ast.op === 'id') return ast.args
  if (ast.op !== '.') return undefined
  const left = pathOf(ast.args[0])
  return left === undefined ? undefined : `${left}.${ast.args[1]}`
}

/** Names that stand for types. */
export const typeNames: Readonly<Record<string, string>> = {
  bool: 'bool',
  int: 'int',
  uint: 'uint',
  double: 'double',
  string: 'string',
  bytes: 'bytes',
  list: 'list',
  map: 'map',
  null_type: 'null_type',
  type: 'type',
  optional_type: 'optional_type',
}

/** How upstream's messages name operators. */
export const operatorNames: Readonly<Record<string, string>> = {
  '==': '_==_',
  '!=': '_!=_',
  '<': '_<_',
  '<=': '_<=_',
  '>': '_>_',
  '>=': '_>=_',
  '+': '_+_',
  '-': '_-_',
  '*': '_*_',
  '/': '_/_',
  '%': '_%_',
  in: '@in',
  '-_': '-_',
  '!_': '!_',
}
