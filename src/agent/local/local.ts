import { once } from 'node:events'
import { chmodSync, mkdtempSync, renameSync, rmdirSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Log } from '#base/log/log.ts'

/** Answers one question: with a value, or with a stream of them, each on a line. A RangeError is the asker's fault. */
export type Route = (query: URLSearchParams, signal: AbortSignal) => Promise<object> | AsyncIterable<object>

export interface LocalOptions {
  readonly socketPath: string
  /** By path, `/v1/flows`. A path that ends in `/` stands for all below it; the rest is the parameter `rest`. */
  readonly routes: ReadonlyMap<string, Route>
  readonly log: Log
}

/** Streams at once, so that no forgotten terminal costs a node its memory. */
const streamsMax = 64

/**
 * The agent's own questions and answers, as JSON over HTTP on a unix socket that only root may open: what `weft flows`,
 * `weft why`, `weft bpf` and `weft status` ask. Nothing here changes anything. Runs until `signal` aborts.
 */
export async function serveLocal({ socketPath, routes, log }: LocalOptions, signal: AbortSignal): Promise<void> {
  let streams = 0
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://agent')
    const gone = new AbortController()
    response.once('close', () => gone.abort(new DOMException('the asker has gone', 'AbortError')))
    const route = find(routes, url)
    if (request.method !== 'GET') return fail(response, 405, `${request.method} is not answered here: use GET`)
    if (route === undefined)
      return fail(response, 404, `there is no ${url.pathname}: use one of ${[...routes.keys()].join(' ')}`)
    if (streams >= streamsMax) return fail(response, 429, `${streamsMax} questions are being answered: try again later`)
    streams++
    answer(response, () => route(url.searchParams, gone.signal))
      .catch((err: unknown) => {
        if (gone.signal.aborted) return
        if (err instanceof RangeError) return fail(response, 400, err.message)
        log.error({ err, path: url.pathname }, 'a question could not be answered')
        fail(response, 500, err instanceof Error ? err.message : String(err))
      })
      .finally(() => streams--)
  })
  // Made where only we can look and moved when its rights are right, over what an agent that was killed left.
  const aside = mkdtempSync(`${socketPath}.`)
  const made = join(aside, 's')
  server.listen(made)
  await once(server, 'listening')
  chmodSync(made, 0o600)
  renameSync(made, socketPath)
  rmdirSync(aside)
  if (!signal.aborted) await once(signal, 'abort')
  server.closeAllConnections()
  server.close()
}

function find(routes: ReadonlyMap<string, Route>, url: URL): Route | undefined {
  const exact = routes.get(url.pathname)
  if (exact !== undefined) return exact
  const cut = url.pathname.lastIndexOf('/') + 1
  url.searchParams.set('rest', url.pathname.slice(cut))
  return routes.get(url.pathname.slice(0, cut))
}

async function answer(response: ServerResponse, ask: () => ReturnType<Route>): Promise<void> {
  const answered = ask()
  if (answered instanceof Promise) {
    const body = JSON.stringify(await answered)
    response.writeHead(200, { 'content-type': 'application/json' }).end(`${body}\n`)
    return
  }
  // The first value is waited for inside, so that a bad question still gets its own status.
  const values = answered[Symbol.asyncIterator]()
  let next = values.next()
  if (!response.headersSent) {
    await Promise.race([next, new Promise<void>((resolve) => setImmediate(resolve))])
    response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    response.flushHeaders()
  }
  for (;;) {
    const { done, value } = await next
    if (done === true) break
    if (!response.write(`${JSON.stringify(value)}\n`))
      await once(response, 'drain', { signal: AbortSignal.timeout(60_000) })
    next = values.next()
  }
  response.end()
}

function fail(response: ServerResponse, code: number, message: string): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  response.writeHead(code, { 'content-type': 'application/json' }).end(`${JSON.stringify({ message })}\n`)
}
