import type { TokenReview } from '../gen/authentication-v1.ts'
import { tokenReviews } from '../gen/resources.ts'
import { defineReview } from '../meta/define.ts'
import { badRequest } from '../meta/status.ts'

export const tokenReview = defineReview<TokenReview>({
  resource: tokenReviews,
  message: 'authentication/v1.TokenReview',
  description: 'Asks whose token this is.',
  validate(object) {
    if (!object.spec?.token) throw badRequest('token is required for TokenReview in authentication')
    return []
  },
})
