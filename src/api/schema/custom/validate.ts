import { type FieldError, fieldError } from '#api/meta/status.ts'
import { isObject, itemsOf, type JsonSchema, valuesOf } from '#api/schema/json-schema.ts'
import { isFormat } from './formats.ts'
import { compilePattern } from './pattern.ts'

/** Checks a value against a structural schema. Errors in upstream's words; `path` is where the value is (`spec`). */
export function validateValue(value: unknown, schema: JsonSchema, path: string): FieldError[] {
  const errors: FieldError[] = []
  check(value, schema, path, errors)
  return errors
}

/**
 * The same for an update: what has not changed is not judged again, so that a stricter schema does not lock up objects
 * that are there already.
 */
export function validateUpdatedValue(next: unknown, old: unknown, schema: JsonSchema, path: string): FieldError[] {
  const errors: FieldError[] = []
  check(next, schema, path, errors, old)
  return errors
}

/** As upstream: what comes after so many findings helps nobody, and a hostile object has millions. */
const errorsMax = 100

function check(value: unknown, schema: JsonSchema, path: string, errors: FieldError[], old?: unknown): void {
  if (errors.length >= errorsMax) return
  if (old !== undefined && same(value, old)) return
  if (value === null && schema.nullable === true) return
  if (!checkType(value, schema, path, errors)) return
  if (schema.enum !== undefined && !schema.enum.some((allowed) => same(allowed, value)))
    errors.push(fieldError.notSupported(path, value, schema.enum.map(String)))
  if (typeof value === 'string') checkString(value, schema, path, errors)
  else if (typeof value === 'number') checkNumber(value, schema, path, errors)
  else if (Array.isArray(value)) checkArray(value, schema, path, errors, old)
  else if (isObject(value)) checkObject(value, schema, path, errors, old)
  checkJunctors(value, schema, path, errors)
}

function nameOfType(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number'
  return typeof value
}

/** False when nothing more can be said about the value. */
function checkType(value: unknown, schema: JsonSchema, path: string, errors: FieldError[]): boolean {
  const got = nameOfType(value)
  if (schema['x-kubernetes-int-or-string'] === true) {
    if (got === 'integer' || got === 'string') return true
    errors.push(wrongType(path, got, 'integer,string'))
    return false
  }
  const { type } = schema
  if (type === undefined || type === '' || type === got || (type === 'number' && got === 'integer')) return true
  errors.push(wrongType(path, got, type))
  return false
}

const wrongType = (path: string, got: string, type: string): FieldError =>
  fieldError.typeInvalid(path, got, `${path} in body must be of type ${type}: ${JSON.stringify(got)}`)

function checkString(value: string, schema: JsonSchema, path: string, errors: FieldError[]): void {
  const length = schema.minLength !== undefined || schema.maxLength !== undefined ? [...value].length : 0
  if (schema.maxLength !== undefined && length > schema.maxLength)
    errors.push(fieldError.tooLong(path, schema.maxLength))
  if (schema.minLength !== undefined && length < schema.minLength)
    errors.push(fieldError.invalid(path, value, `${path} in body should be at least ${schema.minLength} chars long`))
  if (schema.pattern !== undefined && compilePattern(schema.pattern)?.test(value) === false)
    errors.push(fieldError.invalid(path, value, `${path} in body should match '${schema.pattern}'`))
  if (schema.format !== undefined && !isFormat(schema.format, value))
    errors.push(
      fieldError.invalid(path, value, `${path} in body must be of type ${schema.format}: ${JSON.stringify(value)}`),
    )
}

function checkNumber(value: number, schema: JsonSchema, path: string, errors: FieldError[]): void {
  const { minimum, maximum, multipleOf } = schema
  const wrong = (words: string): number => errors.push(fieldError.invalid(path, value, `${path} in body ${words}`))
  if (minimum !== undefined) {
    if (schema.exclusiveMinimum === true ? value <= minimum : value < minimum)
      wrong(`should be greater than ${schema.exclusiveMinimum === true ? '' : 'or equal to '}${minimum}`)
  }
  if (maximum !== undefined) {
    if (schema.exclusiveMaximum === true ? value >= maximum : value > maximum)
      wrong(`should be less than ${schema.exclusiveMaximum === true ? '' : 'or equal to '}${maximum}`)
  }
  if (multipleOf !== undefined && multipleOf !== 0 && !Number.isInteger(value / multipleOf))
    wrong(`should be a multiple of ${multipleOf}`)
  if (schema.format === 'int32' && (value | 0) !== value)
    wrong(`must be of type int32: ${JSON.stringify(String(value))}`)
}

function checkArray(
  value: readonly unknown[],
  schema: JsonSchema,
  path: string,
  errors: FieldError[],
  old: unknown,
): void {
  if (schema.maxItems !== undefined && value.length > schema.maxItems)
    errors.push(fieldError.tooMany(path, value.length, schema.maxItems))
  if (schema.minItems !== undefined && value.length < schema.minItems)
    errors.push(fieldError.invalid(path, value.length, `${path} in body should have at least ${schema.minItems} items`))
  const items = itemsOf(schema)
  if (items !== undefined) {
    const before = formerItems(old, schema)
    for (const [i, item] of value.entries())
      check(item, items, `${path}[${i}]`, errors, before?.get(identityOf(item, schema)))
  }
  checkUnique(value, schema, path, errors)
}

/** Elements of a set, and the keys of a map list, may come only once. */
function checkUnique(value: readonly unknown[], schema: JsonSchema, path: string, errors: FieldError[]): void {
  const listType = schema['x-kubernetes-list-type']
  if (listType !== 'set' && listType !== 'map') return
  const seen = new Set<string>()
  for (const [i, item] of value.entries()) {
    const text = identityOf(item, schema)
    if (seen.has(text) && errors.length < errorsMax)
      errors.push(fieldError.duplicate(`${path}[${i}]`, JSON.parse(text)))
    seen.add(text)
  }
}

/** What makes an element of a set or map list that element, as text. */
function identityOf(item: unknown, schema: JsonSchema): string {
  const keys = schema['x-kubernetes-list-map-keys'] ?? []
  const isKeyed = schema['x-kubernetes-list-type'] === 'map' && isObject(item)
  return stable(isKeyed ? Object.fromEntries(keys.map((key) => [key, item[key]])) : item)
}

/** The elements that a map list had before, by their keys; other lists are judged whole. */
function formerItems(old: unknown, schema: JsonSchema): Map<string, unknown> | undefined {
  if (!Array.isArray(old) || schema['x-kubernetes-list-type'] !== 'map') return undefined
  return new Map(old.map((item) => [identityOf(item, schema), item]))
}

function checkObject(
  value: Record<string, unknown>,
  schema: JsonSchema,
  path: string,
  errors: FieldError[],
  old: unknown,
): void {
  const below = (key: string): string => (path === '' ? key : `${path}.${key}`)
  const count = Object.keys(value).length
  if (schema.maxProperties !== undefined && count > schema.maxProperties)
    errors.push(fieldError.tooMany(path, count, schema.maxProperties))
  if (schema.minProperties !== undefined && count < schema.minProperties)
    errors.push(
      fieldError.invalid(path, count, `${path} in body should have at least ${schema.minProperties} properties`),
    )
  for (const name of schema.required ?? [])
    if (!Object.hasOwn(value, name)) errors.push(fieldError.required(below(name)))
  const { properties } = schema
  const values = valuesOf(schema)
  for (const key of Object.keys(value)) {
    const inner = properties !== undefined && Object.hasOwn(properties, key) ? properties[key] : values
    const former = isObject(old) && Object.hasOwn(old, key) ? old[key] : undefined
    if (inner !== undefined) check(value[key], inner, below(key), errors, former)
  }
}

function checkJunctors(value: unknown, schema: JsonSchema, path: string, errors: FieldError[]): void {
  const matches = (nested: JsonSchema): boolean => validateValue(value, nested, path).length === 0
  const wrong = (words: string): number =>
    errors.push(fieldError.invalid(path, value, `${JSON.stringify(path)} ${words}`))
  if (schema.allOf !== undefined) {
    const before = errors.length
    for (const nested of schema.allOf) check(value, nested, path, errors)
    if (errors.length > before) wrong('must validate all the schemas (allOf)')
  }
  if (schema.anyOf !== undefined && schema.anyOf.length > 0 && !schema.anyOf.some(matches)) {
    wrong('must validate at least one schema (anyOf)')
    errors.push(...nearest(value, schema.anyOf, path))
  }
  if (schema.oneOf !== undefined && schema.oneOf.length > 0) {
    const count = schema.oneOf.filter(matches).length
    if (count === 0) {
      wrong('must validate one and only one schema (oneOf). Found none valid')
      errors.push(...nearest(value, schema.oneOf, path))
    } else if (count > 1) wrong(`must validate one and only one schema (oneOf). Found ${count} valid alternatives`)
  }
  if (schema.not !== undefined && matches(schema.not)) wrong('must not validate the schema (not)')
}

/** The findings of the alternative that fits best, which is the one with the most fields as it wants them. */
function nearest(value: unknown, schemas: readonly JsonSchema[], path: string): FieldError[] {
  const all = schemas.map((schema) => ({
    findings: validateValue(value, schema, path),
    fits: fittingFields(value, schema, path),
  }))
  const best = all.reduce((one, other) => {
    if (other.fits !== one.fits) return other.fits > one.fits ? other : one
    return other.findings.length < one.findings.length ? other : one
  })
  return best.findings
}

function fittingFields(value: unknown, { properties = {} }: JsonSchema, path: string): number {
  if (!isObject(value)) return 0
  const isFit = ([name, below]: [string, JsonSchema]): boolean =>
    Object.hasOwn(value, name) && validateValue(value[name], below, path).length === 0
  return Object.entries(properties).filter(isFit).length
}

const same = (a: unknown, b: unknown): boolean => a === b || (typeof a === 'object' && stable(a) === stable(b))

/** JSON with the keys in order. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    isObject(part) ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1))) : part,
  )
}
