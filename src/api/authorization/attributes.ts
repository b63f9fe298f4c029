import type { NonResourceAttributes, ResourceAttributes } from '../gen/authorization-v1.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

interface Asked {
  readonly resourceAttributes?: ResourceAttributes
  readonly nonResourceAttributes?: NonResourceAttributes
}

/** One question per review: about a resource, or about a path. */
export function validateQuestion({ resourceAttributes, nonResourceAttributes }: Asked): FieldError[] {
  if (resourceAttributes !== undefined && nonResourceAttributes !== undefined) {
    return [
      fieldError.invalid(
        'spec.nonResourceAttributes',
        nonResourceAttributes,
        'cannot be specified in combination with resourceAttributes',
      ),
    ]
  }
  if (resourceAttributes === undefined && nonResourceAttributes === undefined) {
    return [
      fieldError.invalid(
        'spec.resourceAttributes',
        null,
        'exactly one of nonResourceAttributes or resourceAttributes must be specified',
      ),
    ]
  }
  return []
}

/** Somebody must be asked about. */
export function validateSubject({ user, groups = [] }: { user?: string; groups?: string[] }): FieldError[] {
  return !user && groups.length === 0
    ? [fieldError.invalid('spec.user', user ?? '', 'at least one of user or group must be specified')]
    : []
}
