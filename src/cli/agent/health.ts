import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Agent } from '#agent/agent.ts'

/** `/metrics` and `/healthz` of a network agent without a kubelet beside it, until `signal` aborts. */
export async function serveHealth(network: Agent, port: number, signal: AbortSignal): Promise<void> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://agent')
    if (pathname === '/healthz' || pathname === '/readyz') {
      const { state } = network.status()
      response.writeHead(state === 'ready' ? 200 : 503, { 'content-type': 'text/plain' }).end(`${state}\n`)
    } else if (pathname === '/metrics') {
      network.registry.metrics().then(
        (text) => response.writeHead(200, { 'content-type': network.registry.contentType }).end(text),
        (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error}\n`),
      )
    } else response.writeHead(404, { 'content-type': 'text/plain' }).end('use /metrics, /healthz or /readyz\n')
  })
  server.listen(port, '::')
  await once(server, 'listening')
  if (!signal.aborted) await once(signal, 'abort')
  server.closeAllConnections()
  server.close()
}
