import type { CustomResourceDefinition, CustomResourceDefinitionVersion } from '#api/gen/apiextensions-v1.ts'
import { dns1035Label } from '#api/meta/names.ts'
import { type FieldError, fieldError } from '#api/meta/status.ts'
import { isObject, itemsOf, type JsonSchema, valuesOf } from '../json-schema.ts'
import { hasRules, structuralErrors } from '../structural.ts'
import { parsePath } from './jsonpath.ts'
import { prune } from './prune.ts'
import { validateValue } from './validate.ts'

/** Rules of a CustomResourceDefinition itself, in upstream's words. Pure. */

/** What upstream fills in: singular and list kind from the kind, and conversion None. In place. */
export function defaultDefinition({ spec }: CustomResourceDefinition): void {
  const { names } = spec
  if (!names.singular) names.singular = names.kind.toLowerCase()
  if (!names.listKind && names.kind) names.listKind = `${names.kind}List`
  spec.scope ||= 'Namespaced'
  spec.conversion ??= { strategy: 'None' }
}

export function validateDefinition(definition: CustomResourceDefinition): FieldError[] {
  const { metadata, spec } = definition
  const errors: FieldError[] = []
  const wanted = `${spec.names.plural}.${spec.group}`
  if (metadata.name !== wanted)
    errors.push(fieldError.invalid('metadata.name', metadata.name, 'must be spec.names.plural+"."+spec.group'))
  if (!spec.group) errors.push(fieldError.required('spec.group'))
  else if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$/.test(spec.group))
    errors.push(fieldError.invalid('spec.group', spec.group, 'should be a domain with at least one dot'))
  if (!spec.scope) errors.push(fieldError.required('spec.scope'))
  else if (spec.scope !== 'Namespaced' && spec.scope !== 'Cluster')
    errors.push(fieldError.notSupported('spec.scope', spec.scope, ['Cluster', 'Namespaced']))
  checkNames(definition, errors)
  checkApproval(definition, errors)
  if (spec.preserveUnknownFields === true)
    errors.push(fieldError.invalid('spec.preserveUnknownFields', true, 'must be false'))
  // Calling webhooks is not built yet; None is what we can do.
  const strategy = spec.conversion?.strategy ?? 'None'
  if (strategy !== 'None') errors.push(fieldError.notSupported('spec.conversion.strategy', strategy, ['None']))
  checkVersions(definition, errors)
  return errors
}

function checkNames({ spec: { names } }: CustomResourceDefinition, errors: FieldError[]): void {
  const oneLabel = (path: string, name: string | undefined, mixed = false): void => {
    if (!name) errors.push(fieldError.required(path))
    else
      for (const words of dns1035Label(mixed ? name.toLowerCase() : name)) {
        const text = mixed ? `may have mixed case, but should otherwise match: ${words}` : words
        errors.push(fieldError.invalid(path, name, text))
      }
  }
  oneLabel('spec.names.plural', names.plural)
  oneLabel('spec.names.singular', names.singular)
  oneLabel('spec.names.kind', names.kind, true)
  oneLabel('spec.names.listKind', names.listKind, true)
  for (const [i, name] of (names.shortNames ?? []).entries()) oneLabel(`spec.names.shortNames[${i}]`, name)
  for (const [i, name] of (names.categories ?? []).entries()) oneLabel(`spec.names.categories[${i}]`, name)
  if (names.kind && names.kind === names.listKind)
    errors.push(fieldError.invalid('spec.names.listKind', names.listKind, 'kind and listKind may not be the same'))
}

const approval = 'api-approved.kubernetes.io'

function checkApproval({ metadata, spec }: CustomResourceDefinition, errors: FieldError[]): void {
  const isProtected = /(^|\.)(k8s|kubernetes)\.io$/.test(spec.group)
  if (isProtected && !metadata.annotations?.[approval])
    errors.push(
      fieldError.required(
        `metadata.annotations[${approval}]`,
        `protected groups must have approval annotation "${approval}", see https://github.com/kubernetes/enhancements/pull/1111`,
      ),
    )
}

function checkVersions({ spec }: CustomResourceDefinition, errors: FieldError[]): void {
  const names = spec.versions.map((v) => v.name)
  if (spec.versions.filter((v) => v.storage).length !== 1)
    errors.push(fieldError.invalid('spec.versions', names, 'must have exactly one version marked as storage version'))
  if (new Set(names).size !== names.length)
    errors.push(fieldError.invalid('spec.versions', names, 'must contain unique version names'))
  const texts = new Set(spec.versions.map((v) => JSON.stringify(v.schema)))
  for (const [i, version] of spec.versions.entries()) {
    const path = `spec.versions[${i}]`
    for (const words of dns1035Label(version.name)) errors.push(fieldError.invalid(`${path}.name`, version.name, words))
    // Upstream shows what all versions have alike at the top.
    const isShared = texts.size === 1
    const schemaPath = isShared ? 'spec.validation.openAPIV3Schema' : `${path}.schema.openAPIV3Schema`
    if (!isShared || i === 0) checkSchema(version, schemaPath, `${path}.schema.openAPIV3Schema`, errors)
    checkSubresources(version, `${path}.subresources`, errors)
    checkColumns(version, `${path}.additionalPrinterColumns`, errors)
    checkSelectable(version, `${path}.selectableFields`, errors)
  }
}

function checkSchema(
  version: CustomResourceDefinitionVersion,
  path: string,
  ownPath: string,
  errors: FieldError[],
): void {
  const schema = schemaOf(version)
  if (schema === undefined) {
    errors.push(fieldError.required(ownPath, 'schemas are required'))
    return
  }
  const structural = structuralErrors(schema, path)
  errors.push(...structural)
  if (structural.length === 0) checkDefaults(schema, path, errors)
}

/** A default must itself be what the schema asks for, and know no field that pruning would remove. */
function checkDefaults(schema: JsonSchema, path: string, errors: FieldError[]): void {
  if (schema.default !== undefined) {
    const at = `${path}.default`
    errors.push(...validateValue(schema.default, schema, at))
    if (isObject(schema.default)) {
      const removed = prune(structuredClone(schema.default), schema)
      if (removed.length > 0 && schema['x-kubernetes-embedded-resource'] !== true)
        errors.push(fieldError.invalid(at, schema.default, `must not have unknown fields: ${removed.join(', ')}`))
    }
  }
  for (const [name, below] of Object.entries(schema.properties ?? {}))
    checkDefaults(below, `${path}.properties[${name}]`, errors)
  const items = itemsOf(schema)
  if (items !== undefined) checkDefaults(items, `${path}.items`, errors)
  const values = valuesOf(schema)
  if (values !== undefined) checkDefaults(values, `${path}.additionalProperties`, errors)
}

function checkSubresources(
  { subresources }: CustomResourceDefinitionVersion,
  path: string,
  errors: FieldError[],
): void {
  const scale = subresources?.scale
  if (scale === undefined) return
  const under = (name: string, value: string | undefined, roots: readonly string[], isOptional = false): void => {
    if (!value) {
      if (!isOptional) errors.push(fieldError.required(`${path}.scale.${name}`))
    } else if (
      !roots.some((root) => value.startsWith(`${root}.`)) ||
      parsePath(value)?.some((s) => s.kind !== 'field') !== false
    )
      errors.push(
        fieldError.invalid(`${path}.scale.${name}`, value, `should be a json path under ${roots.join(' or ')}`),
      )
  }
  under('specReplicasPath', scale.specReplicasPath, ['.spec'])
  under('statusReplicasPath', scale.statusReplicasPath, ['.status'])
  under('labelSelectorPath', scale.labelSelectorPath, ['.spec', '.status'], true)
}

const columnTypes = ['boolean', 'date', 'integer', 'number', 'string']
const columnFormats = ['byte', 'date', 'date-time', 'double', 'float', 'int32', 'int64', 'password']

function checkColumns(
  { additionalPrinterColumns = [] }: CustomResourceDefinitionVersion,
  path: string,
  errors: FieldError[],
): void {
  for (const [i, column] of additionalPrinterColumns.entries()) {
    const at = `${path}[${i}]`
    if (!column.name) errors.push(fieldError.required(`${at}.name`))
    if (!column.type) errors.push(fieldError.required(`${at}.type`))
    else if (!columnTypes.includes(column.type))
      errors.push(fieldError.notSupported(`${at}.type`, column.type, columnTypes))
    if (column.format && !columnFormats.includes(column.format))
      errors.push(fieldError.notSupported(`${at}.format`, column.format, columnFormats))
    if (!column.jsonPath) errors.push(fieldError.required(`${at}.jsonPath`))
    else if (parsePath(column.jsonPath) === undefined)
      errors.push(fieldError.invalid(`${at}.jsonPath`, column.jsonPath, 'is not a simple JSONPath'))
  }
}

const selectableMax = 8

function checkSelectable(
  { selectableFields = [] }: CustomResourceDefinitionVersion,
  path: string,
  errors: FieldError[],
): void {
  if (selectableFields.length > selectableMax)
    errors.push(fieldError.tooMany(path, selectableFields.length, selectableMax))
  for (const [i, { jsonPath }] of selectableFields.entries())
    if (!jsonPath.startsWith('.') || parsePath(jsonPath)?.some((s) => s.kind !== 'field') !== false)
      errors.push(
        fieldError.invalid(`${path}[${i}].jsonPath`, jsonPath, 'is an invalid path: does not refer to a valid field'),
      )
}

export function validateDefinitionUpdate(next: CustomResourceDefinition, old: CustomResourceDefinition): FieldError[] {
  const errors = validateDefinition(next)
  const same = (path: string, a: unknown, b: unknown): void => {
    if (a !== b) errors.push(fieldError.invalid(path, a, 'field is immutable'))
  }
  same('spec.group', next.spec.group, old.spec.group)
  same('spec.names.plural', next.spec.names.plural, old.spec.names.plural)
  const isEstablished = old.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True') === true
  if (isEstablished) {
    same('spec.scope', next.spec.scope, old.spec.scope)
    same('spec.names.kind', next.spec.names.kind, old.spec.names.kind)
  }
  for (const [i, stored] of (old.status?.storedVersions ?? []).entries())
    if (!next.spec.versions.some((v) => v.name === stored))
      errors.push(
        fieldError.invalid(
          `status.storedVersions[${i}]`,
          stored,
          `missing from spec.versions; ${stored} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in ${stored} and removes ${stored} from status.storedVersions`,
        ),
      )
  return errors
}

/** What is accepted and kept, but not done yet. */
export function definitionWarnings({ spec }: CustomResourceDefinition): string[] {
  return spec.versions.flatMap((version, i) => {
    const schema = schemaOf(version)
    if (schema === undefined || !hasRules(schema)) return []
    const path = `spec.versions[${i}].schema.openAPIV3Schema`
    return [`${path}: x-kubernetes-validations are stored, but not evaluated by this server yet`]
  })
}

const schemaOf = ({ schema }: CustomResourceDefinitionVersion): JsonSchema | undefined =>
  schema?.openAPIV3Schema as JsonSchema | undefined
