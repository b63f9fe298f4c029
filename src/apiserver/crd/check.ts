import { checkRules } from '#api/cel/schema/check-rules.ts'
import { compileRules, type RuleTree } from '#api/cel/schema/rule-tree.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { type FieldError, fieldError } from '#api/meta/status.ts'
import { validateUpdatedValue, validateValue } from '#api/schema/custom/validate.ts'
import type { JsonSchema } from '#api/schema/json-schema.ts'

/** Findings after which rules are not asked: they could meet values of the wrong type or size. */
const blocking: ReadonlySet<FieldError['type']> = new Set([
  'FieldValueNotSupported',
  'FieldValueRequired',
  'FieldValueTooLong',
  'FieldValueTooMany',
  'FieldValueTypeInvalid',
])

type WithStatus = KubeObject & { readonly status?: unknown }

/** What a schema has to say about objects: its limits first, then its rules. Rules are compiled when they are first needed. */
export class SchemaCheck {
  readonly #schema: JsonSchema
  #rules: { readonly tree: RuleTree | undefined } | undefined
  /** Rules broken by what an update left alone, until `warnings` asks. */
  readonly #tolerated = new WeakMap<KubeObject, readonly string[]>()

  constructor(schema: JsonSchema) {
    this.#schema = schema
  }

  created(object: KubeObject): FieldError[] {
    return this.#withRules(validateValue(object, this.#schema, ''), object, undefined)
  }

  updated(next: KubeObject, old: KubeObject): FieldError[] {
    return this.#withRules(validateUpdatedValue(next, old, this.#schema, ''), next, old)
  }

  /** Only the status is held against the schema, and its findings speak of it as the whole, as upstream's do. */
  statusUpdated(next: WithStatus, old: WithStatus): FieldError[] {
    const schema = this.#schema.properties?.status
    if (schema === undefined || next.status === undefined) return this.#withRules([], next, old)
    const errors = validateUpdatedValue(next.status, old.status, schema, '').map((error) => ({
      ...error,
      path: error.path === '' ? 'status' : `status.${error.path}`,
    }))
    return this.#withRules(errors, next, old)
  }

  warnings(object: KubeObject): readonly string[] {
    return this.#tolerated.get(object) ?? []
  }

  #withRules(errors: FieldError[], object: KubeObject, old: KubeObject | undefined): FieldError[] {
    this.#rules ??= { tree: compileRules(this.#schema) }
    const { tree } = this.#rules
    if (tree === undefined) return errors
    if (errors.some(({ type }) => blocking.has(type))) {
      const words =
        'some validation rules were not checked because the object was invalid; correct the existing errors to complete validation'
      return [...errors, fieldError.invalid('<nil>', null, words)]
    }
    const findings = checkRules(tree, object, old)
    if (findings.warnings.length > 0) this.#tolerated.set(object, findings.warnings)
    return [...errors, ...findings.errors]
  }
}
