import type { TLSSocket } from 'node:tls'
import type { TokenReview } from '#api/gen/authentication-v1.ts'
import type { SubjectAccessReview } from '#api/gen/authorization-v1.ts'
import { subjectAccessReviews, tokenReviews } from '#api/gen/resources.ts'
import type { Clock } from '#base/clock.ts'
import type { Client } from '#client/client.ts'

export interface Caller {
  readonly name: string
  readonly uid?: string
  readonly groups: readonly string[]
  readonly extra?: Readonly<Record<string, string[]>>
}

/** Upstream's times: a yes is believed for five minutes, a no for half a one, a token for two. */
const yesMs = 300_000
const noMs = 30_000
const tokenMs = 120_000
const entriesMax = 1024

/** Who may talk to this kubelet: asked of the API server, remembered for a while. */
export class Gate {
  readonly #client: Client
  readonly #clock: Clock
  readonly #nodeName: string
  readonly #tokens = new Map<string, { readonly caller: Caller | undefined; readonly until: number }>()
  readonly #verdicts = new Map<string, { readonly why: string | undefined; readonly until: number }>()

  constructor(client: Client, clock: Clock, nodeName: string) {
    this.#client = client
    this.#clock = clock
    this.#nodeName = nodeName
  }

  /** Undefined: nobody we know. */
  async authenticate(socket: TLSSocket, authorization: string | undefined): Promise<Caller | undefined> {
    if (socket.authorized) {
      const { CN, O } = socket.getPeerCertificate().subject ?? {}
      if (CN) return { name: String(CN), groups: [...(O === undefined ? [] : [O].flat()), 'system:authenticated'] }
    }
    const token = /^Bearer (\S+)$/i.exec(authorization ?? '')?.[1]
    return token === undefined ? undefined : this.#review(token)
  }

  async #review(token: string): Promise<Caller | undefined> {
    const now = this.#clock.now()
    const known = this.#tokens.get(token)
    if (known !== undefined && known.until > now) return known.caller
    const review = await this.#client.create<TokenReview>(tokenReviews, { metadata: {}, spec: { token } })
    const { authenticated, user } = review.status
    const caller: Caller | undefined =
      authenticated === true && user?.username
        ? {
            name: user.username,
            groups: user.groups ?? [],
            ...(user.uid === undefined ? {} : { uid: user.uid }),
            ...(user.extra === undefined ? {} : { extra: user.extra }),
          }
        : undefined
    remember(this.#tokens, token, { caller, until: now + tokenMs })
    return caller
  }

  /** Why the caller may not; undefined: it may. `subresources` are tried in turn, the finer one first. */
  async refuses(caller: Caller, verb: string, subresources: readonly string[]): Promise<string | undefined> {
    let why: string | undefined
    for (const subresource of subresources) {
      why = await this.#ask(caller, verb, subresource)
      if (why === undefined) return undefined
    }
    return why
  }

  async #ask(caller: Caller, verb: string, subresource: string): Promise<string | undefined> {
    const now = this.#clock.now()
    const key = JSON.stringify([caller.name, caller.groups, verb, subresource])
    const known = this.#verdicts.get(key)
    if (known !== undefined && known.until > now) return known.why
    const review = await this.#client.create<SubjectAccessReview>(subjectAccessReviews, {
      metadata: {},
      spec: {
        user: caller.name,
        groups: [...caller.groups],
        ...(caller.uid === undefined ? {} : { uid: caller.uid }),
        ...(caller.extra === undefined ? {} : { extra: { ...caller.extra } }),
        resourceAttributes: { verb, group: '', version: 'v1', resource: 'nodes', subresource, name: this.#nodeName },
      },
    })
    const words = `Forbidden (user=${caller.name}, verb=${verb}, resource=nodes, subresource(s)=[${subresource}])`
    const why = review.status.allowed ? undefined : words
    remember(this.#verdicts, key, { why, until: now + (why === undefined ? yesMs : noMs) })
    return why
  }
}

function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key)
  map.set(key, value)
  const [oldest] = map.keys()
  if (map.size > entriesMax && oldest !== undefined) map.delete(oldest)
}
