import { createServer as createHttp1, type IncomingMessage, type ServerResponse } from 'node:http'
import {
  constants,
  type IncomingHttpHeaders,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTls, type TLSSocket } from 'node:tls'
import { StatusError, tooLarge } from '#api/meta/status.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import type { Log } from '#base/log/log.ts'
import { Deadlines } from './deadlines.ts'
import { Pieces, statusResponse, WatchBody } from './respond.ts'
import { authorizationOf } from './stream/bearer.ts'
import type { Watch } from './watch/watch.ts'

/** Where to listen: a socket that is open already (inherited), or an address. */
export type ListenTarget = { readonly fd: number } | { readonly host: string; readonly port: number }

export interface ListenOptions {
  /** PEM. Asked for anew at `renew()`. */
  readonly certificate: () => { readonly cert: string; readonly key: string }
  /** PEM of the authority that signs clients' certificates. */
  readonly clientCa: string
  serve(request: ApiRequest, certificate: Uint8Array | undefined): Promise<ApiResponse>
  /** An HTTP/1.1 Upgrade. Throws a StatusError to refuse; otherwise the socket is the handler's. */
  upgrade(request: ApiRequest, certificate: Uint8Array | undefined, socket: Duplex, head: Buffer): Promise<void>
  readonly log: Log
  readonly bodyTimeoutMs?: number
}

/** Upstream's limit of a request body. */
export const bodyBytesMax = 3 * 1024 * 1024
/** A client that takes longer to send its request is cut off. */
const defaultBodyTimeoutMs = 30_000
const headerBytesMax = 64 * 1024
const handshakeTimeoutMs = 10_000
const connectionsMax = 10_000
const streamsPerConnectionMax = 1000
/** After a graceful close has been asked for. */
const closeGraceMs = 2_000

/** TLS, and on it HTTP/2 or HTTP/1.1 as the client chooses. A session's certificate is looked at once. */
export class Listener {
  readonly #options: ListenOptions
  readonly #deadlines: Deadlines
  readonly #tls
  readonly #http1
  readonly #sessions = new Set<ServerHttp2Session>()
  readonly #sockets = new Set<TLSSocket>()
  readonly #watches = new Set<Watch>()
  readonly #certificates = new WeakMap<object, Uint8Array | undefined>()

  constructor(options: ListenOptions) {
    this.#options = options
    this.#deadlines = new Deadlines(this.#bodyTimeoutMs)
    // HTTP/2 gets its own door: a shared `request` listener would build HTTP/1 objects for each of its streams.
    this.#http1 = createHttp1(
      {
        maxHeaderSize: headerBytesMax,
        headersTimeout: this.#bodyTimeoutMs,
        requestTimeout: this.#bodyTimeoutMs,
        connectionsCheckingInterval: Math.min(5_000, this.#bodyTimeoutMs),
        keepAliveTimeout: 120_000,
      },
      (request, response) => void this.#request1(request, response),
    )
    // It never listens itself, and only then would it begin to look for slow requests.
    this.#http1.emit('listening')
    this.#http1.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      void this.#upgrade(request, socket, head)
    })
    this.#http1.on('clientError', (error: NodeJS.ErrnoException, socket) => {
      // Node's own look for slow requests may come before ours: the answer is the same.
      const status = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request'
      if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
      else socket.destroy()
    })
    this.#tls = createTls(
      {
        ...options.certificate(),
        ca: options.clientCa,
        requestCert: true,
        // A caller may have a token instead; a certificate that is shown is looked at by authentication.
        rejectUnauthorized: false,
        ALPNProtocols: ['h2', 'http/1.1'],
        minVersion: 'TLSv1.2',
        handshakeTimeout: handshakeTimeoutMs,
        allowHalfOpen: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: 30_000,
      },
      (socket) => this.#connection(socket),
    )
    this.#tls.maxConnections = connectionsMax
    this.#tls.on('tlsClientError', (error, socket) => {
      options.log.debug({ err: error }, 'a TLS handshake failed')
      socket.destroy()
    })
  }

  /** Resolves with the port once connections are taken. */
  async listen(target: ListenTarget): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#tls.once('error', reject)
    this.#tls.listen(
      'fd' in target ? { fd: target.fd } : { host: target.host, port: target.port, backlog: 1024 },
      resolve,
    )
    try {
      await promise
    } catch (error) {
      const where = 'fd' in target ? `descriptor ${target.fd}` : `${target.host}:${target.port}`
      throw new Error(`Cannot listen on ${where} for the API: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      })
    }
    this.#tls.removeListener('error', reject)
    this.#tls.on('error', (error) => this.#options.log.error({ err: error }, 'the listening socket failed'))
    const address = this.#tls.address()
    return typeof address === 'object' && address !== null ? (address as AddressInfo).port : 0
  }

  /** Takes the certificate anew for the connections to come. */
  renew(): void {
    this.#tls.setSecureContext({ ...this.#options.certificate(), ca: this.#options.clientCa })
  }

  /** Lets requests under way finish for a moment, then cuts what is left. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tls.close(() => resolve()))
    this.#http1.close()
    for (const watch of this.#watches) watch.stop()
    for (const session of this.#sessions) session.close()
    const timer = setTimeout(() => {
      for (const session of this.#sessions) session.destroy()
      for (const socket of this.#sockets) socket.destroy()
    }, closeGraceMs)
    this.#http1.closeIdleConnections()
    await closed
    clearTimeout(timer)
    this.#deadlines.close()
  }

  get #bodyTimeoutMs(): number {
    return this.#options.bodyTimeoutMs ?? defaultBodyTimeoutMs
  }

  #connection(socket: TLSSocket): void {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
    socket.on('error', (error) => this.#options.log.debug({ err: error }, 'a connection broke'))
    const certificate = socket.authorized ? socket.getPeerCertificate(false).raw : undefined
    if (socket.alpnProtocol !== 'h2') {
      this.#certificates.set(socket, certificate)
      this.#http1.emit('connection', socket)
      return
    }
    const session = performServerHandshake(socket, {
      settings: {
        maxConcurrentStreams: streamsPerConnectionMax,
        maxHeaderListSize: headerBytesMax,
        initialWindowSize: 256 * 1024,
      },
    })
    session.setLocalWindowSize(1024 * 1024)
    this.#sessions.add(session)
    session.once('close', () => this.#sessions.delete(session))
    session.on('error', (error) => this.#options.log.debug({ err: error }, 'an HTTP/2 session broke'))
    session.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number) => {
      stream.on('error', (error) => this.#options.log.debug({ err: error }, 'an HTTP/2 stream broke'))
      const hasBody = (flags & constants.NGHTTP2_FLAG_END_STREAM) === 0
      void this.#request2(stream, headers, certificate, hasBody)
    })
  }

  async #request2(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    certificate: Uint8Array | undefined,
    hasBody: boolean,
  ): Promise<void> {
    const request = new WireRequest(headers[':method'] as string, headers[':path'] as string, headers, stream)
    let response: ApiResponse
    try {
      if (hasBody) request.body = await readBody(stream, headers['content-length'], this.#deadlines)
      response = await this.#options.serve(request, certificate)
    } catch (error) {
      response = this.#refusal(error)
    }
    if (stream.destroyed || stream.closed) return this.#drop(response)
    const { status, body } = response
    stream.respond({ ':status': status, ...response.headers })
    if (request.head) stream.end()
    else await this.#send(stream, body, request)
    // What of a refused body is still coming is not read.
    if (hasBody && !stream.readableEnded) stream.resume()
  }

  async #request1(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const request = new WireRequest(message.method ?? '', message.url ?? '', message.headers, response)
    const certificate = this.#certificates.get(message.socket)
    let answer: ApiResponse
    try {
      const hasBody =
        message.headers['content-length'] !== undefined || message.headers['transfer-encoding'] !== undefined
      if (hasBody) request.body = await readBody(message, message.headers['content-length'], this.#deadlines)
      answer = await this.#options.serve(request, certificate)
    } catch (error) {
      answer = this.#refusal(error)
    }
    if (response.destroyed) return this.#drop(answer)
    const { body } = answer
    const length = body instanceof Uint8Array || body instanceof Pieces ? { 'content-length': body.length } : {}
    const close = message.complete ? {} : { connection: 'close' }
    response.writeHead(answer.status, { ...answer.headers, ...length, ...close })
    if (request.head) response.end()
    else {
      response.flushHeaders()
      await this.#send(response, body, request)
    }
    // The rest of a refused body would otherwise be taken for the next request.
    if (!message.complete) message.socket.destroySoon()
  }

  async #send(
    stream: ServerHttp2Stream | ServerResponse,
    body: ApiResponse['body'],
    request: WireRequest,
  ): Promise<void> {
    if (body instanceof Uint8Array) {
      stream.end(body)
      return
    }
    if (body instanceof WatchBody) {
      const { watch } = body
      this.#watches.add(watch)
      stream.on('drain', () => watch.ready())
      stream.once('close', () => {
        watch.stop()
        this.#watches.delete(watch)
      })
      watch.start({
        write: (bytes) => !stream.destroyed && (stream as Duplex).write(bytes),
        end: () => void stream.end(),
      })
      return
    }
    try {
      for await (const piece of body) {
        if (request.gone) break
        if (!(stream as Duplex).write(piece)) await drained(stream as Duplex)
      }
      stream.end()
    } catch (error) {
      this.#options.log.debug({ err: error }, 'an answer broke off')
      stream.destroy()
    }
  }

  /** The caller has gone: what would have been sent is let go. */
  #drop({ body }: ApiResponse): void {
    if (body instanceof Uint8Array || body instanceof Pieces) return
    if (body instanceof WatchBody) body.watch.stop()
    else void body[Symbol.asyncIterator]().return?.()
  }

  async #upgrade(message: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const authorization = authorizationOf(message.headers['sec-websocket-protocol'])
    if (authorization !== undefined) message.headers.authorization ??= authorization
    const request = new WireRequest(message.method ?? '', message.url ?? '', message.headers, socket)
    try {
      await this.#options.upgrade(request, this.#certificates.get(message.socket), socket, head)
    } catch (error) {
      const { status, headers, body } = this.#refusal(error)
      const bytes = Buffer.from(body as Uint8Array)
      const lines = Object.entries({ ...headers, connection: 'close', 'content-length': bytes.length })
      if (!socket.writable) return void socket.destroy()
      socket.write(`HTTP/1.1 ${status} Refused\r\n${lines.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`)
      socket.end(bytes)
    }
  }

  #refusal(error: unknown): ApiResponse {
    if (error instanceof StatusError) return statusResponse(error)
    this.#options.log.debug({ err: error }, 'a request could not be read')
    const message = error instanceof Error ? error.message : String(error)
    return statusResponse(new StatusError({ status: 'Failure', code: 400, reason: 'BadRequest', message }))
  }
}

/** A request off the wire. Its signal is made only when somebody looks at it: most requests end before. */
class WireRequest implements ApiRequest {
  readonly method: ApiRequest['method']
  readonly path: string
  readonly query: string
  readonly headers: Readonly<Record<string, string>>
  readonly head: boolean
  body: Uint8Array | undefined
  readonly #stream: { readonly destroyed: boolean; once(event: 'close', listener: () => void): unknown }
  #controller: AbortController | undefined

  constructor(
    method: string,
    url: string,
    headers: IncomingHttpHeaders,
    stream: Duplex | ServerHttp2Stream | ServerResponse,
  ) {
    const mark = url.indexOf('?')
    this.path = mark < 0 ? url : url.slice(0, mark)
    this.query = mark < 0 ? '' : url.slice(mark + 1)
    this.head = method === 'HEAD'
    this.method = method as ApiRequest['method']
    // Node joins repeated headers; only set-cookie, which nobody sends to a server, is a list.
    this.headers = headers as Readonly<Record<string, string>>
    this.#stream = stream
  }

  get gone(): boolean {
    return this.#stream.destroyed
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const controller = new AbortController()
      this.#controller = controller
      const abort = (): void => controller.abort(new DOMException('the client has gone', 'AbortError'))
      if (this.#stream.destroyed) abort()
      else this.#stream.once('close', abort)
    }
    return this.#controller.signal
  }
}

function readBody(
  stream: ServerHttp2Stream | IncomingMessage,
  announced: string | undefined,
  deadlines: Deadlines,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    if (announced !== undefined && Number(announced) > bodyBytesMax) {
      reject(tooLarge(`Request entity too large: limit is ${bodyBytesMax}`))
      return
    }
    let only: Buffer | undefined
    let pieces: Buffer[] | undefined
    let length = 0
    const take = (piece: Buffer): void => {
      length += piece.length
      if (length > bodyBytesMax) {
        stop()
        reject(tooLarge(`Request entity too large: limit is ${bodyBytesMax}`))
        return
      }
      if (only === undefined) only = piece
      else {
        pieces ??= [only]
        pieces.push(piece)
      }
    }
    const stop = (): void => {
      cancel()
      stream.removeListener('data', take)
      stream.removeListener('close', gone)
    }
    const gone = (): void => {
      stop()
      reject(new Error('the client went away in the middle of its request'))
    }
    const cancel = deadlines.start(() => {
      stream.removeListener('data', take)
      const message = 'the body of the request did not arrive in time'
      reject(new StatusError({ status: 'Failure', code: 408, reason: 'Timeout', message }))
    })
    stream.on('data', take)
    stream.once('end', () => {
      stop()
      resolve(pieces ? Buffer.concat(pieces) : (only ?? Buffer.alloc(0)))
    })
    stream.on('close', gone)
  })
}

function drained(stream: Duplex): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      stream.removeListener('drain', done)
      stream.removeListener('close', done)
      resolve()
    }
    stream.once('drain', done)
    stream.once('close', done)
  })
}
