import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as pause } from 'node:timers/promises'
import type { Backend, Endpoint } from '#gateway/engine.ts'
import { Body } from './body.ts'
import type { Delta, Order } from './orders.ts'
import { tunnel } from './tunnel.ts'
import { type Call, NotSent, type Reply, Upstream } from './upstream.ts'

/** Mirrors that have not been answered; more are dropped and counted. */
const mirrorsMax = 1000
const mirrorWithinMs = 30_000
/** Endpoints that are asked in turn where none takes the connection. */
const redispatchesMax = 3

export interface Counts {
  mirrored: number
  mirrorsFailed: number
  mirrorsDropped: number
  retries: number
  deadlines: number
  /** Requests for another protocol whose endpoint took no connection: answered 503. */
  tunnelsFailed: number
}

/** Headers that are between two neighbours, not between the ends (RFC 9110, 7.6.1), and our own. */
const hopHeaders = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
  'host',
  'http2-settings',
  'x-weft-rule',
  'x-weft-scheme',
])

class DeadlineError extends Error {}

/** Requests of rules with mirrors, deadlines or retries, as HAProxy hands them over: to backends and back. */
export class Forwarder {
  readonly counts: Counts = {
    mirrored: 0,
    mirrorsFailed: 0,
    mirrorsDropped: 0,
    retries: 0,
    deadlines: 0,
    tunnelsFailed: 0,
  }
  readonly #orders = new Map<string, Order>()
  readonly #backends = new Map<string, Backend>()
  readonly #next = new Map<string, number>()
  readonly #upstream = new Upstream()
  #mirrors = 0

  change({ orders, backends }: Delta): void {
    for (const [key, order] of Object.entries(orders))
      order === null ? this.#orders.delete(key) : this.#orders.set(key, order)
    for (const [id, backend] of Object.entries(backends))
      if (backend === null) {
        this.#backends.delete(id)
        this.#next.delete(id)
      } else this.#backends.set(id, backend)
  }

  /** Before another agent's orders. What is under way goes on. */
  clear(): void {
    this.#orders.clear()
    this.#backends.clear()
  }

  close(): void {
    this.#upstream.close()
  }

  /** Answers the request, whatever happens. Never throws. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const key = request.headers['x-weft-rule']
    const order = typeof key === 'string' ? this.#orders.get(key) : undefined
    if (order === undefined) return refuse(response, 503, 'the rule is not known here')
    const whole = new AbortController()
    const deadline = timer(order.timeouts.requestMs, whole)
    // The client went away: nobody waits for the backend.
    response.once('close', () => {
      if (!response.writableFinished) whole.abort()
    })
    try {
      await this.#serve(request, response, order, whole.signal)
    } catch (error) {
      const late = whole.signal.reason instanceof DeadlineError || error instanceof DeadlineError
      if (late) this.counts.deadlines++
      // What has begun cannot be taken back: it is cut, so that nobody takes it for whole.
      if (response.headersSent) response.destroy()
      else refuse(response, late ? 504 : error instanceof NotSent ? 503 : 502, late ? 'deadline' : 'no answer')
    } finally {
      clearTimeout(deadline)
    }
  }

  /** As `handle`, for a request that wants another protocol. */
  async upgrade(request: IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    client.on('error', () => client.destroy())
    const key = request.headers['x-weft-rule']
    const order = typeof key === 'string' ? this.#orders.get(key) : undefined
    const backend = order === undefined ? undefined : this.#backends.get(order.backend)
    const endpoint = backend === undefined ? undefined : this.#choose(backend)
    if (endpoint === undefined) client.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n')
    else if (!(await tunnel(request, client, head, endpoint))) this.counts.tunnelsFailed++
  }

  async #serve(request: IncomingMessage, response: ServerResponse, order: Order, signal: AbortSignal): Promise<void> {
    const body = hasBody(request) ? new Body(request) : undefined
    const base = baseOf(request)
    for (const mirror of order.mirrors)
      if (Math.random() * mirror.fraction.denominator < mirror.fraction.numerator)
        this.#mirror(mirror.backend, base, body)
    const attempts = 1 + (order.retry?.attempts ?? 0)
    for (let attempt = 1; ; attempt++) {
      const last = attempt >= attempts
      const own = new AbortController()
      const limit = timer(order.timeouts.backendRequestMs, own)
      // AbortSignal.any() and AbortSignal.timeout() hold what they were given until they fire: here that would be every request.
      const pass = () => own.abort(signal.reason)
      signal.addEventListener('abort', pass, { once: true })
      try {
        const reply = await this.#dispatch(order.backend, base, body, own.signal)
        if (!last && order.retry?.codes.includes(reply.code) === true && body?.replayable !== false) {
          reply.body.on('error', () => {}).resume()
        } else {
          await answer(response, reply)
          return
        }
      } catch (error) {
        const late = own.signal.reason instanceof DeadlineError
        if (signal.aborted || last || response.headersSent || body?.replayable === false)
          throw late ? own.signal.reason : error
      } finally {
        clearTimeout(limit)
        signal.removeEventListener('abort', pass)
      }
      this.counts.retries++
      const backoff = order.retry?.backoffMs ?? 0
      if (backoff > 0) await pause(backoff * 2 ** (attempt - 1), undefined, { signal })
    }
  }

  /** One attempt: an endpoint that takes no connection is passed over. */
  async #dispatch(
    id: string,
    base: Omit<Call, 'signal' | 'body'>,
    body: Body | undefined,
    signal: AbortSignal,
  ): Promise<Reply> {
    for (let tries = 1; ; tries++) {
      const backend = this.#backends.get(id)
      const endpoint = backend === undefined ? undefined : this.#choose(backend)
      if (backend === undefined || endpoint === undefined) throw new NotSent(new Error(`${id} has no endpoints`))
      try {
        const call = { ...base, signal, ...(body === undefined ? {} : { body: body.read('essential') }) }
        return await this.#upstream.send(backend, endpoint, call)
      } catch (error) {
        if (!(error instanceof NotSent) || tries >= redispatchesMax || signal.aborted || body?.replayable === false)
          throw error
      }
    }
  }

  #choose({ id, endpoints }: Backend): Endpoint | undefined {
    const next = (this.#next.get(id) ?? Math.floor(Math.random() * endpoints.length)) + 1
    this.#next.set(id, next)
    return endpoints[next % endpoints.length]
  }

  #mirror(id: string, base: Omit<Call, 'signal' | 'body'>, body: Body | undefined): void {
    if (this.#mirrors >= mirrorsMax) {
      this.counts.mirrorsDropped++
      return
    }
    const backend = this.#backends.get(id)
    const endpoint = backend === undefined ? undefined : this.#choose(backend)
    if (backend === undefined || endpoint === undefined) {
      this.counts.mirrorsFailed++
      return
    }
    this.#mirrors++
    const limit = new AbortController()
    const late = timer(mirrorWithinMs, limit)
    const call = {
      ...base,
      signal: limit.signal,
      ...(body === undefined ? {} : { body: body.read('mirror') }),
    }
    this.#upstream
      .send(backend, endpoint, call)
      .then(async (reply) => {
        for await (const _ of reply.body);
        this.counts.mirrored++
      })
      .catch(() => {
        this.counts.mirrorsFailed++
      })
      .finally(() => {
        clearTimeout(late)
        this.#mirrors--
      })
  }
}

function timer(ms: number | undefined, controller: AbortController): NodeJS.Timeout | undefined {
  if (ms === undefined || ms === 0) return undefined
  return setTimeout(() => controller.abort(new DeadlineError(`${ms} ms have passed`)), ms)
}

function hasBody({ headers, method, httpVersionMajor }: IncomingMessage): boolean {
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0) return true
  // HTTP/2 says nothing beforehand; gRPC always sends one.
  return httpVersionMajor === 2 && method !== 'GET' && method !== 'HEAD' && headers['content-length'] === undefined
}

function baseOf(request: IncomingMessage): Omit<Call, 'signal' | 'body'> {
  const headers: OutgoingHttpHeaders = {}
  // Duplicates stay apart, and names as they came.
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i] ?? ''
    const value = request.rawHeaders[i + 1] ?? ''
    if (name.startsWith(':') || hopHeaders.has(name.toLowerCase())) continue
    const had = headers[name]
    headers[name] = had === undefined ? value : [...[had].flat().map(String), value]
  }
  if (request.headers.te === 'trailers') headers.te = 'trailers'
  const host = request.headers.host ?? String((request.headers as Record<string, unknown>)[':authority'] ?? '')
  return { method: request.method ?? 'GET', path: request.url ?? '/', host, headers }
}

async function answer(response: ServerResponse, reply: Reply): Promise<void> {
  const two = response.req.httpVersionMajor === 2
  for (const [name, value] of Object.entries(reply.headers))
    if (value !== undefined && !hopHeaders.has(name)) response.setHeader(name, value)
  response.statusCode = reply.code
  response.flushHeaders()
  reply.body.once('end', () => {
    const trailers = Object.entries(reply.trailers()).filter(([name]) => !name.startsWith(':'))
    if (two && trailers.length > 0) response.addTrailers(Object.fromEntries(trailers) as Record<string, string>)
  })
  await pipeline(reply.body, response)
}

function refuse(response: ServerResponse, code: number, words: string): void {
  if (response.destroyed) return
  response.statusCode = code
  response.setHeader('content-type', 'text/plain')
  response.end(`${words}\n`)
}
