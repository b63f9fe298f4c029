import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2'
import type { ApiHandler, ApiRequest, ApiResponse } from '#api/wire.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { observeRequests, type RequestObserver } from './observe.ts'
import { RestClient } from './rest.ts'

export interface HttpOptions {
  /** `https://172.30.0.1:6443`; a path in it is kept in front of every request's. */
  readonly server: string
  /** PEM of the authorities to trust; absent: the system's. */
  readonly ca?: string
  /**
   * PEM; who is calling, by certificate. A function, because certificates are renewed: asked at each request, and another
   * connection is opened where the answer has changed. What is under way on the old one ends there.
   */
  readonly certificate?: () => { readonly cert: string; readonly key: string }
  /** Who is calling, by token; asked at each request, because tokens are renewed. */
  readonly token?: () => string
  /** Checked in the server's certificate instead of the host of `server`. */
  readonly serverName?: string
  readonly userAgent?: string
  /** Milliseconds for everything but watches, from sending to the last byte. Default 30 s. */
  readonly timeoutMs?: number
  /** Told of each request. */
  readonly observe?: RequestObserver
  readonly clock?: Clock
}

/** Streams on one connection before another is opened: upstream's server allows 100. */
const streamsPerConnectionMax = 90
/** As client-go: a connection that is silent this long is asked whether it is still there. */
const idleMs = 30_000
const pongMs = 15_000
const connectMs = 10_000

const { HTTP2_HEADER_AUTHORITY, HTTP2_HEADER_METHOD, HTTP2_HEADER_PATH, HTTP2_HEADER_SCHEME, HTTP2_HEADER_STATUS } =
  constants

/** A client over HTTP/2. Disposing it closes its connections and ends what is under way. */
export interface HttpClient extends RestClient, Disposable {}

export function createHttpClient(options: HttpOptions): HttpClient {
  const connections = new Connections(options)
  const { userAgent = 'weft', timeoutMs = 30_000, clock = systemClock } = options
  const { observe } = options
  const handler = observe === undefined ? connections.handler : observeRequests(connections.handler, observe, clock)
  const client = new RestClient(handler, { userAgent, timeoutMs, clock })
  return Object.assign(client, { [Symbol.dispose]: () => connections.close() })
}

interface Connection {
  readonly session: ClientHttp2Session
  /** The certificate that was shown. */
  readonly shown: string | undefined
  streams: number
  heardAt: number
}

/** Keeps connections, shares them between requests, notices dead ones, and opens another when all are full. */
class Connections {
  readonly #options: HttpOptions
  readonly #clock: Clock
  readonly #url: URL
  readonly #connections = new Set<Connection>()
  #closed = false

  constructor(options: HttpOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#url = new URL(options.server)
  }

  close(): void {
    this.#closed = true
    for (const { session } of [...this.#connections]) session.destroy()
  }

  readonly handler: ApiHandler = (request) => {
    if (this.#closed) return Promise.reject(new Error(`Cannot reach ${this.#url.origin}: this client is closed`))
    if (request.signal.aborted) return Promise.reject(request.signal.reason)
    return this.#send(request)
  }

  #connection(): Connection {
    const shown = this.#options.certificate?.().cert
    for (const connection of this.#connections) {
      const { session } = connection
      if (connection.shown !== shown) session.close()
      if (!session.closed && !session.destroyed && connection.streams < limitOf(session)) return connection
    }
    return this.#open()
  }

  #open(): Connection {
    const { ca, certificate, serverName } = this.#options
    const credentials = certificate?.()
    const session = connect(this.#url.origin, {
      ...(ca === undefined ? {} : { ca }),
      ...credentials,
      ...(serverName === undefined ? {} : { servername: serverName }),
      // A watch of large objects must not be held up by the 64 KiB that HTTP/2 begins with.
      settings: { initialWindowSize: 4 * 1024 * 1024, enablePush: false },
    })
    session.on('connect', () => session.setLocalWindowSize(16 * 1024 * 1024))
    const connection: Connection = { session, shown: credentials?.cert, streams: 0, heardAt: this.#clock.monotonic() }
    this.#connections.add(connection)
    const giveUp = this.#clock.schedule(connectMs, () => {
      if (session.connecting) session.destroy(new Error(`no connection within ${connectMs} ms`))
    })
    const stopPings = this.#watchOver(connection)
    // Each stream hears of the error by itself; here it only must not be unhandled.
    session.on('error', () => {})
    // The server is going: what is under way may finish, nothing new is begun here.
    session.on('goaway', () => this.#connections.delete(connection))
    session.on('close', () => {
      giveUp()
      stopPings()
      this.#connections.delete(connection)
    })
    // Streams in use keep the process alive, an idle connection does not.
    session.unref()
    return connection
  }

  /** Asks a silent connection for a sign of life: a machine that vanished sends no close. */
  #watchOver(connection: Connection): () => void {
    const { session } = connection
    let cancel = () => {}
    const check = () => {
      const silentMs = this.#clock.monotonic() - connection.heardAt
      if (silentMs < idleMs || session.connecting || session.destroyed || connection.streams === 0) {
        cancel = this.#clock.schedule(Math.max(1_000, idleMs - silentMs), check)
        return
      }
      cancel = this.#clock.schedule(pongMs, () => session.destroy(new Error(`no answer to a ping within ${pongMs} ms`)))
      session.ping((error) => {
        cancel()
        if (error !== null) return
        connection.heardAt = this.#clock.monotonic()
        cancel = this.#clock.schedule(idleMs, check)
      })
    }
    cancel = this.#clock.schedule(idleMs, check)
    return () => cancel()
  }

  #send(request: ApiRequest): Promise<ApiResponse> {
    const connection = this.#connection()
    const { session } = connection
    return new Promise((resolve, reject) => {
      const stream = session.request(this.#headers(request), { endStream: request.body === undefined })
      connection.streams++
      session.ref()
      const abort = () => stream.close(constants.NGHTTP2_CANCEL)
      request.signal.addEventListener('abort', abort, { once: true })
      let answered = false
      let failure: unknown
      stream.on('error', (error) => {
        failure = error
      })
      stream.on('close', () => {
        request.signal.removeEventListener('abort', abort)
        if (--connection.streams === 0) session.unref()
        if (answered) return
        if (request.signal.aborted) reject(request.signal.reason)
        else
          reject(
            new Error(`Cannot reach ${this.#url.origin}`, {
              cause: failure ?? new Error('the connection was closed before an answer came'),
            }),
          )
      })
      stream.on('response', (headers) => {
        answered = true
        connection.heardAt = this.#clock.monotonic()
        const { [HTTP2_HEADER_STATUS]: status, ...rest } = headers
        const plain: Record<string, string> = {}
        for (const [name, value] of Object.entries(rest))
          if (value !== undefined) plain[name] = Array.isArray(value) ? value.join(', ') : String(value)
        const heard = () => {
          connection.heardAt = this.#clock.monotonic()
        }
        resolve({
          status: Number(status),
          headers: plain,
          body: bodyOf(stream, request.signal, this.#url.origin, heard),
        })
      })
      if (request.body !== undefined) stream.end(request.body)
    })
  }

  #headers(request: ApiRequest): OutgoingHttpHeaders {
    const prefix = this.#url.pathname === '/' ? '' : this.#url.pathname
    const token = this.#options.token?.()
    return {
      [HTTP2_HEADER_METHOD]: request.method,
      [HTTP2_HEADER_SCHEME]: this.#url.protocol.slice(0, -1),
      [HTTP2_HEADER_AUTHORITY]: this.#url.host,
      [HTTP2_HEADER_PATH]: `${prefix}${request.path}${request.query === '' ? '' : `?${request.query}`}`,
      ...request.headers,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    }
  }
}

const limitOf = (session: ClientHttp2Session): number =>
  Math.min(streamsPerConnectionMax, session.remoteSettings?.maxConcurrentStreams ?? streamsPerConnectionMax)

async function* bodyOf(
  stream: ClientHttp2Stream,
  signal: AbortSignal,
  origin: string,
  heard: () => void,
): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const chunk of stream) {
      heard()
      yield chunk as Uint8Array
    }
    signal.throwIfAborted()
    // A server that was killed leaves a stream that just stops; that is not the end of an answer.
    if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) throw new Error(`the stream ended with code ${stream.rstCode}`)
  } catch (cause) {
    signal.throwIfAborted()
    throw new Error(`Cannot read the answer of ${origin}: the connection broke (${wordsOf(cause)})`, { cause })
  } finally {
    stream.close(constants.NGHTTP2_CANCEL)
  }
}

const wordsOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
