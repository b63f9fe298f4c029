import { type ASTNode, Environment, ParseError } from '@marcbachmann/cel-js'
import { Compiler, type Declarations } from './compiler.ts'
import type { Range } from './cost.ts'
import { Frame } from './frame.ts'
import { CompileError } from './issue.ts'
import type { Type } from './types.ts'
import { CostError, EvaluationError } from './values.ts'

/** An expression, ready to run any number of times. */
export interface Program {
  readonly type: Type
  readonly cost: Range
  /** The variables that it speaks of. */
  readonly references: ReadonlySet<string>
  /** Throws EvaluationError, and CostError above the limit. Values in the order of the declarations. */
  run(values: readonly unknown[], limit: number): { readonly value: unknown; readonly cost: number }
}

/** The expression is well formed, and still can never be evaluated. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError'
}

/** What an evaluation that failed had cost by then. */
export class Failure extends Error {
  readonly cost: number
  constructor(cause: EvaluationError | CostError, cost: number) {
    super(cause.message, { cause })
    this.cost = cost
  }
  get isTooCostly(): boolean {
    return this.cause instanceof CostError
  }
}

/** Only the grammar is the library's: types, costs and evaluation are here, by Kubernetes' rules. */
const grammar = new Environment({
  enableOptionalTypes: true,
  unlistedVariablesAreDyn: true,
  limits: { maxAstNodes: 20_000, maxDepth: 250, maxListElements: 10_000, maxMapEntries: 10_000, maxCallArguments: 64 },
})

/** Parses and checks an expression. Throws CompileError in upstream's words, and ProgramError. */
export function compile(source: string, declarations: Declarations): Program {
  const compiler = new Compiler(source, declarations)
  const node = compiler.compile(parse(source))
  if (compiler.issues.length > 0) throw new CompileError(source, compiler.issues)
  if (compiler.failure !== undefined) throw new ProgramError(compiler.failure)
  const { slotCount } = compiler
  return {
    type: node.type,
    cost: node.cost,
    references: compiler.references,
    run(values, limit) {
      const slots = new Array<unknown>(slotCount)
      for (let i = 0; i < values.length; i++) slots[i] = values[i]
      const frame = new Frame(slots, limit)
      try {
        const value = node.run(frame)
        if (frame.cost > limit) throw new CostError()
        return { value, cost: frame.cost }
      } catch (error) {
        if (error instanceof EvaluationError || error instanceof CostError) throw new Failure(error, frame.cost)
        // Too deep for the stack: as if it had been too costly.
        if (error instanceof RangeError) throw new Failure(new CostError(), limit)
        throw error
      }
    },
  }
}

/** Definitions say the same rules at many places and in several versions. Trees are only read. */
const trees = new Map<string, ASTNode>()
const treesMax = 128

function parse(source: string): ASTNode {
  const known = trees.get(source)
  if (known !== undefined) return known
  try {
    const { ast } = grammar.parse(source)
    if (trees.size >= treesMax) trees.clear()
    trees.set(source, ast)
    return ast
  } catch (error) {
    if (!(error instanceof ParseError)) throw error
    const offset = error.node?.start ?? error.range?.start ?? source.length
    throw new CompileError(source, [{ offset, message: `Syntax error: ${error.summary ?? error.message}` }], {
      cause: error,
    })
  }
}
