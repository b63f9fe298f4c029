import { type Clock, systemClock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { createAdmission } from './admit/admit.ts'
import { IdentityAllocator } from './allocate/identities.ts'
import { PodAllocator } from './allocate/pods.ts'
import type { PortRange } from './allocate/ranges.ts'
import { ServiceAllocator } from './allocate/services.ts'
import { anonymousFor, createAuthenticate } from './authenticate/authenticate.ts'
import { TokenKeys } from './authenticate/token.ts'
import { type Authorizer, createAuthorize } from './authorize/authorize.ts'
import { bootstrap } from './bootstrap/bootstrap.ts'
import type { ServerAddress } from './bootstrap/kubernetes-service.ts'
import type { Pki } from './pki/pki.ts'
import {
  localSubjectAccessReview,
  selfSubjectAccessReview,
  selfSubjectRulesReview,
  subjectAccessReview,
} from './review/access.ts'
import { selfSubjectReview, tokenReview } from './review/identity.ts'
import type { Admission, Authenticate, Authorize, Registry, SubresourceHandler, UpgradeHandler, User } from './step.ts'
import { Kubelets } from './stream/kubelet.ts'
import { logHandler } from './stream/log.ts'
import { logSocketHandler } from './stream/log-socket.ts'
import { upgradeHandler, upgradeRequired } from './stream/upgrade.ts'
import { approvalHandler } from './subresources/approval.ts'
import { bindingHandler } from './subresources/binding.ts'
import { evictionHandler } from './subresources/eviction.ts'
import { tokenHandler } from './subresources/token.ts'

export interface AccessOptions {
  /** Loaded: what it holds now is what the caches start with. */
  readonly registry: Registry
  /** The store's. */
  readonly revision?: number
  readonly pki: Pki
  /** `https://kubernetes.default.svc.cluster.local`: who signs tokens, and the audience they are for. */
  readonly issuer?: string
  /** One network, or one of each family, the primary first. */
  readonly serviceCidrs: readonly string[]
  readonly nodePorts?: PortRange
  /** Where pods reach this server. */
  readonly servers: readonly ServerAddress[]
  /** Tokens of the parts that run inside the server. Read at each request, so it may be filled later. */
  readonly staticTokens: ReadonlyMap<string, User>
  readonly log: Log
  readonly clock?: Clock
}

/** Who may do what, and what happens to it on the way: everything between the connection and the registry. */
export interface Access {
  readonly authenticate: Authenticate
  /** Whom a request without credentials is taken for; undefined is a 401. */
  anonymousFor(path: string): User | undefined
  readonly authorize: Authorize
  readonly authorizer: Authorizer
  readonly admission: Admission
  /** Keyed `group/resource/subresource`, and `group/resource` for kinds that are only asked: `/pods/binding`. */
  readonly subresources: ReadonlyMap<string, SubresourceHandler>
  /** Keyed alike. */
  readonly upgrades: ReadonlyMap<string, UpgradeHandler>
  /** JSON documents at paths of their own. */
  readonly documents: ReadonlyMap<string, unknown>
  /** Puts in what every cluster starts with; the registry must use `admission` by then. */
  bootstrap(): Promise<void>
  close(): Promise<void>
}

const defaultIssuer = 'https://kubernetes.default.svc.cluster.local'
/** Upstream's. */
const defaultNodePorts: PortRange = { first: 30_000, last: 32_767 }

/** Who may do what, and all that happens to a write on the way: authentication, authorization, admission, subresources, streams. */
export function createAccess(options: AccessOptions): Access {
  const { registry, pki, log, clock = systemClock, issuer = defaultIssuer } = options
  const audiences = [issuer]
  const tokens = new TokenKeys({ key: pki.serviceAccountKey, issuer, clock })
  const { authenticate, authenticateToken } = createAuthenticate({
    registry,
    tokens,
    audiences,
    staticTokens: options.staticTokens,
    bootstrapToken: pki.bootstrapToken,
    clock,
  })
  const authorizer = createAuthorize(registry)
  const services = new ServiceAllocator(registry, {
    cidrs: options.serviceCidrs,
    nodePorts: options.nodePorts ?? defaultNodePorts,
  })
  const pods = new PodAllocator(registry)
  const identities = new IdentityAllocator(registry, { revision: options.revision ?? 0, clock, log })
  const admission = createAdmission(registry, { authorizer, services, pods, identities, clock })
  const kubelets = new Kubelets({ credentials: () => pki.kubeletClient, authority: pki.authority.certificate })
  const upgrade = upgradeHandler(kubelets)
  const logs = logHandler(kubelets)
  const admitted = (handler: SubresourceHandler) => withAdmission(admission, handler)
  const binding = admitted(bindingHandler(pods, identities, clock))
  return {
    authenticate,
    anonymousFor,
    authorize: authorizer.authorize,
    authorizer,
    admission,
    subresources: new Map<string, SubresourceHandler>([
      ['/bindings', binding],
      ['/pods/binding', binding],
      ['/pods/eviction', admitted(evictionHandler(clock))],
      ['/pods/log', logs],
      ['/pods/exec', upgradeRequired],
      ['/pods/attach', upgradeRequired],
      ['/pods/portforward', upgradeRequired],
      ['/serviceaccounts/token', admitted(tokenHandler({ tokens, audiences, clock }))],
      ['certificates.k8s.io/certificatesigningrequests/approval', admitted(approvalHandler(clock))],
      ['authentication.k8s.io/tokenreviews', tokenReview(authenticateToken, audiences)],
      ['authentication.k8s.io/selfsubjectreviews', selfSubjectReview(clock)],
      ['authorization.k8s.io/subjectaccessreviews', subjectAccessReview(authorizer)],
      ['authorization.k8s.io/localsubjectaccessreviews', localSubjectAccessReview(authorizer)],
      ['authorization.k8s.io/selfsubjectaccessreviews', selfSubjectAccessReview(authorizer)],
      ['authorization.k8s.io/selfsubjectrulesreviews', selfSubjectRulesReview(authorizer)],
    ]),
    upgrades: new Map<string, UpgradeHandler>([
      ['/pods/exec', upgrade],
      ['/pods/attach', upgrade],
      ['/pods/portforward', upgrade],
      ['/pods/log', logSocketHandler(logs)],
    ]),
    documents: tokens.documents(`${issuer}/openid/v1/jwks`),
    bootstrap: () =>
      bootstrap({
        registry,
        authorizer,
        serviceCidrs: options.serviceCidrs,
        servers: options.servers,
        clientAuthority: pki.authority.certificate,
        log,
        clock,
      }),
    async close() {
      kubelets.close()
      await identities.close()
    },
  }
}

/** A subresource's body passes admission as any write does; what it changes there is the handler's to write. */
function withAdmission(admission: Admission, handler: SubresourceHandler): SubresourceHandler {
  return async (call) => {
    if (call.request.method === 'GET') return handler(call)
    const { attributes, body, dryRun } = call
    const operation = call.request.method === 'POST' ? 'CREATE' : 'UPDATE'
    const request = { attributes, operation, object: body, old: undefined, dryRun, warn() {} } as const
    let outcome: 'written' | 'failed' = 'failed'
    try {
      await admission.prepare?.(request)
      admission.mutate(request)
      admission.validate(request)
      const answer = await handler(call)
      if (!dryRun) outcome = 'written'
      return answer
    } finally {
      admission.settled(request, outcome)
    }
  }
}
