import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { badRequest } from '#api/meta/status.ts'
import type { SubresourceHandler, UpgradeHandler } from '../step.ts'
import { bearerProtocol } from './bearer.ts'

/** Bytes as they are, or as base64 for those who can only take text; without a protocol they are bytes. */
const binary = 'binary.k8s.io'
const base64 = 'base64.binary.k8s.io'

/** Nobody has anything to say to a log. */
const messageBytesMax = 1024
const keepAliveMs = 30_000
const closeNormal = 1000
const closeInternal = 1011

const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: messageBytesMax,
  perMessageDeflate: false,
  handleProtocols: (offered) => [binary, base64].find((protocol) => offered.has(protocol)) ?? false,
})

/** GET pods/{name}/log with an Upgrade to a WebSocket: each piece of the log is a message; its end closes the socket. */
export function logSocketHandler(logs: SubresourceHandler): UpgradeHandler {
  return async (call, socket, head) => {
    const { headers } = call.request
    if (headers.upgrade?.toLowerCase() !== 'websocket') throw badRequest('a log is upgraded to a WebSocket only')
    const offered = (headers['sec-websocket-protocol'] ?? '')
      .split(',')
      .map((protocol) => protocol.trim())
      .filter((protocol) => protocol !== '' && !protocol.startsWith(bearerProtocol))
    if (offered.length > 0 && !offered.includes(binary) && !offered.includes(base64))
      throw badRequest(`none of the subprotocols ${offered.join(', ')} is supported`)
    // What is wrong with the request is an answer in HTTP: nothing has been said yet.
    const answer = await logs(call)
    if (!('body' in answer)) throw new Error('the log of a pod is bytes')
    const client = await handshake(call.request, socket, head)
    if (client === undefined) return
    const beat = setInterval(() => client.ping(), keepAliveMs)
    try {
      const pieces = answer.body instanceof Uint8Array ? [answer.body] : answer.body
      for await (const piece of pieces) {
        if (client.readyState !== client.OPEN) break
        await send(client, piece)
      }
      client.close(closeNormal)
    } catch {
      // The kubelet went away in the middle: the reader is told that this is not the end of the log.
      client.close(closeInternal)
    } finally {
      clearInterval(beat)
    }
  }
}

/** Undefined: it was no good, and is answered and closed by the library. */
function handshake(
  { method, headers }: { readonly method: string; readonly headers: Readonly<Record<string, string>> },
  socket: Duplex,
  head: Buffer,
): Promise<WebSocket | undefined> {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve(undefined)
    socket.once('close', () => resolve(undefined))
    // The library reads the method and the headers alone.
    sockets.handleUpgrade({ method, headers } as unknown as IncomingMessage, socket, head, (client) => {
      client.on('error', () => {})
      resolve(client)
    })
  })
}

/** Resolves when the piece has left: a slow reader holds the log up, not our memory. */
function send(client: WebSocket, piece: Uint8Array): Promise<void> {
  const isText = client.protocol === base64
  const data = isText ? Buffer.from(piece).toString('base64') : piece
  return new Promise((resolve) => client.send(data, { binary: !isText }, () => resolve()))
}
