import { randomUUID } from 'node:crypto'
import { badRequest, internalError, methodNotAllowed, StatusError, timeout, unauthorized } from '#api/meta/status.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { notServed } from './call.ts'
import { Deadlines } from './deadlines.ts'
import type { Metrics } from './metrics.ts'
import { storeTrouble } from './registry/write.ts'
import type { Resources } from './resources.ts'
import { statusResponse, WatchBody, warningHeader } from './respond.ts'
import { parseRoute, type Route } from './route.ts'
import type { Attributes, Authenticate, Authorize, Decision, User } from './step.ts'

export interface ServeParts {
  readonly authenticate: Authenticate
  /** Who a caller without credentials is, on paths where that is allowed; undefined: 401. */
  readonly anonymousFor: (path: string) => User | undefined
  readonly authorize: Authorize
  readonly forbidden: (attributes: Attributes, decision: Decision) => Error
  readonly resources: Resources
  /** Everything that is not a resource: health, version, metrics, discovery, OpenAPI. Undefined: 404. */
  readonly documents: (request: ApiRequest, query: URLSearchParams) => Promise<ApiResponse | undefined>
  readonly metrics: Metrics
  readonly clock: Clock
  readonly log: Log
}

/** Anything but watches and streams is answered by then. */
const requestTimeoutMs = 60_000
const noQuery = new URLSearchParams()

/** One request's journey: route, authenticate, authorize, the resource or document, and what is said about it. */
export class Server {
  readonly #parts: ServeParts
  readonly #deadlines: Deadlines

  constructor(parts: ServeParts) {
    this.#parts = parts
    this.#deadlines = new Deadlines(requestTimeoutMs, parts.clock)
  }

  /** After the last request. */
  close(): void {
    this.#deadlines.close()
  }

  /** Never rejects: every failure is a Status. `certificate`: the caller's, already verified. */
  async serve(request: ApiRequest, certificate: Uint8Array | undefined): Promise<ApiResponse> {
    const { metrics, clock, resources } = this.#parts
    const startedAt = clock.monotonic()
    const warnings: string[] = []
    const mutating = request.method !== 'GET' && request.method !== 'HEAD'
    const kind = mutating ? 'mutating' : 'readOnly'
    let route: Route | undefined
    let response: ApiResponse
    metrics.inflight[kind]++
    try {
      const query = request.query === '' ? noQuery : new URLSearchParams(request.query)
      route = parseRoute(request.method, request.path, query)
      const answer = this.#answer(route, request, certificate, query, warnings)
      response = mutating ? await this.#inTime(answer) : await answer
    } catch (error) {
      response = statusResponse(this.statusOf(error, request))
    } finally {
      metrics.inflight[kind]--
    }
    if (route) {
      const known = !route.isResource || resources.find(route) !== undefined
      const watching = response.body instanceof WatchBody
      const seconds = watching ? undefined : (clock.monotonic() - startedAt) / 1000
      metrics.request(route, known && route.isResource, response.status, seconds)
    }
    const warning = warningHeader(warnings)
    const headers: Record<string, string> = {
      'cache-control': 'no-cache, private',
      ...response.headers,
      'audit-id': randomUUID(),
    }
    if (warning) headers.warning = warning
    return { status: response.status, headers, body: response.body }
  }

  /** Who is asking, as whom, and whether he may; used for streams, too. */
  async admit(
    request: ApiRequest,
    certificate: Uint8Array | undefined,
    route: Route,
  ): Promise<{ readonly attributes: Attributes; readonly authorize: (attributes: Attributes) => void }> {
    const user = await this.#user(request, certificate, route)
    const attributes = attributesOf(route, user, request.query)
    const authorize = (wanted: Attributes): void => {
      const decision = this.#parts.authorize(wanted)
      if (!decision.allowed) throw this.#parts.forbidden(wanted, decision)
    }
    authorize(attributes)
    return { attributes, authorize }
  }

  async #answer(
    route: Route,
    request: ApiRequest,
    certificate: Uint8Array | undefined,
    query: URLSearchParams,
    warnings: string[],
  ): Promise<ApiResponse> {
    const { attributes, authorize } = await this.admit(request, certificate, route)
    if (!route.isResource) {
      const document = await this.#parts.documents(request, query)
      if (document === undefined) throw notServed()
      return document
    }
    const { resources } = this.#parts
    if (resources.find(route) === undefined) throw notServed()
    if (request.method === 'HEAD') throw methodNotAllowed(route, 'HEAD')
    const warn = (text: string): void => {
      warnings.push(text)
    }
    return resources.serve({ route, request, attributes, query, warn, authorize })
  }

  async #user(request: ApiRequest, certificate: Uint8Array | undefined, route: Route): Promise<User> {
    const { authenticate, anonymousFor } = this.#parts
    const { authorization } = request.headers
    const answer = authenticate({ authorization, certificate })
    const known = answer instanceof Promise ? await answer : answer
    const user = known ?? anonymousFor(route.path)
    if (user === undefined) throw unauthorized()
    const { headers } = request
    if (headers['impersonate-user'] !== undefined) return this.#impersonate(user, request)
    if (headers['impersonate-group'] !== undefined || headers['impersonate-uid'] !== undefined) {
      throw badRequest('requested to impersonate a group or uid without impersonating a user')
    }
    return user
  }

  /** Acting as somebody else is a right of its own, for the user and for each of his groups. */
  #impersonate(user: User, { headers }: ApiRequest): User {
    const name = headers['impersonate-user'] ?? ''
    // Not done, and so not passed over: the caller would act with more or less than he asked for.
    const other = Object.keys(headers).find((key) => key === 'impersonate-uid' || key.startsWith('impersonate-extra-'))
    if (other !== undefined) throw badRequest(`the header ${other} is not supported`)
    const groups = (headers['impersonate-group'] ?? '')
      .split(',')
      .map((g) => g.trim())
      .filter((g) => g !== '')
    const check = (resource: string, value: string, namespace = ''): void => {
      const attributes: Attributes = {
        user,
        verb: 'impersonate',
        group: '',
        version: 'v1',
        resource,
        subresource: '',
        namespace,
        name: value,
        path: undefined,
      }
      const decision = this.#parts.authorize(attributes)
      if (!decision.allowed) throw this.#parts.forbidden(attributes, decision)
    }
    const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(name)
    if (account) check('serviceaccounts', account[2] ?? '', account[1])
    else check('users', name)
    for (const group of groups) check('groups', group)
    const own = account ? ['system:serviceaccounts', `system:serviceaccounts:${account[1]}`] : []
    return { name, groups: [...new Set([...own, ...groups, 'system:authenticated'])] }
  }

  /** The work, or a Timeout when it takes too long. Cheaper than a race: there is one for each write. */
  #inTime(work: Promise<ApiResponse>): Promise<ApiResponse> {
    return new Promise((resolve, reject) => {
      const done = this.#deadlines.start(() =>
        reject(timeout('Timeout: request did not complete within the allotted timeout', 0)),
      )
      work.then(
        (response) => {
          done()
          resolve(response)
        },
        (error: unknown) => {
          done()
          reject(error)
        },
      )
    })
  }

  /** Any failure as what the caller is told; one that is nobody's fault but ours is logged. */
  statusOf(error: unknown, { method, path }: ApiRequest): StatusError {
    const known = storeTrouble(error)
    if (known instanceof StatusError) return known
    this.#parts.log.error({ err: error, method, path }, 'a request failed for a reason of our own')
    return internalError(error instanceof Error ? error.message : String(error))
  }
}

function attributesOf(route: Route, user: User, queryText: string): Attributes {
  const { verb, group, version, namespace, resource, subresource, name } = route
  return {
    user,
    verb,
    group,
    version,
    resource,
    subresource,
    namespace,
    name,
    path: route.isResource ? undefined : route.path,
    ...(queryText.includes('Selector=') ? selectorsOf(queryText) : {}),
  }
}

function selectorsOf(queryText: string): { fieldSelector?: string; labelSelector?: string } {
  const query = new URLSearchParams(queryText)
  const fieldSelector = query.get('fieldSelector')
  const labelSelector = query.get('labelSelector')
  return { ...(fieldSelector ? { fieldSelector } : {}), ...(labelSelector ? { labelSelector } : {}) }
}
