import type { MessagePort } from 'node:worker_threads'
import type { ApiHandler, ApiRequest, ApiResponse } from '#api/wire.ts'

/**
 * An ApiHandler across a MessagePort: the scheduler and the controllers live in a thread of their own, so that none of
 * them can stall a request. Bodies that are streams (watches) keep at most `windowBytes` under way; the reader's side
 * gives back what it has consumed.
 */

type ToServer =
  | (Omit<ApiRequest, 'signal'> & { readonly type: 'request'; readonly id: number })
  | { readonly type: 'abort'; readonly id: number }
  | { readonly type: 'consumed'; readonly id: number; readonly bytes: number }

type ToClient =
  | {
      readonly type: 'answer'
      readonly id: number
      readonly status: number
      readonly headers: ApiResponse['headers']
      /** Undefined: chunks follow. */
      readonly body: Uint8Array | undefined
    }
  | { readonly type: 'chunk'; readonly id: number; readonly chunk: Uint8Array }
  | { readonly type: 'end'; readonly id: number }
  | { readonly type: 'error'; readonly id: number; readonly message: string }

/** A few hundred events: enough to keep the other thread busy, little enough to bound a stalled one. */
const windowBytes = 1024 * 1024

/**
 * A copy in a buffer of its own, to be handed over: what is posted otherwise takes the whole pool or page along that its
 * bytes happen to lie in.
 */
const handedOver = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes)

function handedOverAll(chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const [only] = chunks
  if (chunks.length === 1 && only !== undefined) return handedOver(only)
  const all = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  for (const chunk of chunks) {
    all.set(chunk, at)
    at += chunk.length
  }
  return all
}

/** The server's side: answers what comes through the port until the port closes. Returns a function that stops. */
export function servePort(port: MessagePort, handler: ApiHandler): () => void {
  const calls = new Map<number, { readonly abort: AbortController; consumed(bytes: number): void }>()
  const post = (message: ToClient, ...transfer: Uint8Array<ArrayBuffer>[]) =>
    port.postMessage(
      message,
      transfer.map((bytes) => bytes.buffer),
    )
  const stop = () => {
    for (const { abort } of calls.values()) abort.abort(new DOMException('the port is closed', 'AbortError'))
    port.off('message', onMessage)
    port.off('close', stop)
  }
  const answer = async (request: Extract<ToServer, { type: 'request' }>): Promise<void> => {
    const { id, type: _, ...rest } = request
    const abort = new AbortController()
    let underWay = 0
    let wake = () => {}
    // Events that come in one turn of the loop go in one message: under load that is many.
    let waiting: Uint8Array[] = []
    const flush = () => {
      if (waiting.length === 0) return
      const chunk = handedOverAll(waiting)
      waiting = []
      post({ type: 'chunk', id, chunk }, chunk)
    }
    const consumed = (bytes: number) => {
      underWay -= bytes
      wake()
    }
    calls.set(id, { abort, consumed })
    abort.signal.addEventListener('abort', () => wake(), { once: true })
    try {
      const { status, headers, body } = await handler({ ...rest, signal: abort.signal })
      if (body instanceof Uint8Array) {
        const whole = handedOver(body)
        post({ type: 'answer', id, status, headers, body: whole }, whole)
        return
      }
      post({ type: 'answer', id, status, headers, body: undefined })
      for await (const chunk of body) {
        if (waiting.length === 0) setImmediate(flush)
        waiting.push(chunk)
        underWay += chunk.length
        while (underWay > windowBytes && !abort.signal.aborted) {
          await new Promise<void>((resolve) => {
            wake = resolve
          })
        }
        if (abort.signal.aborted) break
      }
      flush()
      post({ type: 'end', id })
    } catch (error) {
      flush()
      post({ type: 'error', id, message: error instanceof Error ? error.message : String(error) })
    } finally {
      calls.delete(id)
    }
  }
  const onMessage = (message: ToServer) => {
    switch (message.type) {
      case 'request':
        // `answer` catches everything itself.
        void answer(message)
        break
      case 'abort':
        calls.get(message.id)?.abort.abort(new DOMException('the caller has gone', 'AbortError'))
        break
      case 'consumed':
        calls.get(message.id)?.consumed(message.bytes)
        break
      default:
        message satisfies never
    }
  }
  port.on('message', onMessage)
  port.on('close', stop)
  return stop
}

interface Pending {
  resolve(response: ApiResponse): void
  reject(error: unknown): void
  /** Set once the answer has begun and its body streams. */
  stream: ChunkStream | undefined
}

/** The client's side: an ApiHandler whose requests go through the port. */
export function createPortHandler(port: MessagePort): ApiHandler {
  const pending = new Map<number, Pending>()
  let serial = 0
  let closed = false
  const post = (message: ToServer) => port.postMessage(message)
  port.on('message', (message: ToClient) => {
    const call = pending.get(message.id)
    if (call === undefined) return
    switch (message.type) {
      case 'answer': {
        const { id, status, headers, body } = message
        if (body !== undefined) {
          pending.delete(id)
          call.resolve({ status, headers, body })
          break
        }
        call.stream = new ChunkStream({
          consumed: (bytes) => post({ type: 'consumed', id, bytes }),
          left() {
            if (pending.delete(id)) post({ type: 'abort', id })
          },
        })
        call.resolve({ status, headers, body: call.stream })
        break
      }
      case 'chunk':
        call.stream?.push(message.chunk)
        break
      case 'end':
        pending.delete(message.id)
        call.stream?.end()
        break
      case 'error': {
        const error = new Error(`The API server failed: ${message.message}`)
        pending.delete(message.id)
        call.reject(error)
        call.stream?.end(error)
        break
      }
      default:
        message satisfies never
    }
  })
  port.on('close', () => {
    closed = true
    const error = new Error('Cannot reach the API server: its port is closed')
    for (const call of pending.values()) {
      call.reject(error)
      call.stream?.end(error)
    }
    pending.clear()
  })
  return ({ signal, ...request }) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      if (closed) return reject(new Error('Cannot reach the API server: its port is closed'))
      const id = serial++
      const abort = () => {
        const call = pending.get(id)
        if (!pending.delete(id)) return
        post({ type: 'abort', id })
        reject(signal.reason)
        call?.stream?.end(signal.reason)
      }
      signal.addEventListener('abort', abort, { once: true })
      const settle = () => {
        if (pending.get(id)?.stream === undefined) signal.removeEventListener('abort', abort)
      }
      const call: Pending = {
        resolve: (response) => {
          settle()
          resolve(response)
        },
        reject: (error) => {
          signal.removeEventListener('abort', abort)
          reject(error)
        },
        stream: undefined,
      }
      pending.set(id, call)
      const body = request.body === undefined ? undefined : handedOver(request.body)
      port.postMessage({ type: 'request', id, ...request, body }, body === undefined ? [] : [body.buffer])
    })
}

/** Chunks as they come; never more than the window, because the other side waits for `consumed`. */
class ChunkStream implements AsyncIterable<Uint8Array> {
  readonly #on: { consumed(bytes: number): void; left(): void }
  #chunks: Uint8Array[] = []
  #ended: { readonly error?: unknown } | undefined
  #wake = () => {}

  constructor(on: { consumed(bytes: number): void; left(): void }) {
    this.#on = on
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.#wake()
  }

  end(error?: unknown): void {
    this.#ended ??= error === undefined ? {} : { error }
    this.#wake()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      for (;;) {
        const chunks = this.#chunks
        this.#chunks = []
        for (const chunk of chunks) {
          yield chunk
          this.#on.consumed(chunk.length)
        }
        if (chunks.length > 0) continue
        if (this.#ended !== undefined) {
          if ('error' in this.#ended) throw this.#ended.error
          return
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      this.#on.left()
    }
  }
}
