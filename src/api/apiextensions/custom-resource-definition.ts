import { definitionRuleErrors } from '../cel/schema/definition-rules.ts'
import type {
  CustomResourceDefinition,
  CustomResourceDefinitionNames,
  CustomResourceDefinitionVersion,
  JSONSchemaProps,
  WebhookConversion,
} from '../gen/apiextensions-v1.ts'
import { customResourceDefinitions } from '../gen/resources.ts'
import { createdAtColumn, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { goForm } from '../meta/go-form.ts'
import { dns1035Label, dns1123Label, dns1123Subdomain } from '../meta/names.ts'
import { immutable } from '../meta/object-meta.ts'
import { sameJson } from '../meta/patch/json.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { defaultErrors } from '../schema/custom/default-errors.ts'
import type { JsonSchema } from '../schema/json-schema.ts'
import { structuralErrors } from '../schema/structural.ts'

const columnTypes = ['boolean', 'date', 'integer', 'number', 'string']
const columnFormats = ['int32', 'int64', 'float', 'double', 'byte', 'date', 'date-time', 'password']
const selectableFieldsMax = 8

/** `old` is set for an update: rules that it had already are not compiled again. */
function validateDefinition(
  { metadata, spec }: CustomResourceDefinition,
  old?: CustomResourceDefinition,
): FieldError[] {
  const errors: FieldError[] = []
  const expected = `${spec.names.plural}.${spec.group}`
  if (metadata.name !== expected) {
    errors.push(fieldError.invalid('metadata.name', metadata.name, 'must be spec.names.plural+"."+spec.group'))
  }
  if (!spec.group) errors.push(fieldError.required('spec.group'))
  else {
    const words = dns1123Subdomain(spec.group)
    if (words.length > 0) errors.push(fieldError.invalid('spec.group', spec.group, words.join(',')))
    else if (!spec.group.includes('.')) {
      errors.push(fieldError.invalid('spec.group', spec.group, 'should be a domain with at least one dot'))
    }
    validateProtectedGroup(spec.group, metadata.annotations?.['api-approved.kubernetes.io'], errors)
  }
  if (!spec.scope) errors.push(fieldError.required('spec.scope'))
  else if (spec.scope !== 'Cluster' && spec.scope !== 'Namespaced') {
    errors.push(fieldError.notSupported('spec.scope', spec.scope, ['Cluster', 'Namespaced']))
  }
  validateNames(spec.names, 'spec.names', errors)
  validateVersions(spec.versions ?? [], old?.spec.versions ?? [], errors)
  if (spec.preserveUnknownFields) {
    errors.push(
      fieldError.invalid(
        'spec.preserveUnknownFields',
        true,
        'cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead',
      ),
    )
  }
  const conversion = spec.conversion
  if (conversion !== undefined && conversion.strategy !== 'None') {
    if (conversion.strategy !== 'Webhook') {
      errors.push(fieldError.notSupported('spec.conversion.strategy', conversion.strategy, ['None', 'Webhook']))
    } else {
      validateWebhook(conversion.webhook, errors)
      if ((spec.versions ?? []).length > 1) {
        // Taking it and not calling it would hand out objects in the wrong shape.
        errors.push(fieldError.forbidden('spec.conversion.strategy', 'this server cannot call conversion webhooks yet'))
      }
    }
  }
  return errors
}

function validateWebhook(webhook: WebhookConversion | undefined, errors: FieldError[]): void {
  const client = webhook?.clientConfig
  const at = 'spec.conversion.webhookClientConfig'
  if (client === undefined) errors.push(fieldError.required(at, 'required when strategy is set to Webhook'))
  else if ((client.url === undefined) === (client.service === undefined)) {
    errors.push(fieldError.required(at, 'exactly one of url or service is required'))
  }
  if ((webhook?.conversionReviewVersions ?? []).length === 0) {
    errors.push(fieldError.required('spec.conversion.conversionReviewVersions'))
  }
}

/** Kubernetes' own domains are for reviewed APIs. */
function validateProtectedGroup(group: string, approval: string | undefined, errors: FieldError[]): void {
  const isProtected = /(^|\.)(k8s|kubernetes)\.io$/.test(group)
  if (!isProtected) return
  const at = 'metadata.annotations[api-approved.kubernetes.io]'
  if (!approval) {
    errors.push(
      fieldError.required(
        at,
        'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111',
      ),
    )
  } else if (!approval.startsWith('unapproved') && !/^https?:\/\/[^/]+/.test(approval)) {
    errors.push(
      fieldError.invalid(
        at,
        approval,
        'protected groups must have approval annotation "api-approved.kubernetes.io" with either a URL or a reason starting with "unapproved", see https://github.com/kubernetes/enhancements/pull/1111',
      ),
    )
  }
}

function validateNames(names: CustomResourceDefinitionNames, path: string, errors: FieldError[]): void {
  const check = (field: string, value: string | undefined): void => {
    if (!value) {
      errors.push(fieldError.required(`${path}.${field}`))
      return
    }
    // Kinds are written in camel case: they are checked as the resource they would be.
    const isKind = field === 'kind' || field === 'listKind'
    for (const words of dns1035Label(isKind ? value.toLowerCase() : value)) {
      errors.push(
        fieldError.invalid(
          `${path}.${field}`,
          value,
          isKind ? `may have mixed case, but should otherwise match: ${words}` : words,
        ),
      )
    }
  }
  check('plural', names.plural)
  check('singular', names.singular)
  check('kind', names.kind)
  check('listKind', names.listKind)
  for (const field of ['shortNames', 'categories'] as const) {
    for (const [i, name] of (names[field] ?? []).entries()) {
      for (const words of dns1035Label(name)) errors.push(fieldError.invalid(`${path}.${field}[${i}]`, name, words))
    }
  }
  if (names.kind !== '' && names.kind === names.listKind) {
    errors.push(fieldError.invalid(`${path}.listKind`, names.listKind, 'kind and listKind may not be the same'))
  }
}

/** What all versions have in common is reported where older clients wrote it: at the spec itself. */
function placeOf(
  versions: readonly CustomResourceDefinitionVersion[],
  field: 'additionalPrinterColumns' | 'subresources' | 'selectableFields' | 'schema',
  index: number,
): string | undefined {
  const isShared = versions.every((version) => sameJson(version[field] ?? null, versions[0]?.[field] ?? null))
  const name = field === 'schema' ? 'validation' : field
  if (isShared) return index === 0 ? `spec.${name}` : undefined
  return `spec.versions[${index}].${field}`
}

function validateVersions(
  versions: readonly CustomResourceDefinitionVersion[],
  old: readonly CustomResourceDefinitionVersion[],
  errors: FieldError[],
): void {
  const names = new Set<string>()
  let hasTwice = false
  for (const [i, version] of versions.entries()) {
    const at = `spec.versions[${i}]`
    const name = version.name ?? ''
    for (const words of dns1035Label(name)) {
      errors.push(fieldError.invalid(`${at}.name`, name, words))
      if (i === 0) errors.push(fieldError.invalid('spec.version', name, words))
    }
    hasTwice ||= names.has(name)
    names.add(name)
    if (version.deprecationWarning !== undefined) {
      const field = `${at}.deprecationWarning`
      if (!version.deprecated) {
        errors.push(fieldError.invalid(field, version.deprecationWarning, 'can only be set for deprecated versions'))
      }
      if (version.deprecationWarning === '') errors.push(fieldError.invalid(field, '', 'must not be an empty string'))
    }
    const columns = placeOf(versions, 'additionalPrinterColumns', i)
    if (columns !== undefined) validateColumns(version, columns, errors)
    const fields = placeOf(versions, 'selectableFields', i)
    if (fields !== undefined) validateSelectable(version, fields, errors)
    const subresources = placeOf(versions, 'subresources', i)
    if (subresources !== undefined) validateSubresources(version, subresources, errors)
  }
  if (hasTwice) {
    errors.push(fieldError.invalid('spec.versions', shown(versions), 'must contain unique version names'))
  }
  if (versions.filter(({ storage }) => storage).length !== 1) {
    errors.push(
      fieldError.invalid('spec.versions', shown(versions), 'must have exactly one version marked as storage version'),
    )
  }
  validateSchemas(versions, old, errors)
}

/** Without the schemas: they would fill pages. */
const shown = (versions: readonly CustomResourceDefinitionVersion[]): unknown =>
  versions.map(({ schema: _, ...version }) => goForm(version, 'apiextensions/v1.CustomResourceDefinitionVersion'))

function validateSchemas(
  versions: readonly CustomResourceDefinitionVersion[],
  old: readonly CustomResourceDefinitionVersion[],
  errors: FieldError[],
): void {
  for (const [i, { name, schema }] of versions.entries()) {
    if (schema?.openAPIV3Schema === undefined) {
      errors.push(fieldError.required(`spec.versions[${i}].schema.openAPIV3Schema`))
      continue
    }
    const place = placeOf(versions, 'schema', i)
    if (place === undefined) continue
    const root = schema.openAPIV3Schema as unknown as JsonSchema
    const structural = structuralErrors(root, `${place}.openAPIV3Schema`)
    errors.push(...structural)
    if (structural.length > 0) continue
    const defaults = defaultErrors(root, `${place}.openAPIV3Schema`)
    errors.push(...defaults)
    const before = old.find((version) => version.name === name)?.schema
    const isKnown = before !== undefined && sameJson(before, schema)
    if (defaults.length === 0 && !isKnown) errors.push(...definitionRuleErrors(root, `${place}.openAPIV3Schema`))
  }
}

function validateColumns(version: CustomResourceDefinitionVersion, path: string, errors: FieldError[]): void {
  for (const [i, column] of (version.additionalPrinterColumns ?? []).entries()) {
    const at = `${path}[${i}]`
    if (!column.name) errors.push(fieldError.required(`${at}.name`))
    if (!column.type) {
      errors.push(fieldError.required(`${at}.type`, `must be one of ${columnTypes.join(',')}`))
    } else if (!columnTypes.includes(column.type)) {
      errors.push(fieldError.invalid(`${at}.type`, column.type, `must be one of ${columnTypes.join(',')}`))
    }
    if (column.format && !columnFormats.includes(column.format)) {
      errors.push(
        fieldError.invalid(`${at}.format`, column.format, `must be one of ${columnFormats.toSorted().join(',')}`),
      )
    }
    validatePath(column.jsonPath, `${at}.JSONPath`, errors)
  }
}

function validateSelectable(version: CustomResourceDefinitionVersion, path: string, errors: FieldError[]): void {
  const fields = version.selectableFields ?? []
  if (fields.length > selectableFieldsMax) {
    errors.push(fieldError.tooMany(path, fields.length, selectableFieldsMax))
  }
  const seen = new Set<string>()
  for (const [i, { jsonPath }] of fields.entries()) {
    const at = `${path}[${i}].jsonPath`
    validatePath(jsonPath, at, errors)
    const type = typeAt(version.schema?.openAPIV3Schema, jsonPath ?? '')
    if (jsonPath && type === undefined) {
      errors.push(fieldError.invalid(at, jsonPath, 'is an invalid path: does not refer to a valid field'))
    } else if (jsonPath && !selectableTypes.includes(type ?? '')) {
      errors.push(
        fieldError.invalid(
          at,
          jsonPath,
          'must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.',
        ),
      )
    }
    if (seen.has(jsonPath)) errors.push(fieldError.duplicate(at, jsonPath))
    seen.add(jsonPath)
  }
}

const selectableTypes = ['string', 'boolean', 'integer']

/** The type of the field that a simple path leads to; metadata is not the definition's to select by. */
function typeAt(schema: JSONSchemaProps | undefined, path: string): string | undefined {
  const [root, ...keys] = path.split('.')
  if (root !== '' || keys.length === 0 || keys[0] === 'metadata') return undefined
  let at = schema
  for (const key of keys) at = at?.properties?.[key]
  return at === undefined ? undefined : (at.type ?? '')
}

function validatePath(path: string | undefined, at: string, errors: FieldError[]): void {
  if (!path) errors.push(fieldError.required(at))
  else if (!path.startsWith('.')) {
    errors.push(fieldError.invalid(at, path, 'must be a simple json path starting with .'))
  }
}

const simplePath = /^(\.[A-Za-z_][A-Za-z0-9_-]*)+$/

function validateSubresources(
  { subresources }: CustomResourceDefinitionVersion,
  path: string,
  errors: FieldError[],
): void {
  const scale = subresources?.scale
  if (scale === undefined) return
  const at = `${path}.scale`
  for (const [field, prefix] of [
    ['specReplicasPath', '.spec.'],
    ['statusReplicasPath', '.status.'],
  ] as const) {
    const value = scale[field]
    if (!value) errors.push(fieldError.required(`${at}.${field}`))
    else if (!simplePath.test(value) || !value.startsWith(prefix)) {
      errors.push(fieldError.invalid(`${at}.${field}`, value, `should be a json path under ${prefix.slice(0, -1)}`))
    }
  }
  const selector = scale.labelSelectorPath
  if (selector && (!simplePath.test(selector) || !/^\.(status|spec)\./.test(selector))) {
    errors.push(
      fieldError.invalid(`${at}.labelSelectorPath`, selector, 'should be a json path under either .spec or .status'),
    )
  }
}

const isEstablished = ({ status }: CustomResourceDefinition): boolean =>
  status?.conditions?.some(({ type, status: value }) => type === 'Established' && value === 'True') ?? false

function validateDefinitionUpdate(next: CustomResourceDefinition, old: CustomResourceDefinition): FieldError[] {
  const errors = validateDefinition(next, old)
  const names = new Set((next.spec.versions ?? []).map(({ name }) => name))
  for (const [i, version] of (old.status?.storedVersions ?? []).entries()) {
    if (!names.has(version)) {
      errors.push(
        fieldError.invalid(
          `status.storedVersions[${i}]`,
          version,
          `missing from spec.versions; ${version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in ${version} and removes ${version} from status.storedVersions`,
        ),
      )
    }
  }
  if (isEstablished(old)) {
    errors.push(...immutable(next.spec.scope, old.spec.scope, 'spec.scope'))
    errors.push(...immutable(next.spec.names.kind, old.spec.names.kind, 'spec.names.kind'))
  }
  errors.push(...immutable(next.spec.group, old.spec.group, 'spec.group'))
  errors.push(...immutable(next.spec.names.plural, old.spec.names.plural, 'spec.names.plural'))
  return errors
}

export const customResourceDefinition = defineKind<CustomResourceDefinition>({
  resource: customResourceDefinitions,
  message: 'apiextensions/v1.CustomResourceDefinition',
  description: 'A kind of your own: its names, versions and schemas.',
  shortNames: ['crd', 'crds'],
  categories: ['api-extensions'],
  hasGeneration: true,
  subresources: [statusSubresource],
  unconditionalUpdate: false,
  plainFinalizers: true,
  nameCheck: (name) => [...dns1123Label(name.split('.')[0] ?? ''), ...dns1123Subdomain(name)],
  defaults({ spec, status }) {
    const { names } = spec
    if (names.kind) {
      names.singular ||= names.kind.toLowerCase()
      names.listKind ||= `${names.kind}List`
    }
    spec.conversion ??= { strategy: 'None' }
    spec.conversion.strategy ||= 'None'
    const service = spec.conversion.webhook?.clientConfig?.service
    if (service) service.port ??= 443
    if (status) status.storedVersions ??= []
  },
  prepareCreate(object) {
    const stored = (object.spec.versions ?? []).filter(({ storage }) => storage).map(({ name }) => name)
    object.status = { conditions: [], acceptedNames: { plural: '', kind: '' }, storedVersions: stored }
  },
  prepareUpdate(next, old) {
    // A version that becomes the stored one is remembered until its objects are migrated.
    const stored = (next.spec.versions ?? []).find(({ storage }) => storage)?.name
    const known = old.status?.storedVersions ?? []
    if (stored !== undefined && !known.includes(stored)) {
      next.status = { ...old.status, storedVersions: [...known, stored] }
    }
  },
  validate: (object) => validateDefinition(object),
  validateUpdate: validateDefinitionUpdate,
  columns: [nameColumn, createdAtColumn],
})
