import type { LocalSubjectAccessReview } from '../gen/authorization-v1.ts'
import { localSubjectAccessReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'
import { fieldError } from '../meta/status.ts'
import { validateQuestion, validateSubject } from './attributes.ts'

export const localSubjectAccessReview = defineReview<LocalSubjectAccessReview>({
  resource: localSubjectAccessReviews,
  message: 'authorization/v1.LocalSubjectAccessReview',
  description: 'Asks whether somebody may do something in one namespace.',
  validate({ metadata, spec }) {
    const errors = [...validateQuestion(spec), ...validateSubject(spec)]
    if (spec.nonResourceAttributes !== undefined) {
      errors.push(
        fieldError.invalid(
          'spec.nonResourceAttributes',
          spec.nonResourceAttributes,
          'disallowed on this kind of request',
        ),
      )
    }
    const asked = spec.resourceAttributes?.namespace ?? ''
    if (spec.resourceAttributes !== undefined && asked !== metadata.namespace) {
      errors.push(fieldError.invalid('spec.resourceAttributes.namespace', asked, 'must match metadata.namespace'))
    }
    return errors
  },
})
