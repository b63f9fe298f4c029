import { compilePolicy } from '../cel/admission/policy.ts'
import type { ParamKind, ValidatingAdmissionPolicy, Validation } from '../gen/admissionregistration-v1.ts'
import { validatingAdmissionPolicies } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { dns1035Label, dns1123Subdomain, qualifiedName } from '../meta/names.ts'
import { sameJson } from '../meta/patch/json.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { defaultMatchResources, validateMatchResources } from './match-resources.ts'

const failurePolicies = ['Fail', 'Ignore']
const reasons = ['Forbidden', 'Invalid', 'RequestEntityTooLarge', 'Unauthorized']
const matchConditionsMax = 64
const auditAnnotationsMax = 20
const valueExpressionBytesMax = 5 * 1024

const hasLineBreak = (text: string): boolean => /[\n\r]/.test(text)

function validateParamKind({ apiVersion = '', kind = '' }: ParamKind, path: string): FieldError[] {
  const errors: FieldError[] = []
  const at = `${path}.apiVersion`
  const parts = apiVersion.split('/')
  if (apiVersion === '') errors.push(fieldError.required(at))
  else if (parts.length > 2)
    errors.push(fieldError.invalid(at, apiVersion, `unexpected GroupVersion string: ${apiVersion}`))
  else {
    const version = parts.at(-1) ?? ''
    const group = parts.length === 2 ? (parts[0] ?? '') : ''
    const words = group === '' ? [] : dns1123Subdomain(group)
    if (words.length > 0) errors.push(fieldError.invalid(at, group, words.join(',')))
    if (version === '') errors.push(fieldError.invalid(at, apiVersion, 'version must be specified'))
    else if (dns1035Label(version).length > 0)
      errors.push(fieldError.invalid(at, version, dns1035Label(version).join(',')))
  }
  if (kind === '') errors.push(fieldError.required(`${path}.kind`))
  else {
    const words = dns1035Label(kind.toLowerCase())
    if (words.length > 0)
      errors.push(
        fieldError.invalid(`${path}.kind`, kind, `may have mixed case, but should otherwise match: ${words.join(',')}`),
      )
  }
  return errors
}

function validateValidation(validation: Validation, path: string): FieldError[] {
  const errors: FieldError[] = []
  const { expression, message = '', messageExpression = '', reason } = validation
  if ((expression ?? '').trim() === '')
    errors.push(fieldError.required(`${path}.expression`, 'expression is not specified'))
  if (messageExpression !== '' && messageExpression.trim() === '')
    errors.push(fieldError.invalid(`${path}.messageExpression`, messageExpression, 'must be non-empty if specified'))
  if (message !== '' && message.trim() === '')
    errors.push(fieldError.invalid(`${path}.message`, message, 'must be non-empty if specified'))
  else if (hasLineBreak(message.trim()))
    errors.push(fieldError.invalid(`${path}.message`, message, 'must not contain line breaks'))
  if (reason !== undefined && !reasons.includes(reason))
    errors.push(fieldError.notSupported(`${path}.reason`, reason, reasons))
  return errors
}

/** Names that must be there and come once. */
function validateNames(names: readonly (string | undefined)[], path: string, field: string): FieldError[] {
  const seen = new Set<string>()
  return names.flatMap((name = '', i) => {
    if (name === '' || !seen.has(name)) {
      seen.add(name)
      return []
    }
    return [fieldError.duplicate(`${path}[${i}].${field}`, name)]
  })
}

function validatePolicy({ metadata, spec }: ValidatingAdmissionPolicy, old?: ValidatingAdmissionPolicy): FieldError[] {
  const errors: FieldError[] = []
  if (spec.failurePolicy === undefined) errors.push(fieldError.required('spec.failurePolicy'))
  else if (!failurePolicies.includes(spec.failurePolicy))
    errors.push(fieldError.notSupported('spec.failurePolicy', spec.failurePolicy, failurePolicies))
  if (spec.paramKind !== undefined) errors.push(...validateParamKind(spec.paramKind, 'spec.paramKind'))
  if (spec.matchConstraints === undefined) errors.push(fieldError.required('spec.matchConstraints'))
  else {
    errors.push(...validateMatchResources(spec.matchConstraints, 'spec.matchConstraints'))
    if ((spec.matchConstraints.resourceRules ?? []).length === 0)
      errors.push(fieldError.required('spec.matchConstraints.resourceRules'))
  }
  const { matchConditions = [], variables = [], validations = [], auditAnnotations = [] } = spec
  if (matchConditions.length > matchConditionsMax)
    errors.push(fieldError.tooMany('spec.matchConditions', matchConditions.length, matchConditionsMax))
  for (const [i, { name, expression }] of matchConditions.entries()) {
    const at = `spec.matchConditions[${i}]`
    if ((expression ?? '').trim() === '') errors.push(fieldError.required(`${at}.expression`))
    if (!name) errors.push(fieldError.required(`${at}.name`))
    else for (const words of qualifiedName(name)) errors.push(fieldError.invalid(`${at}.name`, name, words))
  }
  errors.push(
    ...validateNames(
      matchConditions.map(({ name }) => name),
      'spec.matchConditions',
      'name',
    ),
  )
  for (const [i, { name, expression }] of variables.entries()) {
    const at = `spec.variables[${i}]`
    if (!name?.trim()) errors.push(fieldError.required(`${at}.name`, 'name is not specified'))
    else if (!/^[_a-zA-Z][_a-zA-Z0-9]*$/.test(name))
      errors.push(fieldError.invalid(`${at}.name`, name, 'must be a valid CEL identifier'))
    if (!expression?.trim()) errors.push(fieldError.required(`${at}.expression`, 'expression is not specified'))
  }
  if (validations.length === 0 && auditAnnotations.length === 0) {
    const words = 'validations or auditAnnotations must contain at least one item'
    errors.push(fieldError.required('spec.validations', words), fieldError.required('spec.auditAnnotations', words))
  }
  for (const [i, validation] of validations.entries())
    errors.push(...validateValidation(validation, `spec.validations[${i}]`))
  if (auditAnnotations.length > auditAnnotationsMax)
    errors.push(
      fieldError.invalid(
        'spec.auditAnnotations',
        auditAnnotations,
        `must not have more than ${auditAnnotationsMax} auditAnnotations`,
      ),
    )
  for (const [i, { key, valueExpression = '' }] of auditAnnotations.entries()) {
    const at = `spec.auditAnnotations[${i}]`
    const full = `${metadata.name}/${key}`
    for (const words of qualifiedName(full)) errors.push(fieldError.invalid(`${at}.key`, full, words))
    const size = Buffer.byteLength(valueExpression.trim())
    if (size === 0) errors.push(fieldError.required(`${at}.valueExpression`, 'valueExpression is not specified'))
    else if (size > valueExpressionBytesMax) {
      const words = `must not exceed ${valueExpressionBytesMax} bytes in length`
      errors.push(fieldError.required(`${at}.valueExpression`, words))
    }
  }
  errors.push(
    ...validateNames(
      auditAnnotations.map(({ key }) => key),
      'spec.auditAnnotations',
      'key',
    ),
  )
  if (old === undefined || !sameJson(old.spec, spec))
    for (const { field, source, detail } of compilePolicy(spec).problems)
      errors.push(fieldError.invalid(`spec.${field}`, source, detail))
  return errors
}

export const validatingAdmissionPolicy = defineKind<ValidatingAdmissionPolicy>({
  resource: validatingAdmissionPolicies,
  message: 'admissionregistration/v1.ValidatingAdmissionPolicy',
  description: 'Rules in CEL that requests must keep to; a binding puts them into effect.',
  categories: ['api-extensions'],
  hasGeneration: true,
  unconditionalUpdate: false,
  subresources: [statusSubresource],
  defaults({ spec }) {
    spec.failurePolicy ??= 'Fail'
    defaultMatchResources(spec.matchConstraints)
  },
  validate: (object) => validatePolicy(object),
  validateUpdate: validatePolicy,
  columns: [
    nameColumn,
    column('Validations', 'How many rules it has.', ({ spec }) => spec.validations?.length ?? 0, 'integer'),
    column('ParamKind', 'The kind of its parameters.', ({ spec: { paramKind } }) =>
      paramKind === undefined ? '<unset>' : `${paramKind.apiVersion}/${paramKind.kind}`,
    ),
    ageColumn,
  ],
})
