import type { SelfSubjectRulesReview } from '../gen/authorization-v1.ts'
import { selfSubjectRulesReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'

export const selfSubjectRulesReview = defineReview<SelfSubjectRulesReview>({
  resource: selfSubjectRulesReviews,
  message: 'authorization/v1.SelfSubjectRulesReview',
  description: 'Asks for all that the caller may do in one namespace.',
})
