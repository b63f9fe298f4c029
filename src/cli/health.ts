import { once } from 'node:events'
import { createServer } from 'node:http'

export interface HealthOptions {
  readonly port: number
  readonly health: () => { readonly isWell: boolean; readonly words: string }
  /** In Prometheus' text format. */
  readonly metrics: () => Promise<string>
}

/** `/healthz`, `/readyz` and `/metrics` of a program that has no other server, on every address, until `signal` aborts. */
export async function serveHealth({ port, health, metrics }: HealthOptions, signal: AbortSignal): Promise<void> {
  const server = createServer((request, response) => {
    const plain = { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }
    const { pathname } = new URL(request.url ?? '/', 'http://health')
    if (pathname === '/healthz' || pathname === '/readyz') {
      const { isWell, words } = health()
      response.writeHead(isWell ? 200 : 503, plain).end(`${words}\n`)
    } else if (pathname === '/metrics') {
      metrics().then(
        (text) => response.writeHead(200, plain).end(text),
        (error: unknown) => response.writeHead(500, plain).end(`${error}\n`),
      )
    } else response.writeHead(404, plain).end('use /metrics, /healthz or /readyz\n')
  })
  server.listen(port, '::')
  await once(server, 'listening')
  if (!signal.aborted) await once(signal, 'abort')
  server.closeAllConnections()
  server.close()
}
