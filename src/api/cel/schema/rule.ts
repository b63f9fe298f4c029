import type { JsonSchema } from '#api/schema/json-schema.ts'
import { compile, type Program, ProgramError } from '../compile.ts'
import { CompileError } from '../issue.ts'
import { kubernetesFunctions } from '../library/library.ts'
import { optionalOf, type Type } from '../types.ts'

/** One of `x-kubernetes-validations` (apiextensions.k8s.io/v1 ValidationRule). */
export interface Rule {
  readonly rule: string
  readonly message?: string
  readonly messageExpression?: string
  readonly reason?: string
  readonly fieldPath?: string
  readonly optionalOldSelf?: boolean
}

export const rulesOf = (schema: JsonSchema): readonly Rule[] =>
  (schema['x-kubernetes-validations'] ?? []) as unknown as readonly Rule[]

export interface CompiledRule {
  readonly rule: Rule
  readonly program: Program
  readonly usesOldSelf: boolean
  readonly messageProgram: Program | undefined
  /** Where findings are shown, below the value: `.spec.name`. */
  readonly fieldPath: string
}

/** What is wrong with a rule; upstream's words. */
export interface RuleProblem {
  readonly field: 'rule' | 'messageExpression'
  readonly detail: string
}

/** Compiles one rule for values of a type. Both the rule and its messageExpression may have a problem. */
export function compileRule(rule: Rule, self: Type): CompiledRule | RuleProblem {
  const variables = new Map<string, Type>([
    ['self', self],
    ['oldSelf', rule.optionalOldSelf === true ? optionalOf(self) : self],
  ])
  const declarations = { variables, functions: kubernetesFunctions }
  let program: Program
  try {
    program = compile(rule.rule, declarations)
  } catch (error) {
    return { field: 'rule', detail: detailOf(error, 'compilation', 'program') }
  }
  if (program.type.kind !== 'bool') return { field: 'rule', detail: 'cel expression must evaluate to a bool' }
  let messageProgram: Program | undefined
  if (rule.messageExpression) {
    try {
      messageProgram = compile(rule.messageExpression, declarations)
    } catch (error) {
      return {
        field: 'messageExpression',
        detail: detailOf(error, 'messageExpression compilation', 'messageExpression'),
      }
    }
    if (messageProgram.type.kind !== 'string')
      return { field: 'messageExpression', detail: 'messageExpression must evaluate to a string' }
  }
  const usesOldSelf = program.references.has('oldSelf')
  return { rule, program, usesOldSelf, messageProgram, fieldPath: rule.fieldPath ?? '' }
}

function detailOf(error: unknown, compilation: string, program: string): string {
  if (error instanceof CompileError) return `${compilation} failed: ${error.message}`
  if (error instanceof ProgramError) return `${program} instantiation failed: ${error.message}`
  throw error
}

export const isProblem = (compiled: CompiledRule | RuleProblem): compiled is RuleProblem => 'detail' in compiled
