import type {
  Affinity,
  NodeSelector,
  NodeSelectorRequirement,
  NodeSelectorTerm,
  PodAffinityTerm,
  Toleration,
  TopologySpreadConstraint,
  WeightedPodAffinityTerm,
} from '../../gen/core-v1.ts'
import { validateLabelSelector } from '../../meta/labels.ts'
import { dns1123Label, labelValue, qualifiedName } from '../../meta/names.ts'
import { type FieldError, fieldError } from '../../meta/status.ts'

/** Where a pod may run: affinity, tolerations, spread. */

export function validateAffinity(affinity: Affinity, path: string, errors: FieldError[]): void {
  const { nodeAffinity, podAffinity, podAntiAffinity } = affinity
  if (nodeAffinity) {
    const required = nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution
    const at = `${path}.nodeAffinity`
    if (required) validateNodeSelector(required, `${at}.requiredDuringSchedulingIgnoredDuringExecution`, errors)
    for (const [i, term] of (nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution ?? []).entries()) {
      const field = `${at}.preferredDuringSchedulingIgnoredDuringExecution[${i}]`
      validateWeight(term.weight, field, errors)
      validateNodeTerm(term.preference, `${field}.preference`, errors)
    }
  }
  for (const [name, value] of [
    ['podAffinity', podAffinity],
    ['podAntiAffinity', podAntiAffinity],
  ] as const) {
    if (value === undefined) continue
    const at = `${path}.${name}`
    for (const [i, term] of (value.requiredDuringSchedulingIgnoredDuringExecution ?? []).entries()) {
      validatePodTerm(term, `${at}.requiredDuringSchedulingIgnoredDuringExecution[${i}]`, errors)
    }
    for (const [i, term] of (value.preferredDuringSchedulingIgnoredDuringExecution ?? []).entries()) {
      validateWeighted(term, `${at}.preferredDuringSchedulingIgnoredDuringExecution[${i}]`, errors)
    }
  }
}

function validateWeight(weight: number, path: string, errors: FieldError[]): void {
  if (weight < 1 || weight > 100) {
    errors.push(fieldError.invalid(`${path}.weight`, weight, 'must be in the range 1-100'))
  }
}

function validateNodeSelector(selector: NodeSelector, path: string, errors: FieldError[]): void {
  const terms = selector.nodeSelectorTerms ?? []
  if (terms.length === 0) {
    errors.push(fieldError.required(`${path}.nodeSelectorTerms`, 'must have at least one node selector term'))
  }
  for (const [i, term] of terms.entries()) validateNodeTerm(term, `${path}.nodeSelectorTerms[${i}]`, errors)
}

function validateNodeTerm(term: NodeSelectorTerm, path: string, errors: FieldError[]): void {
  for (const [i, requirement] of (term.matchExpressions ?? []).entries()) {
    validateExpression(requirement, `${path}.matchExpressions[${i}]`, errors)
  }
  for (const [i, requirement] of (term.matchFields ?? []).entries()) {
    const at = `${path}.matchFields[${i}]`
    if (requirement.operator !== 'In' && requirement.operator !== 'NotIn') {
      errors.push(fieldError.invalid(`${at}.operator`, requirement.operator, 'not a valid selector operator'))
    } else if ((requirement.values ?? []).length !== 1) {
      errors.push(
        fieldError.required(
          `${at}.values`,
          "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
      )
    }
    if (requirement.key !== 'metadata.name') {
      errors.push(fieldError.invalid(`${at}.key`, requirement.key, 'not a valid field selector key'))
    }
  }
}

function validateExpression(requirement: NodeSelectorRequirement, path: string, errors: FieldError[]): void {
  const { key = '', operator, values = [] } = requirement
  switch (operator) {
    case 'In':
    case 'NotIn':
      if (values.length === 0) {
        errors.push(fieldError.required(`${path}.values`, "must be specified when `operator` is 'In' or 'NotIn'"))
      }
      break
    case 'Exists':
    case 'DoesNotExist':
      if (values.length > 0) {
        errors.push(
          fieldError.forbidden(`${path}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        )
      }
      break
    case 'Gt':
    case 'Lt':
      if (values.length !== 1) {
        errors.push(
          fieldError.required(`${path}.values`, "must be specified single value when `operator` is 'Lt' or 'Gt'"),
        )
      }
      break
    default:
      errors.push(fieldError.invalid(`${path}.operator`, operator ?? '', 'not a valid selector operator'))
  }
  for (const words of qualifiedName(key)) errors.push(fieldError.invalid(`${path}.key`, key, words))
  for (const [i, value] of values.entries()) {
    for (const words of labelValue(value)) errors.push(fieldError.invalid(`${path}.values[${i}]`, value, words))
  }
}

function validateWeighted(term: WeightedPodAffinityTerm, path: string, errors: FieldError[]): void {
  validateWeight(term.weight, path, errors)
  validatePodTerm(term.podAffinityTerm, `${path}.podAffinityTerm`, errors)
}

function validatePodTerm(term: PodAffinityTerm, path: string, errors: FieldError[]): void {
  errors.push(...validateLabelSelector(term.labelSelector, `${path}.labelSelector`))
  errors.push(...validateLabelSelector(term.namespaceSelector, `${path}.namespaceSelector`))
  for (const namespace of term.namespaces ?? []) {
    for (const words of dns1123Label(namespace)) {
      errors.push(fieldError.invalid(`${path}.namespace`, namespace, words))
    }
  }
  const key = term.topologyKey ?? ''
  if (key === '') errors.push(fieldError.required(`${path}.topologyKey`, 'can not be empty'))
  for (const words of qualifiedName(key)) errors.push(fieldError.invalid(`${path}.topologyKey`, key, words))
}

const effects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute']
/** Comparing by number is known, but its gate is off: whoever asks for it is told of it. */
const operators = ['Equal', 'Exists']
const gatedOperators = ['Lt', 'Gt']

export function validateTolerations(tolerations: readonly Toleration[], path: string, errors: FieldError[]): void {
  for (const [i, toleration] of tolerations.entries()) {
    const at = `${path}[${i}]`
    const { key = '', operator = 'Equal', value = '', effect, tolerationSeconds } = toleration
    if (key !== '') for (const words of qualifiedName(key)) errors.push(fieldError.invalid(`${at}.key`, key, words))
    if (key === '' && operator !== 'Exists') {
      errors.push(
        fieldError.invalid(
          `${at}.operator`,
          toleration.operator ?? '',
          'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        ),
      )
    }
    if (tolerationSeconds !== undefined && effect !== 'NoExecute') {
      errors.push(
        fieldError.invalid(`${at}.effect`, effect ?? '', "effect must be 'NoExecute' when `tolerationSeconds` is set"),
      )
    }
    if (operator === 'Equal') {
      for (const words of labelValue(value)) errors.push(fieldError.invalid(`${at}.operator`, value, words))
    } else if (operator === 'Exists') {
      if (value !== '') {
        errors.push(fieldError.invalid(`${at}.operator`, value, "value must be empty when `operator` is 'Exists'"))
      }
    } else {
      const known = gatedOperators.includes(operator) ? [...operators, ...gatedOperators] : operators
      errors.push(fieldError.notSupported(`${at}.operator`, operator, known))
    }
    if (effect !== undefined && !effects.includes(effect)) {
      errors.push(fieldError.notSupported(`${at}.effect`, effect, effects))
    }
  }
}

const whenUnsatisfiable = ['DoNotSchedule', 'ScheduleAnyway']

export function validateSpread(
  constraints: readonly TopologySpreadConstraint[],
  path: string,
  errors: FieldError[],
): void {
  const seen = new Map<string, number>()
  for (const [i, constraint] of constraints.entries()) {
    const at = `${path}[${i}]`
    if (constraint.maxSkew <= 0) {
      errors.push(fieldError.invalid(`${at}.maxSkew`, constraint.maxSkew, 'must be greater than zero'))
    }
    if (!constraint.topologyKey) errors.push(fieldError.required(`${at}.topologyKey`, 'can not be empty'))
    else {
      for (const words of qualifiedName(constraint.topologyKey)) {
        errors.push(fieldError.invalid(`${at}.topologyKey`, constraint.topologyKey, words))
      }
    }
    if (!whenUnsatisfiable.includes(constraint.whenUnsatisfiable)) {
      errors.push(
        fieldError.notSupported(`${at}.whenUnsatisfiable`, constraint.whenUnsatisfiable ?? '', whenUnsatisfiable),
      )
    }
    const pair = `{${constraint.topologyKey}, ${constraint.whenUnsatisfiable}}`
    // Upstream reports the first of the two.
    const first = seen.get(pair)
    if (first !== undefined) {
      errors.push(fieldError.duplicate(`${path}[${first}].{topologyKey, whenUnsatisfiable}`, pair))
    } else seen.set(pair, i)
    if ((constraint.matchLabelKeys ?? []).length > 0 && constraint.labelSelector === undefined) {
      errors.push(fieldError.forbidden(`${at}.matchLabelKeys`, 'must not be specified when labelSelector is not set'))
    }
    if (constraint.minDomains !== undefined) {
      if (constraint.minDomains <= 0) {
        errors.push(fieldError.invalid(`${at}.minDomains`, constraint.minDomains, 'must be greater than zero'))
      }
      if (constraint.whenUnsatisfiable !== 'DoNotSchedule') {
        errors.push(
          fieldError.invalid(
            `${at}.minDomains`,
            constraint.minDomains,
            `can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ${constraint.whenUnsatisfiable}`,
          ),
        )
      }
    }
    for (const field of ['nodeAffinityPolicy', 'nodeTaintsPolicy'] as const) {
      const policy = constraint[field]
      if (policy !== undefined && policy !== 'Honor' && policy !== 'Ignore') {
        errors.push(fieldError.notSupported(`${at}.${field}`, policy, ['Honor', 'Ignore']))
      }
    }
    errors.push(...validateLabelSelector(constraint.labelSelector, `${at}.labelSelector`))
  }
}
