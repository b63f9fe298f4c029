import type { CompiledPolicy, Expression } from '#api/cel/admission/policy.ts'
import { Failure } from '#api/cel/compile.ts'
import { callCostMax, requestCostMax } from '#api/cel/schema/check-rules.ts'
import { EvaluationError } from '#api/cel/values.ts'
import type { ValidatingAdmissionPolicySpec } from '#api/gen/admissionregistration-v1.ts'

/** One complaint of a policy. */
export interface Denial {
  readonly message: string
  readonly reason: string
}

/** The values that all expressions of an evaluation speak of; `variables` is filled here. */
export interface PolicyValues {
  readonly object: unknown
  readonly oldObject: unknown
  readonly request: unknown
  readonly namespaceObject: unknown
  readonly params: unknown
  readonly authorizer: unknown
  readonly requestResource: unknown
}

const messageBytesMax = 5 * 1024

/**
 * Evaluates a policy with one set of parameters: no complaint means that the request is all right. An expression that
 * fails is a complaint too, unless the policy says Ignore.
 */
export function evaluatePolicy(
  spec: ValidatingAdmissionPolicySpec,
  policy: CompiledPolicy,
  values: PolicyValues,
): readonly Denial[] {
  const run = new Evaluation(spec, policy, values)
  const isFail = spec.failurePolicy !== 'Ignore'
  const failed = (message: string): Denial[] => (isFail ? [{ message, reason: 'Invalid' }] : [])
  const conditions = run.conditions()
  if (conditions.failure !== undefined) return failed(conditions.failure)
  if (!conditions.match) return []
  const denials: Denial[] = []
  for (const [i, validation] of policy.validations.entries()) {
    const outcome = run.evaluate(validation)
    if (outcome.failure !== undefined) {
      denials.push(...failed(outcome.failure))
      continue
    }
    if (outcome.value === true) continue
    const { message = '', reason = 'Invalid' } = spec.validations?.[i] ?? {}
    const said = run.message(policy.messages[i])
    denials.push({
      message: said || message.trim() || `failed expression: ${validation.source.trim()}`,
      reason,
    })
  }
  for (const annotation of policy.auditAnnotations) {
    const { failure, value } = run.evaluate(annotation)
    if (failure !== undefined) denials.push(...failed(failure))
    else if (value !== null && typeof value !== 'string')
      denials.push(
        ...failed(
          `valueExpression '${annotation.source}' resulted in unsupported return type: ${typeof value}. Return type must be either string or null.`,
        ),
      )
  }
  return denials
}

type Outcome =
  | { readonly value: unknown; readonly failure?: undefined }
  | { readonly value?: undefined; readonly failure: string }

class Evaluation {
  readonly #policy: CompiledPolicy
  readonly #values: readonly unknown[]
  #budget = requestCostMax

  constructor(spec: ValidatingAdmissionPolicySpec, policy: CompiledPolicy, values: PolicyValues) {
    this.#policy = policy
    const variables: Record<string, unknown> = {}
    this.#values = [
      values.object,
      values.oldObject,
      values.request,
      values.namespaceObject,
      values.params,
      values.authorizer,
      values.requestResource,
      variables,
    ]
    for (const [i, expression] of policy.variables.entries()) {
      const name = spec.variables?.[i]?.name
      if (name !== undefined) this.#define(variables, name, expression)
    }
  }

  conditions(): { readonly match: boolean; readonly failure?: string } {
    const failures: string[] = []
    for (const condition of this.#policy.matchConditions) {
      const { value, failure } = this.evaluate(condition)
      if (failure !== undefined) failures.push(failure)
      // One that says no settles it, whatever the others could not say.
      else if (value !== true) return { match: false }
    }
    return failures.length === 0 ? { match: true } : { match: false, failure: failures.join(', ') }
  }

  evaluate({ source, program }: Expression): Outcome {
    try {
      const { value, cost } = program.run(this.#values, Math.min(callCostMax, this.#budget))
      this.#budget -= cost
      return { value }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#budget -= error.cost
      if (error.isTooCostly && this.#budget <= 0)
        return {
          failure: 'validation failed due to running out of cost budget, no further validation rules will be run',
        }
      return { failure: `expression '${source}' resulted in error: ${error.message}` }
    }
  }

  /** What a messageExpression says, if it is fit to be shown. */
  message(expression: Expression | undefined): string {
    if (expression === undefined) return ''
    const { value } = this.evaluate(expression)
    const text = typeof value === 'string' ? value.trim() : ''
    return text.includes('\n') || Buffer.byteLength(text) > messageBytesMax ? '' : text
  }

  /** Evaluated when it is first read, and then kept. */
  #define(variables: Record<string, unknown>, name: string, expression: Expression): void {
    let known: Outcome | undefined
    Object.defineProperty(variables, name, {
      enumerable: true,
      get: () => {
        known ??= this.evaluate(expression)
        if (known.failure === undefined) return known.value
        throw new EvaluationError(`composited variable "${name}" fails to evaluate: ${known.failure}`)
      },
    })
  }
}
