import { stringify } from 'yaml'
import type { StatusError } from '#api/meta/status.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import type { Sink, Watch } from './watch/watch.ts'

/** Long answers that exist already, as the pieces they are made of. */
export class Pieces implements AsyncIterable<Uint8Array> {
  readonly pieces: readonly Uint8Array[]
  readonly length: number

  constructor(pieces: readonly Uint8Array[]) {
    this.pieces = pieces
    this.length = pieces.reduce((sum, piece) => sum + piece.length, 0)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    yield* this.pieces
  }
}

/** Bytes that a reader in this process may leave unread before its watch waits. */
const unreadBytesMax = 256 * 1024

/** A watch as a body. The listener gives it a sink; others iterate, and it ends when their request is aborted. */
export class WatchBody implements AsyncIterable<Uint8Array> {
  readonly watch: Watch
  readonly #request: Pick<ApiRequest, 'signal'>
  constructor(watch: Watch, request: Pick<ApiRequest, 'signal'>) {
    this.watch = watch
    this.#request = request
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    let unread: Uint8Array[] = []
    let bytes = 0
    let ended = false
    let wake = (): void => {}
    const sink: Sink = {
      write(piece) {
        unread.push(piece)
        bytes += piece.length
        wake()
        return bytes < unreadBytesMax
      },
      end() {
        ended = true
        wake()
      },
    }
    const { signal } = this.#request
    const stop = (): void => this.watch.stop()
    this.watch.start(sink)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    try {
      for (;;) {
        while (unread.length > 0) {
          const pieces = unread
          unread = []
          bytes = 0
          yield* pieces
          this.watch.ready()
        }
        if (ended) return
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    } finally {
      signal.removeEventListener('abort', stop)
      this.watch.stop()
    }
  }
}

const json = 'application/json'

/** A value of ours, encoded here. */
export function jsonResponse(status: number, value: unknown, contentType = json): ApiResponse {
  return { status, headers: { 'content-type': contentType }, body: Buffer.from(JSON.stringify(value)) }
}

/** What is encoded already. */
export function bytesResponse(status: number, body: Uint8Array, contentType: string): ApiResponse {
  return { status, headers: { 'content-type': contentType }, body }
}

/** For people and probes. */
export function textResponse(status: number, text: string): ApiResponse {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8' }, body: Buffer.from(text) }
}

/** What went wrong, as `Status`, with Retry-After where it has one. */
export function statusResponse(error: StatusError): ApiResponse {
  const retry = error.retryAfterSeconds
  return {
    status: error.code,
    headers: { 'content-type': json, ...(retry === undefined ? {} : { 'retry-after': String(retry) }) },
    body: Buffer.from(JSON.stringify(error.status)),
  }
}

/** The same answer as YAML, for those who ask for it. */
export async function asYaml(response: ApiResponse): Promise<ApiResponse> {
  const body = response.body instanceof Uint8Array ? response.body : Buffer.concat(await Array.fromAsync(response.body))
  const text = stringify(JSON.parse(Buffer.from(body).toString()))
  return { ...response, headers: { ...response.headers, 'content-type': 'application/yaml' }, body: Buffer.from(text) }
}

/** Upstream's limits: characters of one warning, bytes of all. */
const warningLengthMax = 256
const warningBytesMax = 4096

/** The Warning header for what is allowed but should be told; undefined for none. */
export function warningHeader(texts: readonly string[]): string | undefined {
  if (texts.length === 0) return undefined
  let header = ''
  for (const text of new Set(texts)) {
    const safe = text.replace(/[^\x20-\x7e\u00a0-\uffff]/g, ' ').slice(0, warningLengthMax)
    const next = `299 - "${safe.replace(/["\\]/g, '\\$&')}"`
    if (header.length + next.length > warningBytesMax) break
    header += header === '' ? next : `, ${next}`
  }
  return header
}
