import type { IncomingMessage } from 'node:http'
import { createConnection } from 'node:net'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Endpoint } from '#gateway/engine.ts'

const connectWithinMs = 2000

/**
 * A request that wants another protocol (WebSocket) is handed to the endpoint as it came, and bytes go both ways from then
 * on: no deadline, no retry and no mirror can be meant for what follows. Resolves when either side has ended; with false
 * where the endpoint took no connection and the client was told 503.
 */
export async function tunnel(request: IncomingMessage, client: Duplex, head: Buffer, to: Endpoint): Promise<boolean> {
  const backend = createConnection({ host: to.address, port: to.port })
  const timer = setTimeout(() => backend.destroy(new Error('no connection')), connectWithinMs)
  try {
    await new Promise<void>((resolve, reject) => {
      backend.once('connect', resolve)
      backend.once('error', reject)
    })
  } catch {
    client.end('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    return false
  } finally {
    clearTimeout(timer)
  }
  const lines = [`${request.method} ${request.url} HTTP/1.1`]
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    const name = request.rawHeaders[i] ?? ''
    if (!name.toLowerCase().startsWith('x-weft-')) lines.push(`${name}: ${request.rawHeaders[i + 1] ?? ''}`)
  }
  backend.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  backend.write(head)
  const ends = [pipeline(client, backend), pipeline(backend, client)]
  // A side that breaks off is an end as well: who looks at the bytes learns of it from the bytes.
  await Promise.allSettled(ends)
  return true
}
