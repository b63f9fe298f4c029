import { itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'
import type { Type } from '../types.ts'
import { escapeName } from './escape.ts'
import { type CompiledRule, compileRule, isProblem, rulesOf } from './rule.ts'
import { typeOfSchema } from './schema-type.ts'

/** The rules of a schema, where they are: only branches that lead to a rule. */
export interface RuleTree {
  readonly schema: JsonSchema
  readonly rules: readonly CompiledRule[]
  readonly properties: ReadonlyMap<string, RuleTree>
  readonly items: RuleTree | undefined
  readonly values: RuleTree | undefined
}

/** Compiles every rule of a schema that was accepted. Undefined: it has none. */
export function compileRules(schema: JsonSchema): RuleTree | undefined {
  return tree(schema, typeOfSchema(schema, true)?.type, 'self')
}

function tree(schema: JsonSchema, type: Type | undefined, name: string): RuleTree | undefined {
  const properties = new Map<string, RuleTree>()
  for (const [property, below] of Object.entries(schema.properties ?? {})) {
    const branch = tree(below, typeOfProperty(type, property, below, `${name}.${property}`), `${name}.${property}`)
    if (branch !== undefined) properties.set(property, branch)
  }
  const items = itemsOf(schema)
  const values = valuesOf(schema)
  const ofItems = items && tree(items, type?.kind === 'list' ? type.of : undefined, `${name}.@idx`)
  const ofValues = values && tree(values, type?.kind === 'map' ? type.value : undefined, `${name}.@elem`)
  const rules = type === undefined ? [] : compileAll(schema, type)
  if (rules.length === 0 && properties.size === 0 && ofItems === undefined && ofValues === undefined) return undefined
  return { schema, rules, properties, items: ofItems, values: ofValues }
}

/** The type of a property: from its parent's, or by itself where an expression has no name for it. */
export function typeOfProperty(
  parent: Type | undefined,
  property: string,
  schema: JsonSchema,
  name: string,
): Type | undefined {
  const escaped = escapeName(property)
  const known = escaped !== undefined && parent?.kind === 'object' ? parent.fields.get(escaped)?.type : undefined
  return known ?? typeOfSchema(schema, schema['x-kubernetes-embedded-resource'] === true, name)?.type
}

/** Rules that no longer compile were refused when they came; what is stored from before then is left out. */
const compileAll = (schema: JsonSchema, type: Type): CompiledRule[] =>
  rulesOf(schema).flatMap((rule) => {
    const compiled = compileRule(rule, type)
    return isProblem(compiled) ? [] : [compiled]
  })
