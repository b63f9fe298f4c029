import type { SelfSubjectReview } from '../gen/authentication-v1.ts'
import { selfSubjectReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'

export const selfSubjectReview = defineReview<SelfSubjectReview>({
  resource: selfSubjectReviews,
  message: 'authentication/v1.SelfSubjectReview',
  description: 'Asks who the server takes the caller for.',
})
