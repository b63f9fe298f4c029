import type { ASTNode } from '@marcbachmann/cel-js'
import type { Range } from './cost.ts'
import type { Node, Run } from './frame.ts'
import type { Type } from './types.ts'

export interface Variable {
  readonly type: Type
  readonly slot: number
  readonly size?: Range
  readonly isRooted: boolean
}

/** The walk over an expression's tree, as those see it who know one word of the language: macros and selections. */
export interface Walk {
  compile(ast: ASTNode): Node
  /** `has(ast)`. */
  presence(ast: ASTNode): Node
  /** Notes what is wrong and gives a node that fits anywhere, so that more can be found. */
  fail(offset: number, message: string): Node
  /** Within `body` the name is a variable of its own. */
  withVariable<T>(name: string, variable: Omit<Variable, 'slot'>, body: (slot: number) => T): T
  /** Reads a variable that is in scope. */
  variable(name: string): Run
}
