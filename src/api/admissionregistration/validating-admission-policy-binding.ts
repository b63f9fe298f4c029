import type { ParamRef, ValidatingAdmissionPolicyBinding } from '../gen/admissionregistration-v1.ts'
import { validatingAdmissionPolicyBindings } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { validateLabelSelector } from '../meta/labels.ts'
import { dns1123Subdomain, pathSegment } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'
import { defaultMatchResources, validateMatchResources } from './match-resources.ts'

const actions = ['Audit', 'Deny', 'Warn']
const notFoundActions = ['Allow', 'Deny']

function validateParamRef(ref: ParamRef | undefined, path: string): FieldError[] {
  if (ref === undefined) return []
  const errors: FieldError[] = []
  const { name, selector, namespace, parameterNotFoundAction } = ref
  if (name) {
    for (const words of pathSegment(name)) errors.push(fieldError.invalid(`${path}.name`, name, words))
    if (selector !== undefined)
      errors.push(fieldError.forbidden(`${path}.name`, 'name and selector are mutually exclusive'))
  }
  if (selector !== undefined) {
    errors.push(...validateLabelSelector(selector, `${path}.selector`))
    if (name) errors.push(fieldError.forbidden(`${path}.selector`, 'name and selector are mutually exclusive'))
  }
  if (!name && selector === undefined)
    errors.push(fieldError.required(path, 'one of name or selector must be specified'))
  if (namespace) {
    for (const words of dns1123Subdomain(namespace))
      errors.push(fieldError.invalid(`${path}.namespace`, namespace, words))
  }
  if (parameterNotFoundAction === undefined) errors.push(fieldError.required(`${path}.parameterNotFoundAction`))
  else if (!notFoundActions.includes(parameterNotFoundAction))
    errors.push(
      fieldError.notSupported(`${path}.parameterNotFoundAction`, parameterNotFoundAction, notFoundActions.toReversed()),
    )
  return errors
}

function validateActions(values: readonly string[], path: string): FieldError[] {
  const errors: FieldError[] = []
  const seen = new Set<string>()
  for (const [i, action] of values.entries()) {
    if (!actions.includes(action)) errors.push(fieldError.notSupported(`${path}[${i}]`, action, actions))
    if (seen.has(action)) errors.push(fieldError.duplicate(`${path}[${i}]`, action))
    seen.add(action)
  }
  if (seen.has('Deny') && seen.has('Warn')) {
    const words =
      'must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)'
    errors.push(fieldError.invalid(path, values, words))
  }
  if (values.length === 0) errors.push(fieldError.required(path, 'at least one validation action is required'))
  return errors
}

function validateBinding({ spec }: ValidatingAdmissionPolicyBinding): FieldError[] {
  const errors: FieldError[] = []
  const { policyName = '' } = spec
  if (policyName === '') errors.push(fieldError.required('spec.policyName'))
  else
    for (const words of dns1123Subdomain(policyName))
      errors.push(fieldError.invalid('spec.policyName', policyName, words))
  errors.push(...validateParamRef(spec.paramRef, 'spec.paramRef'))
  errors.push(...validateMatchResources(spec.matchResources, 'spec.matchResources'))
  errors.push(...validateActions(spec.validationActions ?? [], 'spec.validationActions'))
  return errors
}

export const validatingAdmissionPolicyBinding = defineKind<ValidatingAdmissionPolicyBinding>({
  resource: validatingAdmissionPolicyBindings,
  message: 'admissionregistration/v1.ValidatingAdmissionPolicyBinding',
  description: 'Puts a ValidatingAdmissionPolicy into effect: for which requests, with which parameters, to what end.',
  categories: ['api-extensions'],
  hasGeneration: true,
  unconditionalUpdate: false,
  defaults: ({ spec }) => defaultMatchResources(spec.matchResources),
  validate: validateBinding,
  columns: [
    nameColumn,
    column('PolicyName', 'The policy that it binds.', ({ spec }) => spec.policyName ?? ''),
    column('ParamRef', 'Its parameters.', ({ spec: { paramRef } }) => {
      if (paramRef === undefined) return '<unset>'
      const name = paramRef.name || '*'
      return paramRef.namespace ? `${paramRef.namespace}/${name}` : name
    }),
    ageColumn,
  ],
})
