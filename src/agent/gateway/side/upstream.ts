import { Agent, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http'
import { type ClientHttp2Session, connect } from 'node:http2'
import { createConnection } from 'node:net'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Backend, Endpoint } from '#gateway/engine.ts'

/** What goes to a backend. */
export interface Call {
  readonly method: string
  readonly path: string
  readonly host: string
  readonly headers: OutgoingHttpHeaders
  /** Absent: there is none. */
  readonly body?: AsyncIterable<Buffer>
  readonly signal: AbortSignal
}

export interface Reply {
  readonly code: number
  readonly headers: IncomingHttpHeaders
  readonly body: Readable
  /** Those that came behind the body, once it has ended. */
  trailers(): NodeJS.Dict<string>
}

/** The connection could not be made, or had gone before the request was sent: another endpoint may be asked. */
export class NotSent extends Error {
  constructor(cause: unknown) {
    super('the request could not be sent', { cause })
  }
}

const connectWithinMs = 2000
const idleMs = 20_000

/** Connections to endpoints, kept and used again. */
export class Upstream {
  readonly #agent = new Agent({ keepAlive: true, scheduling: 'lifo', timeout: 0, keepAliveMsecs: 30_000 })
  readonly #sessions = new Map<string, ClientHttp2Session>()

  send(backend: Backend, endpoint: Endpoint, call: Call): Promise<Reply> {
    return backend.protocol === 'h2c' ? this.#send2(endpoint, call) : this.#send1(endpoint, call)
  }

  #send1(endpoint: Endpoint, { method, path, headers, host, body, signal }: Call): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let connected = false
      const sent = request({
        host: endpoint.address,
        port: endpoint.port,
        method,
        path,
        setHost: false,
        headers: { ...headers, host },
        agent: this.#agent,
        signal,
      })
      sent.on('socket', (socket) => {
        connected = !socket.connecting
        if (connected) return
        const timer = setTimeout(
          () => sent.destroy(new Error(`no connection within ${connectWithinMs} ms`)),
          connectWithinMs,
        )
        sent.on('close', () => clearTimeout(timer))
        socket.once('connect', () => {
          connected = true
          clearTimeout(timer)
        })
      })
      sent.on('response', (reply) =>
        resolve({
          code: reply.statusCode ?? 502,
          headers: reply.headers,
          body: reply,
          trailers: () => reply.trailers,
        }),
      )
      sent.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection that the backend closed in this moment has not seen the request.
        const stale = sent.reusedSocket && body === undefined && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
        reject(!connected || stale ? new NotSent(error) : error)
      })
      if (body === undefined) sent.end()
      else pipeline(body, sent).catch(() => sent.destroy())
    })
  }

  #send2(endpoint: Endpoint, { method, path, headers, host, body, signal }: Call): Promise<Reply> {
    return new Promise((resolve, reject) => {
      let session: ClientHttp2Session
      try {
        session = this.#session(endpoint)
      } catch (error) {
        reject(new NotSent(error))
        return
      }
      const stream = session.request(
        { ...headers, ':method': method, ':path': path, ':authority': host, ':scheme': 'http' },
        { endStream: body === undefined, signal },
      )
      let trailers: NodeJS.Dict<string> = {}
      stream.on('trailers', (got) => {
        trailers = got as NodeJS.Dict<string>
      })
      stream.on('response', (got) => {
        const { ':status': code = 502, ...rest } = got
        resolve({ code, headers: rest as IncomingHttpHeaders, body: stream, trailers: () => trailers })
      })
      stream.on('error', (error) => reject(session.connecting || session.destroyed ? new NotSent(error) : error))
      if (body !== undefined) pipeline(body, stream).catch(() => stream.destroy())
    })
  }

  #session({ address, port }: Endpoint): ClientHttp2Session {
    const key = `${address} ${port}`
    const known = this.#sessions.get(key)
    if (known !== undefined && !known.closed && !known.destroyed) return known
    const socket = createConnection({ host: address, port })
    const timer = setTimeout(() => socket.destroy(new Error('no connection')), connectWithinMs)
    socket.once('connect', () => clearTimeout(timer))
    socket.once('close', () => clearTimeout(timer))
    const session = connect(`http://${address.includes(':') ? `[${address}]` : address}:${port}`, {
      createConnection: () => socket,
    })
    session.on('error', () => this.#forget(key, session))
    session.on('close', () => this.#forget(key, session))
    session.on('goaway', () => this.#forget(key, session))
    session.setTimeout(idleMs, () => session.close())
    this.#sessions.set(key, session)
    return session
  }

  #forget(key: string, session: ClientHttp2Session): void {
    if (this.#sessions.get(key) === session) this.#sessions.delete(key)
  }

  close(): void {
    this.#agent.destroy()
    for (const session of this.#sessions.values()) session.destroy()
  }
}
