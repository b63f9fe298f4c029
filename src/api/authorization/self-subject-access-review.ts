import type { SelfSubjectAccessReview } from '../gen/authorization-v1.ts'
import { selfSubjectAccessReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'
import { validateQuestion } from './attributes.ts'

export const selfSubjectAccessReview = defineReview<SelfSubjectAccessReview>({
  resource: selfSubjectAccessReviews,
  message: 'authorization/v1.SelfSubjectAccessReview',
  description: 'Asks whether the caller may do something.',
  validate: ({ spec }) => validateQuestion(spec),
})
