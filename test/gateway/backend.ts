/**
 * A backend for tests: `backend.ts ADDRESS PORT [h2c]`. Echoes what it was asked as JSON. The path's query says more:
 * `delay=MS` before the head, `drip=MS` between ten pieces of the body, `code=N`, `fail=N` (503 for the first N requests
 * with this `key`), `bytes=N` for a body of that size, `remember=KEY` for /recall?key=KEY to tell of later.
 * Ends with its standard input.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createServer2 } from 'node:http2'
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

const [address = '', port = '', mode = 'h1'] = process.argv.slice(2)
let connections = 0
const failures = new Map<string, number>()
const memory = new Map<string, object>()

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://backend')
  const query = (name: string): number => Number(url.searchParams.get(name) ?? 0)
  const sum = createHash('sha256')
  let bytes = 0
  for await (const chunk of request) {
    sum.update(chunk as Buffer)
    bytes += (chunk as Buffer).length
  }
  const remembered = url.searchParams.get('remember')
  const { host } = request.headers
  if (remembered !== null)
    memory.set(remembered, { method: request.method, url: request.url, sha256: sum.copy().digest('hex'), host })
  if (url.pathname === '/recall') {
    response.end(JSON.stringify(memory.get(url.searchParams.get('key') ?? '') ?? null))
    return
  }
  if (query('delay') > 0) await pause(query('delay'))
  const key = url.searchParams.get('key') ?? ''
  const failed = failures.get(key) ?? 0
  if (failed < query('fail')) {
    failures.set(key, failed + 1)
    response.statusCode = query('code') || 503
    response.end(`failed ${failed + 1}\n`)
    return
  }
  if (query('code') > 0 && query('fail') === 0) response.statusCode = query('code')
  if (query('bytes') > 0) {
    response.end(Buffer.alloc(query('bytes'), 'x'))
    return
  }
  const { method, url: path, headers } = request
  const body = JSON.stringify({
    ...{ backend: `${address}:${port}`, method, url: path, headers, bytes, sha256: sum.digest('hex'), connections },
  })
  response.setHeader('content-type', 'application/json')
  if (query('drip') > 0) {
    const size = Math.ceil(body.length / 10)
    for (let at = 0; at < body.length && !response.destroyed; at += size) {
      response.write(body.slice(at, at + size))
      await pause(query('drip'))
    }
    response.end()
    return
  }
  response.end(body)
}

const handle = (request: IncomingMessage, response: ServerResponse): void => {
  answer(request, response).catch((error: unknown) => response.destroy(error as Error))
}
const server =
  mode === 'h2c'
    ? createServer2({}, handle as unknown as Parameters<typeof createServer2>[1])
    : createServer({ keepAliveTimeout: 60_000, maxHeaderSize: 65_536 }, handle)
server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
  // RFC 6455, 4.2.2: HAProxy looks whether the answer fits the key.
  const accept = createHash('sha1')
    .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest('base64')
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  )
  socket.on('error', () => socket.destroy())
  socket.pipe(socket)
})
server.on('connection', () => connections++)
server.listen(Number(port), address, () => process.stdout.write('listening\n'))
process.stdin.on('end', () => process.exit(0)).resume()
