import type { TokenRequest } from '../gen/authentication-v1.ts'
import { defineReview } from '../meta/define.ts'
import type { Resource } from '../meta/resource.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

/** Served below a service account only: `serviceaccounts/token`. */
const tokenRequests: Resource<TokenRequest> = {
  group: 'authentication.k8s.io',
  version: 'v1',
  resource: 'tokenrequests',
  kind: 'TokenRequest',
  namespaced: true,
}

const secondsMin = 600
const secondsMax = 2 ** 32

export const tokenRequest = defineReview<TokenRequest>({
  resource: tokenRequests,
  message: 'authentication/v1.TokenRequest',
  description: 'Asks for a token of a service account, for some time and some audiences.',
  defaults(object) {
    object.spec ??= {}
    object.spec.expirationSeconds ??= 3600
  },
  validate({ spec }) {
    const errors: FieldError[] = []
    const seconds = spec.expirationSeconds ?? 3600
    if (seconds < secondsMin) {
      errors.push(
        fieldError.invalid('spec.expirationSeconds', seconds, 'may not specify a duration less than 10 minutes'),
      )
    }
    if (seconds > secondsMax) {
      errors.push(
        fieldError.invalid('spec.expirationSeconds', seconds, 'may not specify a duration larger than 2^32 seconds'),
      )
    }
    return errors
  },
})
