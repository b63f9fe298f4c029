import type { TokenRequest } from '#api/gen/authentication-v1.ts'
import { nodes, pods, secrets, serviceAccounts } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { badRequest, conflict, fieldError, invalid, notFound } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { Binding, TokenKeys } from '../authenticate/token.ts'
import type { Registry, SubresourceHandler } from '../step.ts'

const defaultSeconds = 3600
const secondsMin = 600
const secondsMax = 2 ** 32
/** What admission asks for in the volume of every pod. Clients that never read the file again are given a year, and a warning. */
const projectedSeconds = 3607
const extendedSeconds = 365 * 24 * 3600

export interface TokenHandlerOptions {
  readonly tokens: TokenKeys
  /** Audiences of this server, used where a request names none. */
  readonly audiences: readonly string[]
  readonly clock: Clock
}

/** POST serviceaccounts/{name}/token: a token for the account, bound to a pod, node or secret if asked. */
export function tokenHandler({ tokens, audiences, clock }: TokenHandlerOptions): SubresourceHandler {
  return async ({ registry, attributes, body }) => {
    const asked = body as TokenRequest | undefined
    if (asked === undefined) throw badRequest('a TokenRequest is needed in the body')
    const { namespace, name } = attributes
    const account = registry.get(serviceAccounts, namespace, name)
    if (account === undefined) throw notFound(serviceAccounts, name)
    const seconds = asked.spec?.expirationSeconds ?? defaultSeconds
    checkSeconds(seconds)
    const given = asked.spec?.audiences?.length ? asked.spec.audiences : [...audiences]
    const bound = bindingTo(registry, asked, namespace, name)
    const extended = seconds === projectedSeconds && bound.pod !== undefined && given.some((a) => audiences.includes(a))
    const now = Math.floor(clock.now() / 1000)
    const lifetime = extended ? extendedSeconds : seconds
    const binding: Binding = {
      namespace,
      serviceaccount: { name, uid: account.metadata.uid },
      ...bound,
      ...(extended ? { warnafter: now + seconds } : {}),
    }
    const token = await tokens.sign(binding, given, lifetime)
    const answer = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      metadata: { name, namespace, creationTimestamp: formatTime(clock.now()) },
      spec: { ...asked.spec, audiences: given, expirationSeconds: seconds },
      status: { token, expirationTimestamp: formatTime((now + lifetime) * 1000) },
    }
    return { status: 201, object: answer }
  }
}

function checkSeconds(seconds: number): void {
  const refuse = (words: string) =>
    invalid('authentication.k8s.io', 'TokenRequest', '', [fieldError.invalid('spec.expirationSeconds', seconds, words)])
  if (seconds < secondsMin) throw refuse('may not specify a duration less than 10 minutes')
  if (seconds > secondsMax) throw refuse('may not specify a duration larger than 2^32 seconds')
}

/** The object the token lives and dies with; for a pod also the node it runs on. */
function bindingTo(
  registry: Registry,
  { spec }: TokenRequest,
  namespace: string,
  account: string,
): Pick<Binding, 'pod' | 'node' | 'secret'> {
  const ref = spec?.boundObjectRef
  if (ref === undefined) return {}
  const referred = <K extends KubeObject>(resource: Resource<K>): K => {
    const object = registry.get(resource, resource.namespaced ? namespace : '', ref.name ?? '')
    if (object === undefined) throw notFound(resource, ref.name ?? '')
    const { uid } = object.metadata
    if (ref.uid && ref.uid !== uid) {
      throw conflict(
        { group: '', resource: ref.kind ?? '' },
        ref.name ?? '',
        `the UID in the bound object reference (${ref.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
      )
    }
    return object
  }
  const nameAndUid = ({ metadata }: KubeObject) => ({ name: metadata.name, uid: metadata.uid })
  switch (`${ref.apiVersion ?? 'v1'}/${ref.kind}`) {
    case 'v1/Pod': {
      const pod = referred(pods)
      const { serviceAccountName, nodeName } = pod.spec
      if (serviceAccountName !== account) {
        throw badRequest(
          `cannot bind token for serviceaccount "${account}" to pod running with serviceaccount "${serviceAccountName ?? ''}"`,
        )
      }
      const node = nodeName ? registry.get(nodes, '', nodeName) : undefined
      return { pod: nameAndUid(pod), ...(node ? { node: nameAndUid(node) } : {}) }
    }
    case 'v1/Node':
      return { node: nameAndUid(referred(nodes)) }
    case 'v1/Secret':
      return { secret: nameAndUid(referred(secrets)) }
    default:
      throw badRequest(`cannot bind token to object of type ${ref.apiVersion ?? 'v1'}, Kind=${ref.kind}`)
  }
}
