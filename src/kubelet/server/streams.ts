import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws'
import type { Log } from '#base/log/log.ts'
import { closeInternal, closeNormal } from './channel-socket.ts'
import { type ChannelOptions, carryChannels } from './channels.ts'
import { carryPorts, portForwardProtocol, portsMax } from './ports.ts'
import { splice, UpgradeRefused, upgrade } from './upstream.ts'

/** A stream that a client asks for, with where the runtime will serve it. */
export interface StreamRequest {
  readonly kind: 'exec' | 'attach' | 'portforward'
  readonly channels: ChannelOptions
  /** Of a port-forward; SPDY names them later, stream by stream. */
  readonly ports: readonly number[]
  /** A URL is good for one connection, so it is asked for when it is needed. */
  readonly url: () => Promise<string>
}

const tunnel = 'SPDY/3.1+portforward.k8s.io'
/** `ws` takes no "/" in the name of a subprotocol; the real name goes into the answer. */
const tunnelAlias = 'weft-portforward-tunnel'
const channelProtocols = ['v5.channel.k8s.io', 'v4.channel.k8s.io']
const portProtocols = ['v4.channel.k8s.io']
const messageBytesMax = 16 << 20
const keepAliveMs = 30_000

/** Serves exec, attach and port-forward: SPDY by passing bytes through, WebSockets by translation. */
export class Streams {
  readonly #log: Log
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: messageBytesMax,
    perMessageDeflate: false,
    // Only the chosen one is still there.
    handleProtocols: ([chosen]) => chosen ?? false,
  })

  constructor(log: Log) {
    this.#log = log
    this.#sockets.on('headers', (headers) => {
      for (const [i, line] of headers.entries())
        if (line === `Sec-WebSocket-Protocol: ${tunnelAlias}`) headers[i] = `Sec-WebSocket-Protocol: ${tunnel}`
    })
  }

  /** Serves one upgrade to its end. Never throws: what goes wrong is written to the client. */
  async serve(request: IncomingMessage, socket: Duplex, head: Buffer, stream: StreamRequest): Promise<void> {
    const kind = (request.headers.upgrade ?? '').toLowerCase()
    try {
      if (kind === 'spdy/3.1') await this.#passThrough(request, socket, head, await stream.url())
      else if (kind === 'websocket') await this.#webSocket(request, socket, head, stream)
      else refuse(socket, 400, `unable to upgrade: unknown protocol ${JSON.stringify(kind)}`)
    } catch (error) {
      this.#log.info({ err: error, stream: stream.kind }, 'a stream ended in an error')
      if (error instanceof UpgradeRefused) return refuse(socket, error.status, error.message)
      refuse(socket, 500, error instanceof Error ? error.message : String(error))
    }
  }

  close(): void {
    for (const socket of this.#sockets.clients) socket.terminate()
    this.#sockets.close()
  }

  /** After the switch of protocols both sides speak the same: nothing has to be understood. */
  async #passThrough(request: IncomingMessage, socket: Duplex, head: Buffer, url: string): Promise<void> {
    const headers: Record<string, string | string[]> = {}
    for (const [name, value] of Object.entries(request.headers))
      if (value !== undefined && !['host', 'authorization', 'cookie'].includes(name)) headers[name] = value
    const upgraded = await upgrade(url, request.method ?? 'POST', headers)
    const { statusCode, statusMessage, rawHeaders } = upgraded.response
    const lines = [`HTTP/1.1 ${statusCode} ${statusMessage}`]
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
    socket.write(`${lines.join('\r\n')}\r\n\r\n`)
    if (upgraded.head.length > 0) socket.write(upgraded.head)
    if (head.length > 0) upgraded.socket.write(head)
    await splice(socket, upgraded.socket)
  }

  async #webSocket(request: IncomingMessage, socket: Duplex, head: Buffer, stream: StreamRequest): Promise<void> {
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim())
    const tunnelled = stream.kind === 'portforward' && offered.includes(tunnel)
    const spoken = stream.kind === 'portforward' ? portProtocols : channelProtocols
    const chosen = tunnelled ? tunnelAlias : spoken.find((protocol) => offered.includes(protocol))
    if (chosen === undefined)
      return refuse(socket, 400, `unable to upgrade: none of the subprotocols ${offered.join(', ')} is supported`)
    if (stream.kind === 'portforward' && !tunnelled) checkPorts(stream.ports)
    request.headers['sec-websocket-protocol'] = chosen
    // Asked before the answer, so that a container that is not there is an HTTP error and not a closed socket.
    const url = await stream.url()
    const client = await new Promise<WebSocket | undefined>((resolve) => {
      // A handshake that is no good is answered by the library, and the connection closed.
      socket.once('close', () => resolve(undefined))
      this.#sockets.handleUpgrade(request, socket, head, resolve)
    })
    if (client === undefined) return
    const beat = setInterval(() => client.ping(), keepAliveMs)
    client.on('close', () => clearInterval(beat))
    client.on('error', (error) => this.#log.debug({ err: error }, 'a WebSocket failed'))
    try {
      if (tunnelled) await this.#tunnel(client, url)
      else if (stream.kind === 'portforward') await carryPorts(client, url, stream.ports)
      else await carryChannels(client, url, stream.channels)
    } catch (error) {
      // It speaks WebSocket by now: an answer in HTTP would be noise to it.
      this.#log.info({ err: error, stream: stream.kind }, 'a stream ended in an error')
      client.close(closeInternal)
    }
  }

  /** The frames' payloads are the bytes of a SPDY connection. */
  async #tunnel(client: WebSocket, url: string): Promise<void> {
    const stream = createWebSocketStream(client, { allowHalfOpen: false })
    try {
      const upgraded = await upgrade(url, 'POST', {
        Connection: 'Upgrade',
        Upgrade: 'SPDY/3.1',
        'X-Stream-Protocol-Version': portForwardProtocol,
        'Content-Length': '0',
      })
      if (upgraded.head.length > 0) stream.write(upgraded.head)
      await splice(stream, upgraded.socket)
    } finally {
      client.close(closeNormal)
    }
  }
}

/** Throws what the client is told. */
function checkPorts(ports: readonly number[]): void {
  if (ports.length === 0) throw new UpgradeRefused(400, 'query parameter "port" is required')
  if (ports.length > portsMax) throw new UpgradeRefused(400, `at most ${portsMax} ports in one WebSocket`)
  if (ports.some((port) => !Number.isInteger(port) || port < 1 || port > 65_535))
    throw new UpgradeRefused(400, 'query parameter "port" must be numbers from 1 to 65535')
}

/** An answer in HTTP to a request for an upgrade; nothing where the switch has been made already. */
export function refuse(socket: Duplex, status: number, words: string): void {
  if (socket.destroyed || !socket.writable) return
  const body = `${words}\n`
  const head = [
    `HTTP/1.1 ${status} ${status === 403 ? 'Forbidden' : status === 404 ? 'Not Found' : 'Error'}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
