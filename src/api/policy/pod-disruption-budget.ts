import { atMostAll, validateAmount } from '../apps/rolling.ts'
import type { PodDisruptionBudget } from '../gen/policy-v1.ts'
import { podDisruptionBudgets } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { goForm } from '../meta/go-form.ts'
import { validateLabelSelector } from '../meta/labels.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

export const podDisruptionBudget = defineKind<PodDisruptionBudget>({
  resource: podDisruptionBudgets,
  message: 'policy/v1.PodDisruptionBudget',
  description: 'How many pods of a kind may be away at once by somebody\u2019s will.',
  shortNames: ['pdb'],
  hasGeneration: true,
  unconditionalUpdate: false,
  subresources: [statusSubresource],
  validate({ spec }) {
    const errors: FieldError[] = []
    const { minAvailable, maxUnavailable } = spec
    if (minAvailable !== undefined && maxUnavailable !== undefined) {
      errors.push(
        fieldError.invalid(
          'spec',
          goForm(spec, 'policy/v1.PodDisruptionBudgetSpec'),
          'minAvailable and maxUnavailable cannot be both set',
        ),
      )
    }
    for (const [field, value] of [
      ['minAvailable', minAvailable],
      ['maxUnavailable', maxUnavailable],
    ] as const) {
      validateAmount(value, `spec.${field}`, errors)
      atMostAll(value, `spec.${field}`, errors)
    }
    const policy: string | undefined = spec.unhealthyPodEvictionPolicy
    if (policy !== undefined && policy !== 'IfHealthyBudget' && policy !== 'AlwaysAllow') {
      errors.push(
        fieldError.notSupported('spec.unhealthyPodEvictionPolicy', policy, ['AlwaysAllow', 'IfHealthyBudget']),
      )
    }
    return [...errors, ...validateLabelSelector(spec.selector, 'spec.selector')]
  },
  columns: [
    nameColumn,
    column('Min Available', 'Pods that must stay.', ({ spec }) => `${spec.minAvailable ?? 'N/A'}`),
    column('Max Unavailable', 'Pods that may be away.', ({ spec }) => `${spec.maxUnavailable ?? 'N/A'}`),
    column('Allowed Disruptions', 'Pods that may go now.', ({ status }) => status.disruptionsAllowed ?? 0, 'integer'),
    ageColumn,
  ],
})
