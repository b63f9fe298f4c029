import type { Lease } from '../gen/coordination-v1.ts'
import { leases } from '../gen/resources.ts'
import { ageColumn, column, nameColumn } from '../meta/columns.ts'
import { defineKind } from '../meta/define.ts'
import { nonNegativeError } from '../meta/names.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

export const lease = defineKind<Lease>({
  resource: leases,
  message: 'coordination/v1.Lease',
  description: 'Says who holds something, and until when: elections, and nodes that are alive.',
  unconditionalUpdate: false,
  createOnUpdate: true,
  validate({ spec = {} }) {
    const errors: FieldError[] = []
    const { leaseDurationSeconds, leaseTransitions } = spec
    if (leaseDurationSeconds !== undefined && leaseDurationSeconds <= 0) {
      errors.push(fieldError.invalid('spec.leaseDurationSeconds', leaseDurationSeconds, 'must be greater than 0'))
    }
    if (leaseTransitions !== undefined && leaseTransitions < 0) {
      errors.push(fieldError.invalid('spec.leaseTransitions', leaseTransitions, nonNegativeError))
    }
    return errors
  },
  columns: [nameColumn, column('Holder', 'Who holds it.', ({ spec }) => spec?.holderIdentity ?? ''), ageColumn],
})
