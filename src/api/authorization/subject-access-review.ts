import type { SubjectAccessReview } from '../gen/authorization-v1.ts'
import { subjectAccessReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'
import { validateQuestion, validateSubject } from './attributes.ts'

export const subjectAccessReview = defineReview<SubjectAccessReview>({
  resource: subjectAccessReviews,
  message: 'authorization/v1.SubjectAccessReview',
  description: 'Asks whether somebody may do something.',
  validate: ({ spec }) => [...validateQuestion(spec), ...validateSubject(spec)],
})
