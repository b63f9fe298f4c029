import type { SelfSubjectReview, TokenReview, UserInfo } from '#api/gen/authentication-v1.ts'
import { badRequest, fieldError, invalid } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { AuthenticateToken } from '../authenticate/authenticate.ts'
import type { SubresourceHandler, User } from '../step.ts'

/** The two reviews of authentication.k8s.io. */

const userInfo = ({ name, uid, groups, extra }: User): UserInfo => ({
  username: name,
  groups: [...groups],
  ...(uid === undefined ? {} : { uid }),
  ...(extra ? { extra: structuredClone(extra) as Record<string, string[]> } : {}),
})

/** Whose token is this? A token that is no good is an answer, not an error. */
export function tokenReview(authenticateToken: AuthenticateToken, audiences: readonly string[]): SubresourceHandler {
  return async ({ body }) => {
    const review = body as TokenReview | undefined
    if (review === undefined) throw badRequest('a TokenReview is needed in the body')
    const token = review.spec?.token ?? ''
    if (token === '') {
      const missing = fieldError.invalid('spec.token', '', 'must not be empty')
      throw invalid('authentication.k8s.io', 'TokenReview', '', [missing])
    }
    const asked = review.spec.audiences?.length ? review.spec.audiences : audiences
    const found = await authenticateToken(token, asked)
    const status = found
      ? { authenticated: true, user: userInfo(found.user), audiences: [...found.audiences] }
      : { user: {}, error: '[invalid bearer token]' }
    return { status: 201, object: { ...review, status } }
  }
}

/** Who am I? `kubectl auth whoami`. */
export function selfSubjectReview(clock: Clock): SubresourceHandler {
  return async ({ attributes: { user } }) => {
    const object = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'SelfSubjectReview',
      metadata: { creationTimestamp: formatTime(clock.now()) } as SelfSubjectReview['metadata'],
      status: { userInfo: userInfo(user) },
    }
    return { status: 201, object }
  }
}
