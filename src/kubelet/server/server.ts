import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { TLSSocket } from 'node:tls'
import type { Pod } from '#api/gen/core-v1.ts'
import { parseTime } from '#api/meta/time.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { type LogOptions, readLog } from '../logs/reader.ts'
import type { KeyPair } from '../node/certificates.ts'
import type { Machine } from '../node/machine.ts'
import type { ContainerRecord, Runtime } from '../runtime/runtime.ts'
import { Gate } from './authorize.ts'
import { type KubeletMetrics, renderContainerMetrics, renderResourceMetrics } from './metrics.ts'
import { refuse, type StreamRequest, Streams } from './streams.ts'

export interface KubeletServerOptions {
  readonly host: string
  readonly port: number
  readonly certificate: KeyPair
  /** PEM of the authority whose client certificates are believed. */
  readonly clientAuthority: string
  readonly nodeName: string
  readonly client: Client
  readonly runtime: Runtime
  readonly pods: { list(): readonly Pod[]; find(namespace: string, name: string): Pod | undefined }
  readonly metrics: KubeletMetrics
  readonly machine: Machine
  readonly clock: Clock
  readonly log: Log
  /** What else runs in this process and counts: the network. In Prometheus' text form. */
  readonly moreMetrics?: (() => Promise<string>) | undefined
}

/** An answer that is an error; the words go to the client as plain text. */
class HttpError extends Error {
  readonly status: number
  constructor(status: number, words: string) {
    super(words)
    this.status = status
  }
}

const requestHeadMs = 10_000

/** The kubelet's own API: what `kubectl logs`, `exec`, `attach` and `port-forward` reach through the API server. */
export class KubeletServer {
  readonly #options: KubeletServerOptions
  readonly #server: Server
  readonly #streams: Streams
  readonly #gate: Gate
  readonly #serving = new Set<Promise<void>>()

  constructor(options: KubeletServerOptions) {
    this.#options = options
    this.#streams = new Streams(options.log)
    this.#gate = new Gate(options.client, options.clock, options.nodeName)
    const { cert, key } = options.certificate
    // Clients without a certificate may still show a token, so TLS itself turns nobody away. Half-open: a client that
    // has said all it has to say still wants the answer.
    const settings = {
      cert,
      key,
      ca: options.clientAuthority,
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2' as const,
      allowHalfOpen: true,
      headersTimeout: requestHeadMs,
    }
    this.#server = createServer(settings, (request, response) => this.#track(this.#answer(request, response)))
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#track(this.#upgrade(request, socket, head)),
    )
    this.#server.on('tlsClientError', (error) => options.log.debug({ err: error }, 'a TLS client failed'))
  }

  /** The certificate was renewed: connections from now on see the new one. */
  renew({ cert, key }: KeyPair): void {
    this.#server.setSecureContext({ cert, key, ca: this.#options.clientAuthority })
  }

  /** Listens until `signal` aborts. Throws when the address is taken. */
  async run(signal: AbortSignal): Promise<void> {
    const { host, port, log } = this.#options
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error) =>
        reject(new Error(`Cannot listen on ${host}:${port} for the kubelet API: ${error.message}`, { cause: error })),
      )
      this.#server.listen(port, host, resolve)
    })
    log.info({ host, port }, 'kubelet API listens')
    if (!signal.aborted)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    this.#streams.close()
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await Promise.allSettled(this.#serving)
    await closed
  }

  /** Requests are tasks of this server: it has not stopped before they have. */
  #track(task: Promise<void>): void {
    const tracked = task
      .catch((error: unknown) => this.#options.log.warn({ err: error }, 'a kubelet API request failed'))
      .finally(() => this.#serving.delete(tracked))
    this.#serving.add(tracked)
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = new URL(request.url ?? '/', 'https://kubelet')
      if (url.pathname === '/healthz' || url.pathname === '/livez') return text(response, 'ok')
      await this.#admit(request, url)
      await this.#route(url, request, response)
    } catch (error) {
      if (response.headersSent) {
        response.destroy()
        return
      }
      const known = error instanceof HttpError
      if (!known) this.#options.log.warn({ err: error, path: request.url }, 'a kubelet API request failed')
      const words = error instanceof Error ? error.message : String(error)
      response.writeHead(known ? error.status : 500, { 'Content-Type': 'text/plain; charset=utf-8' }).end(`${words}\n`)
    }
  }

  async #admit(request: IncomingMessage, url: URL): Promise<void> {
    const caller = await this.#gate.authenticate(request.socket as TLSSocket, request.headers.authorization)
    if (caller === undefined) throw new HttpError(401, 'Unauthorized')
    const verb = verbs[request.method ?? ''] ?? 'get'
    const why = await this.#gate.refuses(caller, verb, subresourcesOf(url.pathname))
    if (why !== undefined) throw new HttpError(403, why)
  }

  async #route(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pods, runtime, metrics, machine } = this.#options
    const [head, ...rest] = url.pathname
      .split('/')
      .filter((p) => p !== '')
      .map(decodeURIComponent)
    if (request.method !== 'GET') throw new HttpError(405, 'Method Not Allowed')
    switch (head) {
      case 'pods':
        response.writeHead(200, { 'Content-Type': 'application/json' })
        response.end(JSON.stringify({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items: pods.list() }))
        return
      case 'metrics':
        if (rest[0] === 'resource')
          return text(response, renderResourceMetrics(await runtime.containerStats(), Date.now()))
        if (rest[0] === 'cadvisor')
          return text(response, renderContainerMetrics(await runtime.containerStats(), machine))
        if (rest.length === 0) {
          const more = (await this.#options.moreMetrics?.()) ?? ''
          return text(response, `${await metrics.render(pods.list())}${more}`)
        }
        break
      case 'containerLogs':
        return this.#logs(rest, url.searchParams, response)
    }
    throw new HttpError(404, '404 page not found')
  }

  async #logs(path: readonly string[], query: URLSearchParams, response: ServerResponse): Promise<void> {
    const [namespace = '', name = '', container = ''] = path
    const { runtime, clock } = this.#options
    const pod = this.#pod(namespace, name)
    const previous = query.get('previous') === 'true'
    const record = await this.#container(pod, container, previous)
    const options = logOptions(query, clock.now())
    const gone = new AbortController()
    response.on('close', () => gone.abort())
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8', 'X-Content-Type-Options': 'nosniff' })
    response.flushHeaders()
    const ended = async () => (await runtime.containerStatus(record.id, gone.signal))?.state !== 'running'
    try {
      await pipeline(readLog(record.logPath, options, ended, gone.signal), response)
    } catch (error) {
      if (!gone.signal.aborted) throw error
    }
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', (error) => this.#options.log.debug({ err: error }, 'a stream was cut'))
    let stream: StreamRequest
    try {
      const url = new URL(request.url ?? '/', 'https://kubelet')
      await this.#admit(request, url)
      stream = this.#streamOf(url)
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error)
      refuse(socket, error instanceof HttpError ? error.status : 500, words)
      return
    }
    await this.#streams.serve(request, socket, head, stream)
  }

  #streamOf(url: URL): StreamRequest {
    const [kind, namespace = '', name = '', container = ''] = url.pathname
      .split('/')
      .filter((p) => p !== '')
      .map(decodeURIComponent)
    const query = url.searchParams
    const on = (key: string) => query.get(key) === '1' || query.get(key) === 'true'
    const channels = { stdin: on('input'), stdout: on('output'), stderr: on('error'), tty: on('tty') }
    const ports = query
      .getAll('port')
      .flatMap((p) => p.split(','))
      .map(Number)
    const { runtime } = this.#options
    const pod = this.#pod(namespace, name)
    // A terminal has one output: the runtime refuses a second.
    const streams = { ...channels, stderr: channels.stderr && !channels.tty }
    const live = async () => {
      const record = await this.#container(pod, container, false)
      if (record.state !== 'running') throw new Error(`container not found ("${container}")`)
      return record.id
    }
    switch (kind) {
      case 'exec':
        return {
          kind,
          channels,
          ports,
          url: async () => runtime.execUrl(await live(), { command: query.getAll('command'), ...streams }),
        }
      case 'attach':
        return { kind, channels, ports, url: async () => runtime.attachUrl(await live(), streams) }
      case 'portForward':
        return {
          kind: 'portforward',
          channels,
          ports,
          url: async () => {
            const sandbox = (await runtime.listSandboxes(pod.metadata.uid)).find((s) => s.ready)
            if (sandbox === undefined) throw new Error(`pod not found ("${name}_${namespace}")`)
            return runtime.portForwardUrl(sandbox.id, ports)
          },
        }
      default:
        throw new HttpError(404, '404 page not found')
    }
  }

  #pod(namespace: string, name: string): Pod {
    const pod = this.#options.pods.find(namespace, name)
    if (pod === undefined) throw new HttpError(404, `pod does not exist`)
    return pod
  }

  async #container(pod: Pod, name: string, previous: boolean): Promise<ContainerRecord> {
    const { runtime } = this.#options
    const all = (await runtime.listContainers(pod.metadata.uid))
      .filter((c) => c.name === name)
      .toSorted((a, b) => b.createdAt - a.createdAt)
    // The newest that has run: one that waits to be started has nothing to show yet.
    const runs = all.filter((c) => c.state !== 'created')
    const [newest, before] = runs
    const chosen = previous
      ? newest?.state === 'exited' && before === undefined && all.length > runs.length
        ? newest
        : before
      : newest
    const record = chosen === undefined ? undefined : await runtime.containerStatus(chosen.id)
    if (record !== undefined) return record
    if (previous)
      throw new HttpError(400, `previous terminated container "${name}" in pod "${pod.metadata.name}" not found`)
    throw new HttpError(
      400,
      `container "${name}" in pod "${pod.metadata.name}" is waiting to start: ${waitingReason(pod, name)}`,
    )
  }
}

function waitingReason(pod: Pod, name: string): string {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {}
  const found = [...containerStatuses, ...initContainerStatuses].find((s) => s.name === name)
  const reason = found?.state.waiting?.reason ?? 'ContainerCreating'
  if (reason === 'ErrImagePull') return "image can't be pulled"
  return reason === 'ImagePullBackOff' ? 'trying and failing to pull image' : reason
}

const verbs: Readonly<Record<string, string>> = {
  GET: 'get',
  HEAD: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
}

/** Which right a path needs; the finer ones of KEP-2862 first, `proxy` grants all. */
function subresourcesOf(path: string): string[] {
  const head = path.split('/')[1] ?? ''
  switch (head) {
    case 'metrics':
      return ['metrics']
    case 'stats':
      return ['stats']
    case 'logs':
      return ['log']
    case 'pods':
    case 'configz':
      return [head, 'proxy']
    default:
      return ['proxy']
  }
}

function logOptions(query: URLSearchParams, now: number): LogOptions {
  const number = (name: string): number | undefined => {
    const value = query.get(name)
    if (value === null || value === '') return undefined
    const parsed = Number(value)
    if (!Number.isInteger(parsed) || parsed < 0)
      throw new HttpError(422, `${name}: must be a whole number, not ${JSON.stringify(value)}`)
    return parsed
  }
  const sinceSeconds = number('sinceSeconds')
  const sinceTime = query.get('sinceTime') ?? undefined
  return {
    follow: query.get('follow') === 'true',
    timestamps: query.get('timestamps') === 'true',
    tailLines: number('tailLines'),
    limitBytes: number('limitBytes'),
    since: sinceSeconds === undefined ? parseTime(sinceTime) : now - sinceSeconds * 1000,
  }
}

function text(response: ServerResponse, words: string): void {
  response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' }).end(words)
}
