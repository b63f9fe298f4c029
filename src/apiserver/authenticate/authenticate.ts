import { createHash, X509Certificate } from 'node:crypto'
import { unauthorized } from '#api/meta/status.ts'
import type { Clock } from '#base/clock.ts'
import type { Authenticate, Registry, User } from '../step.ts'
import { serviceAccountUser } from './service-account.ts'
import type { TokenKeys } from './token.ts'

export interface AuthenticateOptions {
  readonly registry: Pick<Registry, 'get'>
  readonly tokens: TokenKeys
  /** Audiences under which a token may speak to this server. */
  readonly audiences: readonly string[]
  /** Random tokens of the parts that run inside the server; looked up at each request, so one may be taken away. */
  readonly staticTokens: ReadonlyMap<string, User>
  /** `abcdef.0123456789abcdef` */
  readonly bootstrapToken: string | undefined
  readonly clock: Clock
}

export interface Authenticated {
  readonly user: User
  /** Audiences the token was good for. */
  readonly audiences: readonly string[]
}

/** Who a bearer token stands for, for one of `audiences`; undefined when it is no good. */
export type AuthenticateToken = (token: string, audiences: readonly string[]) => Promise<Authenticated | undefined>

/** Upstream's: long enough to spare the signature of most requests, short enough for a deleted pod's token to die soon. */
const cacheMs = 10_000
/** Tokens whose signature is remembered; one is about 1.5 kB with its user. */
const cachedTokensMax = 4096

const full = new WeakMap<User, User>()
/** The user with the group of everybody who is known. The same value for the same user: decisions are remembered by it. */
function authenticated(user: User): User {
  if (user.groups.includes('system:authenticated')) return user
  const known = full.get(user)
  if (known) return known
  const made = { ...user, groups: [...user.groups, 'system:authenticated'] }
  full.set(user, made)
  return made
}

export interface Authenticator {
  readonly authenticate: Authenticate
  readonly authenticateToken: AuthenticateToken
}

/** Client certificate first, then bearer token, as upstream's union does; wrong credentials are 401, none is undefined. */
export function createAuthenticate(options: AuthenticateOptions): Authenticator {
  const { registry, tokens, staticTokens, bootstrapToken, clock } = options
  const bySession = new WeakMap<Uint8Array, { readonly user: User; readonly until: number }>()
  const byToken = new Map<string, { readonly user: User; readonly until: number }>()

  const bootstrapper: User = {
    name: `system:bootstrap:${bootstrapToken?.slice(0, 6)}`,
    groups: ['system:bootstrappers', 'system:authenticated'],
  }

  const certificateUser = (der: Uint8Array): User | undefined => {
    let known = bySession.get(der)
    if (known === undefined) {
      const certificate = new X509Certificate(der)
      const user = userOfCertificate(certificate, der)
      if (user === undefined) return undefined
      known = { user: authenticated(user), until: certificate.validToDate.getTime() }
      bySession.set(der, known)
    }
    // It was good when the connection was made: that may be long ago.
    return known.until > clock.now() ? known.user : undefined
  }

  const remember = (token: string, user: User): User => {
    // Oldest first: a Map keeps insertion order.
    if (byToken.size >= cachedTokensMax) byToken.delete(byToken.keys().next().value ?? '')
    byToken.set(token, { user, until: clock.monotonic() + cacheMs })
    return user
  }

  const recalled = (token: string): User | undefined => {
    const hit = byToken.get(token)
    if (hit === undefined) return undefined
    if (hit.until > clock.monotonic()) return hit.user
    byToken.delete(token)
    return undefined
  }

  const fixedTokenUser = (token: string): User | undefined => {
    const fixed = staticTokens.get(token)
    if (fixed) return authenticated(fixed)
    return token === bootstrapToken ? bootstrapper : undefined
  }

  const authenticateToken: AuthenticateToken = async (token, audiences) => {
    const fixed = fixedTokenUser(token)
    if (fixed) return { user: fixed, audiences: audiences.filter((a) => options.audiences.includes(a)) }
    const claims = await tokens.read(token)
    if (claims === undefined) return undefined
    const shared = claims.audiences.filter((a) => audiences.includes(a))
    if (shared.length === 0) return undefined
    const user = serviceAccountUser(claims, registry, clock)
    return user && { user: authenticated(user), audiences: shared }
  }

  return {
    authenticateToken,
    authenticate({ authorization, certificate }) {
      const fromCertificate = certificate && certificateUser(certificate)
      if (fromCertificate) return fromCertificate
      if (authorization === undefined) {
        if (certificate) throw unauthorized()
        return undefined
      }
      const token = /^bearer +(\S+)$/i.exec(authorization)?.[1]
      if (token === undefined) throw unauthorized()
      const known = fixedTokenUser(token) ?? recalled(token)
      if (known) return known
      return authenticateToken(token, options.audiences).then((result) => {
        if (result === undefined) throw unauthorized()
        return remember(token, result.user)
      })
    },
  }
}

/** Subject CN is the name, every O a group. The chain was verified by TLS. */
function userOfCertificate(certificate: X509Certificate, der: Uint8Array): User | undefined {
  const { subject } = certificate.toLegacyObject() as unknown as {
    subject?: Record<string, string | string[]>
  }
  const list = (value: string | string[] | undefined): string[] => (value === undefined ? [] : [value].flat())
  const name = list(subject?.CN).at(-1)
  if (name === undefined || name === '') return undefined
  const fingerprint = createHash('sha256').update(der).digest('hex')
  return {
    name,
    groups: list(subject?.O),
    extra: { 'authentication.kubernetes.io/credential-id': [`X509SHA256=${fingerprint}`] },
  }
}

const anonymousUser: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] }

/** Whom a request without credentials is taken for: somebody nameless where only health is asked, nobody elsewhere. */
export function anonymousFor(path: string): User | undefined {
  return /^\/(healthz|livez|readyz)(\/|$)/.test(path) ? anonymousUser : undefined
}
