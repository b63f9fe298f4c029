import { createHash } from 'node:crypto'
import { type FieldError, fieldError } from '#api/meta/status.ts'
import { itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'
import type { Type } from '../types.ts'
import { isFieldPath } from './field-path.ts'
import { type CompiledRule, compileRule, isProblem, type Rule, rulesOf } from './rule.ts'
import { typeOfProperty } from './rule-tree.ts'
import { requestBytesMax, type SchemaType, typeOfSchema } from './schema-type.ts'

/** Cost that one rule may have at the most, over all places where it applies, and all rules of a schema together. */
const ruleCostMax = 10_000_000
const schemaCostMax = 100_000_000
/** Rules named as those that made a schema too costly. */
const namedMax = 4

const reasons = ['FieldValueDuplicate', 'FieldValueForbidden', 'FieldValueInvalid', 'FieldValueRequired']

/**
 * What is wrong with the rules of a custom resource's schema, in upstream's words: their form, whether they compile, and
 * whether they may cost too much. `path` is where the schema is.
 */
export function definitionRuleErrors(schema: JsonSchema, path: string): FieldError[] {
  const digest = digestOf(schema)
  if (right.has(digest)) return []
  const survey = new Survey()
  survey.visit(schema, {
    path,
    type: undefined,
    name: 'self',
    isWithin: false,
    isRoot: true,
    count: 1,
    uncorrelated: undefined,
  })
  const findings = survey.findings(path)
  if (findings.length === 0) rememberRight([digest])
  return findings
}

/** Schemas whose rules were compiled before and found right: the same ones come with every update, and with the server. */
const right = new Set<string>()
const rightMax = 1000

export const digestOf = (schema: JsonSchema): string =>
  createHash('sha256').update(JSON.stringify(schema)).digest('hex')

/** Takes the rules of these schemas (digests) for right without looking: they were looked at when they were made. */
export function rememberRight(digests: readonly string[]): void {
  if (right.size + digests.length > rightMax) right.clear()
  for (const digest of digests) right.add(digest)
}

interface Place {
  readonly path: string
  /** Known once a rule above needed it. */
  readonly type: Type | undefined
  readonly name: string
  /** Whether there is a rule here or above. */
  readonly isWithin: boolean
  readonly isRoot: boolean
  /** How often it can come in an object; undefined where no limit says. */
  readonly count: number | undefined
  /** The first list above whose elements cannot be found again in an older object. */
  readonly uncorrelated: string | undefined
}

class Survey {
  readonly #errors: FieldError[] = []
  readonly #costs: { readonly path: string; readonly cost: number }[] = []
  #total = 0

  findings(path: string): FieldError[] {
    if (this.#total <= schemaCostMax) return this.#errors
    const costly = this.#costs.filter(({ cost }) => cost >= schemaCostMax / 100).toSorted((a, b) => b.cost - a.cost)
    const named = costly
      .slice(0, namedMax)
      .map((each) =>
        fieldError.forbidden(
          each.path,
          'contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema',
        ),
      )
    const what = 'x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema'
    return [...this.#errors, ...named, fieldError.forbidden(path, tooCostly(what, this.#total, schemaCostMax))]
  }

  /** False where the form of a rule, here or below, is wrong: then those above are not compiled. */
  visit(schema: JsonSchema, place: Place): boolean {
    const rules = rulesOf(schema)
    const isWithin = place.isWithin || rules.length > 0
    const type = place.type ?? (isWithin ? this.#typeOf(schema, place)?.type : undefined)
    const { path, name, uncorrelated } = place
    let isWell = true
    const count = this.#countBelow(schema, place.count)
    const go = (
      below: JsonSchema,
      at: string,
      known: Type | undefined,
      word: string,
      lost: string | undefined,
    ): void => {
      const next = {
        path: at,
        type: known,
        name: `${name}.${word}`,
        isWithin,
        isRoot: false,
        count,
        uncorrelated: lost,
      }
      if (!this.visit(below, next)) isWell = false
    }
    const values = valuesOf(schema)
    if (values !== undefined)
      go(values, `${path}.additionalProperties`, type?.kind === 'map' ? type.value : undefined, '@elem', uncorrelated)
    for (const [property, below] of Object.entries(schema.properties ?? {})) {
      const known = type && typeOfProperty(type, property, below, `${name}.${property}`)
      go(below, `${path}.properties[${property}]`, known, property, uncorrelated)
    }
    const items = itemsOf(schema)
    if (items !== undefined) {
      const lost = uncorrelated ?? (schema['x-kubernetes-list-type'] === 'map' ? undefined : path)
      go(items, `${path}.items`, type?.kind === 'list' ? type.of : undefined, '@idx', lost)
    }
    for (const [i, rule] of rules.entries())
      if (!this.#checkForm(rule, schema, `${path}.x-kubernetes-validations[${i}]`)) isWell = false
    if (!isWell || type === undefined) return isWell
    const times = place.count ?? Math.floor(requestBytesMax / ((this.#typeOf(schema, place)?.minBytes ?? 0) + 1))
    for (const [i, rule] of rules.entries())
      this.#compile(rule, type, times, `${path}.x-kubernetes-validations[${i}]`, uncorrelated)
    return true
  }

  #typeOf(schema: JsonSchema, { isRoot, name }: Place): SchemaType | undefined {
    return typeOfSchema(schema, isRoot || schema['x-kubernetes-embedded-resource'] === true, name)
  }

  #countBelow(schema: JsonSchema, count: number | undefined): number | undefined {
    if (count === undefined) return undefined
    if (schema.type === 'array') return schema.maxItems === undefined ? undefined : count * schema.maxItems
    if (schema.type !== 'object' || schema.additionalProperties === undefined) return count
    return schema.maxProperties === undefined ? undefined : count * schema.maxProperties
  }

  #checkForm(rule: Rule, schema: JsonSchema, at: string): boolean {
    const before = this.#errors.length
    const { message = '', messageExpression = '', reason, fieldPath = '' } = rule
    const text = (rule.rule ?? '').trim()
    const said = message.trim()
    const errors = this.#errors
    if (text === '') errors.push(fieldError.required(`${at}.rule`, 'rule is not specified'))
    else if (message !== '' && said === '')
      errors.push(fieldError.invalid(`${at}.message`, message, 'must be non-empty if specified'))
    else if (hasLineBreak(said))
      errors.push(fieldError.invalid(`${at}.message`, message, 'must not contain line breaks'))
    else if (hasLineBreak(text) && said === '')
      errors.push(fieldError.required(`${at}.message`, 'message must be specified if rule contains line breaks'))
    if (messageExpression !== '' && messageExpression.trim() === '')
      errors.push(fieldError.required(`${at}.messageExpression`, 'messageExpression must be non-empty if specified'))
    if (reason !== undefined && !reasons.includes(reason))
      errors.push(fieldError.notSupported(`${at}.reason`, reason, reasons))
    if (fieldPath !== '') {
      if (fieldPath.trim() === '')
        errors.push(fieldError.invalid(`${at}.fieldPath`, fieldPath, 'must be non-empty if specified'))
      if (hasLineBreak(fieldPath))
        errors.push(fieldError.invalid(`${at}.fieldPath`, fieldPath, 'must not contain line breaks'))
      if (!isFieldPath(fieldPath, schema))
        errors.push(fieldError.invalid(`${at}.fieldPath`, fieldPath, 'must be a valid path'))
    }
    return errors.length === before
  }

  #compile(rule: Rule, type: Type, times: number, at: string, uncorrelated: string | undefined): void {
    const compiled = compileRule(rule, type)
    if (isProblem(compiled)) {
      const message = `Invalid value: ${goForm(rule)}: ${compiled.detail}`
      this.#errors.push({ type: 'FieldValueInvalid', path: `${at}.${compiled.field}`, message })
      return
    }
    this.#count(compiled, times, at)
    if (compiled.usesOldSelf && uncorrelated !== undefined) {
      const words = `oldSelf cannot be used on the uncorrelatable portion of the schema within ${uncorrelated}`
      this.#errors.push(fieldError.invalid(`${at}.rule`, rule.rule, words))
    } else if (!compiled.usesOldSelf && rule.optionalOldSelf !== undefined) {
      const words = 'may not be set if oldSelf is not used in rule'
      this.#errors.push(fieldError.invalid(`${at}.optionalOldSelf`, rule.optionalOldSelf, words))
    }
  }

  #count({ program, messageProgram }: CompiledRule, times: number, at: string): void {
    const cost = program.cost.max === 0 ? 0 : program.cost.max * times
    this.#observe(`${at}.rule`, 'estimated rule cost', cost)
    if (messageProgram !== undefined)
      this.#observe(`${at}.messageExpression`, 'estimated messageExpression cost', messageProgram.cost.max)
  }

  #observe(path: string, what: string, cost: number): void {
    if (cost > ruleCostMax) this.#errors.push(fieldError.forbidden(path, tooCostly(what, cost, ruleCostMax)))
    this.#total += cost
    this.#costs.push({ path, cost })
  }
}

/** A rule as upstream's messages print it: Go's field names, and what HTML would take for its own escaped. */
function goForm(rule: Rule): string {
  const { message = '', messageExpression = '', reason = null, fieldPath = '', optionalOldSelf = null } = rule
  const text = JSON.stringify({
    Rule: rule.rule,
    Message: message,
    MessageExpression: messageExpression,
    Reason: reason,
    FieldPath: fieldPath,
    OptionalOldSelf: optionalOldSelf,
  })
  return text.replace(/[<>&]/g, (char) => `\\u00${char.charCodeAt(0).toString(16)}`)
}

const hasLineBreak = (text: string): boolean => /[\n\r]/.test(text)

function tooCostly(what: string, cost: number, limit: number): string {
  const times = cost / limit
  const factor = times > 100 ? 'more than 100x' : times < 1.5 ? `${times.toFixed(6)}x` : `${times.toFixed(1)}x`
  return `${what} exceeds budget by factor of ${factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)`
}
