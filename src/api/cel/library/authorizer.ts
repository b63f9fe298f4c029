import { fixed } from '../cost.ts'
import { type Costs, type Overload, overload } from '../functions.ts'
import type { Opaque } from '../values.ts'

/** What an expression asks whether somebody may do. */
export interface AccessQuestion {
  readonly user: { readonly namespace: string; readonly serviceAccount: string } | undefined
  readonly path?: string
  readonly group?: string
  readonly resource?: string
  readonly subresource?: string
  readonly namespace?: string
  readonly name?: string
  readonly fieldSelector?: string
  readonly labelSelector?: string
  readonly verb: string
}
export interface AccessAnswer {
  readonly allowed: boolean
  readonly reason: string
}
export type Ask = (question: AccessQuestion) => AccessAnswer

abstract class Plain implements Opaque {
  abstract readonly typeName: string
  equals(other: Opaque): boolean {
    return other === this
  }
}

/** The variable `authorizer`: asks for the request's user, or for a service account. */
export class Authorizer extends Plain {
  readonly typeName = 'kubernetes.authorization.Authorizer'
  readonly ask: Ask
  readonly user: AccessQuestion['user']
  constructor(ask: Ask, user?: AccessQuestion['user']) {
    super()
    this.ask = ask
    this.user = user
  }
}

class Check extends Plain {
  readonly typeName: string
  readonly authorizer: Authorizer
  readonly question: Partial<AccessQuestion>
  constructor(typeName: string, authorizer: Authorizer, question: Partial<AccessQuestion>) {
    super()
    this.typeName = typeName
    this.authorizer = authorizer
    this.question = question
  }
  with(typeName: string, more: Partial<AccessQuestion>): Check {
    return new Check(typeName, this.authorizer, { ...this.question, ...more })
  }
}

class Decision extends Plain {
  readonly typeName = 'kubernetes.authorization.Decision'
  readonly answer: AccessAnswer
  constructor(answer: AccessAnswer) {
    super()
    this.answer = answer
  }
}

const authorizerType = 'kubernetes.authorization.Authorizer'
const pathCheck = 'kubernetes.authorization.PathCheck'
const groupCheck = 'kubernetes.authorization.GroupCheck'
const resourceCheck = 'kubernetes.authorization.ResourceCheck'
const decision = 'kubernetes.authorization.Decision'

/** The check that the variable `authorizer.requestResource` starts from. */
export const requestResource = (authorizer: Authorizer, question: Partial<AccessQuestion>): Opaque =>
  new Check(resourceCheck, authorizer, question)
export const resourceCheckType = resourceCheck

/** Two checks use up what one expression may cost. */
const checkCosts: Costs = { estimate: () => ({ cost: fixed(350_000) }), spend: () => 350_000 }

const narrowed = (field: keyof AccessQuestion): Overload =>
  overload(`${resourceCheck}.${field}(string): ${resourceCheck}`, (check: Check, text: string) =>
    check.with(resourceCheck, { [field]: text }),
  )
const ask = (check: Check, verb: string): Decision =>
  new Decision(check.authorizer.ask({ ...check.question, user: check.authorizer.user, verb }))

/** Kubernetes' authorizer functions, for admission policies. */
export const authorizerFunctions: readonly Overload[] = [
  overload(
    `${authorizerType}.path(string): ${pathCheck}`,
    (authorizer: Authorizer, path: string) => new Check(pathCheck, authorizer, { path }),
  ),
  overload(
    `${authorizerType}.group(string): ${groupCheck}`,
    (authorizer: Authorizer, group: string) => new Check(groupCheck, authorizer, { group }),
  ),
  overload(
    `${authorizerType}.serviceAccount(string, string): ${authorizerType}`,
    ({ ask }: Authorizer, namespace: string, serviceAccount: string) =>
      new Authorizer(ask, { namespace, serviceAccount }),
  ),
  overload(`${groupCheck}.resource(string): ${resourceCheck}`, (check: Check, resource: string) =>
    check.with(resourceCheck, { resource }),
  ),
  narrowed('subresource'),
  narrowed('namespace'),
  narrowed('name'),
  narrowed('fieldSelector'),
  narrowed('labelSelector'),
  overload(`${pathCheck}.check(string): ${decision}`, ask, checkCosts),
  overload(`${resourceCheck}.check(string): ${decision}`, ask, checkCosts),
  overload(`${decision}.allowed(): bool`, ({ answer }: Decision) => answer.allowed),
  overload(`${decision}.reason(): string`, ({ answer }: Decision) => answer.reason),
  overload(`${decision}.errored(): bool`, () => false),
  overload(`${decision}.error(): string`, () => ''),
]
