import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect } from 'node:net'
import type { Container, HTTPGetAction } from '#api/gen/core-v1.ts'

/** The answer of one probe. The message is what the Unhealthy event shows. */
export interface Answer {
  readonly ok: boolean
  readonly message: string
}

export interface AskOptions {
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/** A named port is looked up in the container. Throws where there is none of the name. */
export function portOf(port: number | string, container: Container): number {
  if (typeof port === 'number') return port
  const named = container.ports?.find((p) => p.name === port)?.containerPort
  const number = named ?? Number(port)
  if (!Number.isInteger(number) || number < 1 || number > 65535) throw new Error(`couldn't find port: ${port}`)
  return number
}

const bodyBytesMax = 10 * 1024
const redirectsMax = 10

/** 200 to 399 is well; redirects are followed on the same host only, another host's is taken for well too. */
export function askHttp(action: HTTPGetAction, container: Container, ip: string, options: AskOptions): Promise<Answer> {
  const { host, path = '/', scheme = 'HTTP', httpHeaders = [] } = action
  let port: number
  try {
    port = portOf(action.port, container)
  } catch (error) {
    return Promise.resolve({ ok: false, message: error instanceof Error ? error.message : String(error) })
  }
  const name = host || ip
  const literal = name.includes(':') ? `[${name}]` : name
  const url = new URL(`${scheme.toLowerCase()}://${literal}:${port}${path.startsWith('/') ? path : `/${path}`}`)
  const headers: Record<string, string> = { 'User-Agent': 'kube-probe/1.36', Accept: '*/*', Connection: 'close' }
  for (const { name: header, value } of httpHeaders) headers[header] = value
  return get(url, headers, options, redirectsMax)
}

function get(url: URL, headers: Record<string, string>, options: AskOptions, redirects: number): Promise<Answer> {
  const { timeoutMs, signal } = options
  return new Promise((resolve) => {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest
    const bound = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
    const fail = (why: string) => resolve({ ok: false, message: `Get "${url.href}": ${why}` })
    const request = send(url, { headers, agent: false, rejectUnauthorized: false, signal: bound }, (response) => {
      const status = response.statusCode ?? 0
      const { location } = response.headers
      if (status >= 300 && status < 400 && location !== undefined) {
        response.destroy()
        const next = new URL(location, url)
        if (next.hostname !== url.hostname) return resolve({ ok: true, message: 'redirected to another host' })
        if (redirects === 0) return fail(`stopped after ${redirectsMax} redirects`)
        return resolve(get(next, headers, options, redirects - 1))
      }
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        if (size < bodyBytesMax) chunks.push(chunk)
        size += chunk.length
      })
      response.on('error', () => {})
      response.on('close', () => {
        if (status >= 200 && status < 400) {
          resolve({ ok: true, message: Buffer.concat(chunks).toString('utf8').slice(0, bodyBytesMax) })
        } else resolve({ ok: false, message: `HTTP probe failed with statuscode: ${status}` })
      })
    })
    request.on('error', (error: NodeJS.ErrnoException) => {
      const timedOut = bound.aborted && !signal.aborted
      const why = 'context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
      fail(timedOut ? why : dialWords(url.hostname, Number(url.port || (url.protocol === 'https:' ? 443 : 80)), error))
    })
    request.end()
  })
}

/** Go's words for a connection that did not come about, as upstream's events show them. */
function dialWords(host: string, port: number, error: NodeJS.ErrnoException): string {
  const literal = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host
  const why =
    error.code === 'ECONNREFUSED'
      ? 'connect: connection refused'
      : error.code === 'EHOSTUNREACH'
        ? 'connect: no route to host'
        : error.message
  return error.code === 'ECONNRESET' ? 'read: connection reset by peer' : `dial tcp ${literal}:${port}: ${why}`
}

/** Whether something accepts. */
export function connectTcp(host: string, port: number, { timeoutMs, signal }: AskOptions): Promise<Answer> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, signal })
    const end = (answer: Answer) => {
      socket.destroy()
      resolve(answer)
    }
    socket.setTimeout(timeoutMs, () => {
      const literal = host.includes(':') ? `[${host}]` : host
      end({ ok: false, message: `dial tcp ${literal}:${port}: i/o timeout` })
    })
    socket.on('connect', () => end({ ok: true, message: '' }))
    socket.on('error', (error) => end({ ok: false, message: dialWords(host, port, error) }))
  })
}
