import type {
  NonResourceAttributes,
  ResourceAttributes,
  SelfSubjectAccessReview,
  SelfSubjectRulesReview,
  SubjectAccessReview,
} from '#api/gen/authorization-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest, type FieldError, fieldError, invalid } from '#api/meta/status.ts'
import type { Authorizer } from '../authorize/authorize.ts'
import type { Attributes, SubresourceHandler, User } from '../step.ts'

/** The four reviews of authorization.k8s.io: the authorizer, asked from outside. */

interface Asked {
  readonly resourceAttributes?: ResourceAttributes
  readonly nonResourceAttributes?: NonResourceAttributes
}

function needed<K extends KubeObject>(body: KubeObject | undefined, kind: string): K {
  if (body === undefined) throw badRequest(`a ${kind} is needed in the body`)
  return body as K
}

function attributesOf(user: User, { resourceAttributes, nonResourceAttributes }: Asked): Attributes {
  const none = { group: '', version: '', resource: '', subresource: '', namespace: '', name: '' }
  if (nonResourceAttributes) {
    return { ...none, user, verb: nonResourceAttributes.verb ?? '', path: nonResourceAttributes.path ?? '' }
  }
  const { verb = '', fieldSelector, labelSelector, ...named } = resourceAttributes ?? {}
  const raw = (selector: { rawSelector?: string } | undefined) => selector?.rawSelector
  const field = raw(fieldSelector) ?? fieldSelector?.requirements?.map(formatField).join(',')
  const label = raw(labelSelector)
  return {
    ...none,
    ...named,
    user,
    verb,
    path: undefined,
    ...(field === undefined ? {} : { fieldSelector: field }),
    ...(label === undefined ? {} : { labelSelector: label }),
  }
}

const formatField = ({ key, operator, values = [] }: { key: string; operator: string; values?: string[] }): string =>
  operator === 'In' && values.length === 1 ? `${key}=${values[0]}` : `${key} ${operator} (${values.join(' ')})`

function attributeErrors({ resourceAttributes, nonResourceAttributes }: Asked): FieldError[] {
  if (resourceAttributes && nonResourceAttributes) {
    const words = 'cannot be specified in combination with resourceAttributes'
    return [fieldError.invalid('spec.nonResourceAttributes', nonResourceAttributes, words)]
  }
  if (resourceAttributes || nonResourceAttributes) return []
  const words = 'exactly one of nonResourceAttributes or resourceAttributes must be specified'
  return [fieldError.invalid('spec.resourceAttributes', resourceAttributes ?? null, words)]
}

const refuse = (kind: string, errors: readonly FieldError[]): void => {
  if (errors.length > 0) throw invalid('authorization.k8s.io', kind, '', errors)
}

function answerFor(authorizer: Authorizer, asked: Attributes): { allowed: boolean; reason?: string } {
  const { allowed, reason } = authorizer.authorize(asked)
  return { allowed, ...(reason === '' ? {} : { reason }) }
}

/** May somebody do something? Asked by those who check for others: kubelets, controllers. */
export function subjectAccessReview(authorizer: Authorizer): SubresourceHandler {
  return async ({ body }) => {
    const review = needed<SubjectAccessReview>(body, 'SubjectAccessReview')
    refuse('SubjectAccessReview', subjectErrors(review.spec))
    return {
      status: 201,
      object: { ...review, status: answerFor(authorizer, attributesOf(userOf(review.spec), review.spec)) },
    }
  }
}

/** The same within one namespace. */
export function localSubjectAccessReview(authorizer: Authorizer): SubresourceHandler {
  return async ({ body, attributes }) => {
    const review = needed<SubjectAccessReview>(body, 'LocalSubjectAccessReview')
    const namespace = review.spec?.resourceAttributes?.namespace
    const errors = subjectErrors(review.spec)
    if (namespace !== attributes.namespace) {
      errors.push(
        fieldError.invalid('spec.resourceAttributes.namespace', namespace ?? '', 'must match metadata.namespace'),
      )
    }
    if (review.spec?.nonResourceAttributes) {
      errors.push(
        fieldError.invalid(
          'spec.nonResourceAttributes',
          review.spec.nonResourceAttributes,
          'disallowed on this kind of request',
        ),
      )
    }
    refuse('LocalSubjectAccessReview', errors)
    return {
      status: 201,
      object: { ...review, status: answerFor(authorizer, attributesOf(userOf(review.spec), review.spec)) },
    }
  }
}

function subjectErrors(spec: SubjectAccessReview['spec'] | undefined): FieldError[] {
  const errors = attributeErrors(spec ?? {})
  if (!spec?.user && !spec?.groups?.length) {
    errors.push(fieldError.invalid('spec.user', spec?.user ?? '', 'at least one of user or group must be specified'))
  }
  return errors
}

const userOf = ({ user = '', groups = [], uid, extra }: SubjectAccessReview['spec']): User => ({
  name: user,
  groups,
  ...(uid === undefined ? {} : { uid }),
  ...(extra ? { extra } : {}),
})

/** May I? `kubectl auth can-i`. */
export function selfSubjectAccessReview(authorizer: Authorizer): SubresourceHandler {
  return async ({ body, attributes: { user } }) => {
    const review = needed<SelfSubjectAccessReview>(body, 'SelfSubjectAccessReview')
    refuse('SelfSubjectAccessReview', attributeErrors(review.spec ?? {}))
    return { status: 201, object: { ...review, status: answerFor(authorizer, attributesOf(user, review.spec)) } }
  }
}

/** What may I? `kubectl auth can-i --list`. */
export function selfSubjectRulesReview(authorizer: Authorizer): SubresourceHandler {
  return async ({ body, attributes: { user } }) => {
    const review = needed<SelfSubjectRulesReview>(body, 'SelfSubjectRulesReview')
    const namespace = review.spec?.namespace ?? ''
    if (namespace === '') throw badRequest('no namespace on request')
    const { rules, incomplete } = authorizer.rulesFor(user, namespace)
    const status = {
      resourceRules: rules
        .filter((r) => r.resources?.length)
        .map(({ verbs, apiGroups, resources, resourceNames }) => ({
          verbs,
          apiGroups,
          resources,
          ...(resourceNames ? { resourceNames } : {}),
        })),
      nonResourceRules: rules
        .filter((r) => r.nonResourceURLs?.length)
        .map(({ verbs, nonResourceURLs }) => ({ verbs, nonResourceURLs })),
      incomplete,
      ...(incomplete ? { evaluationError: 'node authorizer does not support user rule resolution' } : {}),
    }
    return { status: 201, object: { ...review, status } }
  }
}
