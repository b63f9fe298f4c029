import { type FieldError, fieldError } from '#api/meta/status.ts'
import { compilePattern } from './custom/pattern.ts'
import { itemsOf, type JsonSchema, valuesOf } from './json-schema.ts'

/**
 * Whether a custom resource's schema is structural: every value has a type, and what the logical parts (allOf, anyOf,
 * oneOf, not) say is only about values. Pure; errors in upstream's words, paths below `path`
 * (`spec.validation.openAPIV3Schema`).
 */
export function structuralErrors(schema: JsonSchema, path: string): FieldError[] {
  const errors: FieldError[] = []
  if (schema.type === undefined || schema.type === '')
    errors.push(fieldError.required(`${path}.type`, 'must not be empty at the root'))
  else if (schema.type !== 'object')
    errors.push(fieldError.invalid(`${path}.type`, schema.type, 'must be object at the root'))
  checkMetadata(schema, path, errors)
  checkLevel(schema, path, errors)
  return errors
}

const types = ['array', 'boolean', 'integer', 'number', 'object', 'string']
const unsupported = ['additionalItems', 'definitions', 'dependencies', 'patternProperties', 'id', '$ref', '$schema']

function checkLevel(schema: JsonSchema, path: string, errors: FieldError[]): void {
  checkWords(schema, path, errors)
  checkExtensions(schema, path, errors)
  const { properties, additionalProperties } = schema
  if (additionalProperties === false)
    errors.push(fieldError.forbidden(`${path}.additionalProperties`, 'additionalProperties cannot be set to false'))
  if (additionalProperties !== undefined && properties !== undefined && Object.keys(properties).length > 0)
    errors.push(
      fieldError.forbidden(`${path}.additionalProperties`, 'additionalProperties and properties are mutual exclusive'),
    )
  if (Array.isArray(schema.items))
    errors.push(fieldError.forbidden(`${path}.items`, 'items must be a schema object and not an array'))
  for (const [name, below] of Object.entries(properties ?? {})) {
    const at = `${path}.properties[${name}]`
    needType(below, at, 'must not be empty for specified object fields', errors)
    if (schema['x-kubernetes-embedded-resource'] === true && name === 'metadata') checkMetadataSchema(below, at, errors)
    checkLevel(below, at, errors)
  }
  const values = valuesOf(schema)
  if (values !== undefined) {
    needType(values, `${path}.additionalProperties`, 'must not be empty for specified object fields', errors)
    checkLevel(values, `${path}.additionalProperties`, errors)
  }
  const items = itemsOf(schema)
  if (items !== undefined) {
    needType(items, `${path}.items`, 'must not be empty for specified array items', errors)
    checkLevel(items, `${path}.items`, errors)
  }
  for (const [nested, at] of junctorsOf(schema, path)) checkValueOnly(nested, at, schema, path, errors)
}

function needType(schema: JsonSchema, path: string, words: string, errors: FieldError[]): void {
  const isFree =
    schema['x-kubernetes-int-or-string'] === true || schema['x-kubernetes-preserve-unknown-fields'] === true
  if ((schema.type === undefined || schema.type === '') && !isFree)
    errors.push(fieldError.required(`${path}.type`, words))
}

function checkWords(schema: JsonSchema, path: string, errors: FieldError[]): void {
  const { type } = schema
  if (type === 'null')
    errors.push(fieldError.forbidden(`${path}.type`, 'type cannot be set to null, use nullable as an alternative'))
  else if (type !== undefined && type !== '' && !types.includes(type))
    errors.push(fieldError.notSupported(`${path}.type`, type, types))
  for (const word of unsupported)
    if ((schema as Record<string, unknown>)[word] !== undefined)
      errors.push(fieldError.forbidden(`${path}.${word}`, `${word} is not supported`))
  if (schema.uniqueItems === true)
    errors.push(
      fieldError.forbidden(
        `${path}.uniqueItems`,
        'uniqueItems cannot be set to true since the runtime complexity becomes quadratic',
      ),
    )
  if (schema.pattern !== undefined && compilePattern(schema.pattern) === undefined)
    errors.push(fieldError.invalid(`${path}.pattern`, schema.pattern, 'must be a valid regular expression'))
}

function checkExtensions(schema: JsonSchema, path: string, errors: FieldError[]): void {
  const { type } = schema
  const preserves = schema['x-kubernetes-preserve-unknown-fields']
  if (preserves === false)
    errors.push(fieldError.invalid(`${path}.x-kubernetes-preserve-unknown-fields`, false, 'must be true or undefined'))
  if (schema['x-kubernetes-int-or-string'] === true)
    for (const word of ['x-kubernetes-preserve-unknown-fields', 'x-kubernetes-embedded-resource'] as const)
      if (schema[word] === true)
        errors.push(fieldError.invalid(`${path}.${word}`, true, 'must be false if x-kubernetes-int-or-string is true'))
  if (schema['x-kubernetes-embedded-resource'] === true) {
    if (type !== 'object')
      errors.push(
        fieldError.invalid(`${path}.type`, type ?? '', 'must be object if x-kubernetes-embedded-resource is true'),
      )
    if (preserves !== true && Object.keys(schema.properties ?? {}).length === 0)
      errors.push(
        fieldError.required(
          `${path}.properties`,
          'must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields',
        ),
      )
  }
  checkListType(schema, path, errors)
  const mapType = schema['x-kubernetes-map-type']
  if (mapType !== undefined) {
    if (type !== 'object')
      errors.push(
        fieldError.invalid(`${path}.type`, type ?? '', 'must be object if x-kubernetes-map-type is specified'),
      )
    if (mapType !== 'atomic' && mapType !== 'granular')
      errors.push(fieldError.notSupported(`${path}.x-kubernetes-map-type`, mapType, ['atomic', 'granular']))
  }
}

function checkListType(schema: JsonSchema, path: string, errors: FieldError[]): void {
  const listType = schema['x-kubernetes-list-type']
  const keys = schema['x-kubernetes-list-map-keys'] ?? []
  const items = itemsOf(schema)
  if (listType === undefined) {
    if (keys.length > 0)
      errors.push(
        fieldError.forbidden(
          `${path}.x-kubernetes-list-map-keys`,
          'must not be set if x-kubernetes-list-type is not map',
        ),
      )
    return
  }
  if (!['atomic', 'set', 'map'].includes(listType))
    errors.push(fieldError.notSupported(`${path}.x-kubernetes-list-type`, listType, ['atomic', 'map', 'set']))
  if (schema.type !== 'array')
    errors.push(
      fieldError.invalid(`${path}.type`, schema.type ?? '', 'must be array if x-kubernetes-list-type is specified'),
    )
  if (listType !== 'map') {
    if (keys.length > 0)
      errors.push(
        fieldError.forbidden(
          `${path}.x-kubernetes-list-map-keys`,
          'must not be set if x-kubernetes-list-type is not map',
        ),
      )
    return
  }
  if (keys.length === 0)
    errors.push(
      fieldError.required(`${path}.x-kubernetes-list-map-keys`, 'must not be empty if x-kubernetes-list-type is map'),
    )
  if (items === undefined)
    errors.push(fieldError.required(`${path}.items`, 'must have a schema if x-kubernetes-list-type is map'))
  else {
    if (items.type !== 'object')
      errors.push(
        fieldError.invalid(
          `${path}.items.type`,
          items.type ?? '',
          'must be object if parent array x-kubernetes-list-type is map',
        ),
      )
    keys.forEach((key, i) => {
      const property = items.properties?.[key]
      const at = `${path}.x-kubernetes-list-map-keys[${i}]`
      if (property === undefined)
        errors.push(fieldError.invalid(at, key, 'entries must all be names of item properties'))
      else if (property.type === 'array' || property.type === 'object')
        errors.push(
          fieldError.invalid(
            `${path}.items.properties[${key}].type`,
            property.type,
            'must be a scalar type if parent array x-kubernetes-list-type is map',
          ),
        )
      else if (!items.required?.includes(key) && property.default === undefined)
        errors.push(
          fieldError.required(
            `${path}.items.properties[${key}].default`,
            'this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property',
          ),
        )
    })
  }
}

/** Only name and generateName of an object's own metadata may be constrained. */
function checkMetadata(root: JsonSchema, path: string, errors: FieldError[]): void {
  const metadata = root.properties?.metadata
  if (metadata !== undefined) checkMetadataSchema(metadata, `${path}.properties[metadata]`, errors)
}

function checkMetadataSchema(metadata: JsonSchema, path: string, errors: FieldError[]): void {
  const { type, description, properties = {}, ...rest } = metadata
  const isSimple =
    Object.keys(rest).length === 0 &&
    Object.keys(properties).every((name) => name === 'name' || name === 'generateName')
  if (!isSimple || (type !== undefined && type !== 'object'))
    errors.push(
      fieldError.forbidden(
        path,
        'must not specify anything other than name and generateName, but metadata is implicitly specified',
      ),
    )
}

function junctorsOf(schema: JsonSchema, path: string): [JsonSchema, string][] {
  const out: [JsonSchema, string][] = []
  for (const word of ['allOf', 'anyOf', 'oneOf'] as const)
    for (const [i, nested] of (schema[word] ?? []).entries()) out.push([nested, `${path}.${word}[${i}]`])
  if (schema.not !== undefined) out.push([schema.not, `${path}.not`])
  return out
}

const emptyWords = ['description', 'title', 'type'] as const
const undefinedWords = ['default', 'additionalProperties'] as const
const falseWords = [
  'nullable',
  'x-kubernetes-preserve-unknown-fields',
  'x-kubernetes-embedded-resource',
  'x-kubernetes-int-or-string',
] as const

/** Inside a logical part there may only be conditions on values, on fields that the structure has. */
function checkValueOnly(
  nested: JsonSchema,
  path: string,
  parent: JsonSchema,
  parentPath: string,
  errors: FieldError[],
): void {
  for (const word of emptyWords) {
    // Upstream's own pattern for int-or-string names the two types in an anyOf.
    if (word === 'type' && parent['x-kubernetes-int-or-string'] === true) continue
    if (nested[word] !== undefined && nested[word] !== '')
      errors.push(fieldError.forbidden(`${path}.${word}`, 'must be empty to be structural'))
  }
  for (const word of undefinedWords)
    if (nested[word] !== undefined)
      errors.push(fieldError.forbidden(`${path}.${word}`, 'must be undefined to be structural'))
  for (const word of falseWords)
    if (nested[word] === true) errors.push(fieldError.forbidden(`${path}.${word}`, 'must be false to be structural'))
  for (const [name, below] of Object.entries(nested.properties ?? {})) {
    const at = `${path}.properties[${name}]`
    const real = parent.properties?.[name] ?? valuesOf(parent)
    if (real === undefined) {
      if (parent['x-kubernetes-preserve-unknown-fields'] !== true)
        errors.push(fieldError.required(`${parentPath}.properties[${name}]`, `because it is defined in ${at}`))
      continue
    }
    checkValueOnly(below, at, real, `${parentPath}.properties[${name}]`, errors)
  }
  const items = itemsOf(nested)
  if (items !== undefined) {
    const real = itemsOf(parent)
    if (real === undefined)
      errors.push(fieldError.required(`${parentPath}.items`, `because it is defined in ${path}.items`))
    else checkValueOnly(items, `${path}.items`, real, `${parentPath}.items`, errors)
  }
  for (const [deeper, at] of junctorsOf(nested, path)) checkValueOnly(deeper, at, parent, parentPath, errors)
}
