import { type FieldError, fieldError } from '#api/meta/status.ts'
import { isObject } from '#api/schema/json-schema.ts'
import { Failure } from '../compile.ts'
import { equals, Optional } from '../values.ts'
import { toValue } from './convert.ts'
import type { CompiledRule, Rule } from './rule.ts'
import type { RuleTree } from './rule-tree.ts'

/** Cost that one call of a rule may have, and all rules of a request together (apiserver pkg/apis/cel/config.go). */
export const callCostMax = 1_000_000
export const requestCostMax = 10_000_000
const messageBytesMax = 5 * 1024

export interface RuleFindings {
  readonly errors: readonly FieldError[]
  /** Findings on what the request did not change: said, but not held against it. */
  readonly warnings: readonly string[]
}

/**
 * Runs a schema's rules on an object; `old` is what it was before, undefined for a new one. Rules that speak of oldSelf
 * compare with the value that was in the same place, by key in maps and map lists.
 */
export function checkRules(tree: RuleTree, object: unknown, old: unknown): RuleFindings {
  const run = new Run()
  const value = toValue(object, tree.schema)
  const before = old === undefined ? undefined : toValue(old, tree.schema)
  const root: Place = {
    path: '',
    raw: object,
    value,
    old: before,
    same: before === undefined ? undefined : lazily(() => equals(value, before)),
  }
  run.check(tree, root)
  return { errors: run.errors, warnings: run.warnings }
}

/** A value within the object, with what is known about the one before it. */
interface Place {
  readonly path: string
  /** As it came, to be shown. */
  readonly raw: unknown
  readonly value: unknown
  readonly old: unknown
  /** Whether it, or the nearest part around it that can be compared, is as it was. */
  readonly same: (() => boolean) | undefined
}

function lazily(find: () => boolean): () => boolean {
  let known: boolean | undefined
  return () => {
    known ??= find()
    return known
  }
}

class Run {
  readonly errors: FieldError[] = []
  readonly warnings: string[] = []
  #budget = requestCostMax

  /** False when the budget is used up: nothing more is looked at. */
  check(tree: RuleTree, place: Place): boolean {
    if (place.value === undefined || place.value === null) return true
    if (tree.rules.length > 0 && !this.#rules(tree, place)) return false
    if (Array.isArray(place.value)) return tree.items === undefined || this.#items(tree, tree.items, place)
    if (!isObject(place.value)) return true
    const { value, old, raw } = place
    const oldObject = isObject(old) ? old : undefined
    for (const key of Object.keys(value)) {
      const known = tree.properties.get(key)
      const branch = known ?? tree.values
      if (branch === undefined) continue
      const before = oldObject !== undefined && Object.hasOwn(oldObject, key) ? oldObject[key] : undefined
      const isIdentity = place.path === '' && (key === 'apiVersion' || key === 'kind')
      const below: Place = {
        path: known === undefined ? `${place.path}[${key}]` : place.path === '' ? key : `${place.path}.${key}`,
        raw: (raw as Record<string, unknown>)[key],
        value: value[key],
        old: before,
        same: isIdentity ? undefined : this.#correlated(place, value[key], before, oldObject !== undefined),
      }
      if (!this.check(branch, below)) return false
    }
    return true
  }

  #correlated(place: Place, value: unknown, before: unknown, isComparable: boolean): Place['same'] {
    if (!isComparable) return place.same
    return before === undefined ? lazily(() => false) : lazily(() => equals(value, before))
  }

  #items(tree: RuleTree, branch: RuleTree, place: Place): boolean {
    const list = place.value as readonly unknown[]
    const keys = tree.schema['x-kubernetes-list-type'] === 'map' ? tree.schema['x-kubernetes-list-map-keys'] : undefined
    const former = Array.isArray(place.old) && keys !== undefined ? place.old : undefined
    for (const [i, item] of list.entries()) {
      const before = former?.find(
        (other) =>
          isObject(item) && isObject(other) && keys?.every((key) => equals(item[key] ?? null, other[key] ?? null)),
      )
      const below: Place = {
        path: `${place.path}[${i}]`,
        raw: (place.raw as readonly unknown[])[i],
        value: item,
        old: before,
        same: this.#correlated(place, item, before, before !== undefined),
      }
      if (!this.check(branch, below)) return false
    }
    return true
  }

  #rules(tree: RuleTree, place: Place): boolean {
    const at = place.path === '' ? '<nil>' : place.path
    const type = tree.schema.type ?? ''
    const fail = (detail: string): void => {
      this.errors.push(fieldError.invalid(at, type, detail))
    }
    if (this.#budget <= 0) {
      fail('validation failed due to running out of cost budget, no further validation rules will be run')
      return false
    }
    for (const compiled of tree.rules) {
      const { rule, program, usesOldSelf } = compiled
      const hasOld = place.old !== undefined && place.old !== null
      if (usesOldSelf && !hasOld && rule.optionalOldSelf !== true) continue
      const values = [place.value, rule.optionalOldSelf === true ? optional(place.old, hasOld) : place.old]
      let holds: unknown
      try {
        const result = program.run(values, callCostMax)
        holds = result.value
        if (!this.#spend(result.cost, fail)) return false
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        if (!this.#spend(error.cost, fail)) return false
        if (error.isTooCostly) {
          fail(
            `'${error.message}': no further validation rules will be run due to call cost exceeds limit for rule: ${nameOf(rule)}`,
          )
          return false
        }
        fail(
          error.message.startsWith('no such overload')
            ? `'${error.message}': call arguments did not match a supported operator, function or macro signature for rule: ${nameOf(rule)}`
            : `${error.message} evaluating rule: ${nameOf(rule)}`,
        )
        continue
      }
      if (holds === true) continue
      const said = this.#message(compiled, values)
      const where =
        compiled.fieldPath === ''
          ? at
          : place.path === ''
            ? compiled.fieldPath.slice(1)
            : `${place.path}${compiled.fieldPath}`
      if (said.isFatal) {
        this.#report(compiled, place, fieldError.invalid(where, type, said.text))
        return false
      }
      this.#report(compiled, place, findingOf(rule, where, type, place.raw, said.text))
    }
    return true
  }

  /** What the request left as it was is not held against it, unless the rule is about the change. */
  #report({ usesOldSelf }: CompiledRule, { same }: Place, error: FieldError): void {
    if (!usesOldSelf && same?.() === true) this.warnings.push(`${error.path}: ${error.message}`)
    else this.errors.push(error)
  }

  #spend(cost: number, fail: (detail: string) => void): boolean {
    if (cost > this.#budget) {
      fail('validation failed due to running out of cost budget, no further validation rules will be run')
      return false
    }
    this.#budget -= cost
    return true
  }

  #message({ rule, messageProgram }: CompiledRule, values: readonly unknown[]): { text: string; isFatal: boolean } {
    const plain = { text: rule.message?.trim() || `failed rule: ${rule.rule.trim()}`, isFatal: false }
    if (messageProgram === undefined) return plain
    try {
      const { value, cost } = messageProgram.run(values, callCostMax)
      if (cost > this.#budget) {
        const text =
          'messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run'
        return { text, isFatal: true }
      }
      this.#budget -= cost
      const text = typeof value === 'string' ? value.trim() : ''
      const isUsable = text !== '' && !text.includes('\n') && Buffer.byteLength(text) <= messageBytesMax
      return isUsable ? { text, isFatal: false } : plain
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      if (!error.isTooCostly) return plain
      const text = `no further validation rules will be run due to call cost exceeds limit for messageExpression: ${JSON.stringify(rule.messageExpression)}`
      return { text, isFatal: true }
    }
  }
}

function findingOf(rule: Rule, path: string, type: string, raw: unknown, detail: string): FieldError {
  const isContainer = type === 'object' || type === 'array'
  switch (rule.reason) {
    case 'FieldValueForbidden':
      return fieldError.forbidden(path, detail)
    case 'FieldValueRequired':
      return fieldError.required(path, detail)
    case 'FieldValueDuplicate':
      return isContainer
        ? { type: 'FieldValueDuplicate', path, message: 'Duplicate value' }
        : fieldError.duplicate(path, raw)
    default:
      // Whole objects are not shown.
      return isContainer
        ? { type: 'FieldValueInvalid', path, message: `Invalid value: ${detail}` }
        : fieldError.invalid(path, raw, detail)
  }
}

const optional = (value: unknown, has: boolean): Optional => (has ? Optional.of(value) : Optional.none)
const nameOf = (rule: Rule): string => rule.message?.trim() || rule.rule.trim()
