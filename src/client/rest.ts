import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import { formatApiVersion } from '#api/meta/gvk.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { ApiHandler, ApiRequest, ApiResponse } from '#api/wire.ts'
import { delay } from '#base/async/delay.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import type {
  Client,
  Draft,
  KubeList,
  ListOptions,
  ObjectKey,
  PatchType,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './client.ts'
import {
  createRequest,
  deleteCollectionRequest,
  deleteRequest,
  getRequest,
  linesOf,
  listRequest,
  parseWatchLine,
  patchRequest,
  type RequestParts,
  statusErrorOf,
  updateRequest,
  watchRequest,
} from './request.ts'

export interface RestClientOptions {
  /** `Bearer …`; absent where the transport itself shows who is calling. */
  readonly authorization?: string
  readonly userAgent?: string
  readonly clock?: Clock
  /** For everything but watches, from sending to the last byte. Absent: no limit (in process there is no way to get lost). */
  readonly timeoutMs?: number
}

/** The largest object that can come in a watch: the server's own limit for a request body is 3 MiB, protobuf may double as JSON. */
const lineBytesMax = 16 * 1024 * 1024
/** As client-go: a server that asks for patience gets it this often. */
const patienceMax = 10

/** The API over any transport that carries requests: HTTP/2, a MessagePort, or the server's own handler. */
export class RestClient implements Client {
  readonly #send: ApiHandler
  readonly #options: RestClientOptions
  readonly #clock: Clock

  constructor(send: ApiHandler, options: RestClientOptions = {}) {
    this.#send = send
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  async get<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    options: { readonly subresource?: string; readonly signal?: AbortSignal } = {},
  ): Promise<K> {
    return this.#object<K>(getRequest(resource, key, options.subresource), options.signal)
  }

  async list<K extends KubeObject>(
    resource: Resource<K>,
    options: ListOptions & { readonly signal?: AbortSignal } = {},
  ): Promise<KubeList<K>> {
    const list = await this.#object<KubeList<K> & { kind?: string }>(listRequest(resource, options), options.signal)
    const items = (list.items ?? []) as K[]
    // Items of a list do not say their kind on the wire, but an object of ours always does.
    const [apiVersion, kind] =
      options.metadataOnly === true
        ? ['meta.k8s.io/v1', 'PartialObjectMetadata']
        : [formatApiVersion(resource), resource.kind]
    for (const item of items) {
      item.apiVersion ??= apiVersion
      item.kind ??= kind
    }
    return { metadata: list.metadata, items }
  }

  async *watch<K extends KubeObject>(resource: Resource<K>, options: WatchOptions): AsyncGenerator<WatchEvent<K>> {
    const { signal } = options
    const answer = await this.#answer(watchRequest(resource, options), signal)
    try {
      for await (const line of linesOf(chunksOf(answer.body), lineBytesMax)) yield parseWatchLine<K>(line)
    } catch (error) {
      signal.throwIfAborted()
      throw error
    }
    signal.throwIfAborted()
  }

  async create<K extends KubeObject>(resource: Resource<K>, object: Draft<K>, options: WriteOptions = {}): Promise<K> {
    const { namespace } = object.metadata
    const body = { apiVersion: formatApiVersion(resource), kind: resource.kind, ...object }
    return this.#object<K>(createRequest(resource, { namespace }, body, options), options.signal)
  }

  async createSubresource<B extends KubeObject>(
    resource: Resource,
    key: ObjectKey,
    subresource: string,
    body: Draft<B>,
    options: WriteOptions = {},
  ): Promise<B> {
    return this.#object<B>(createRequest(resource, key, body, { ...options, subresource }), options.signal)
  }

  async update<K extends KubeObject>(resource: Resource<K>, object: K, options: WriteOptions = {}): Promise<K> {
    return this.#object<K>(updateRequest(resource, object, options), options.signal)
  }

  async patch<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    type: PatchType,
    patch: unknown,
    options: WriteOptions = {},
  ): Promise<K> {
    return this.#object<K>(patchRequest(resource, key, type, patch, options), options.signal)
  }

  async delete(
    resource: Resource,
    key: ObjectKey,
    options: Partial<DeleteOptions> & { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    await this.#text(deleteRequest(resource, key, options), options.signal)
  }

  async deleteCollection(
    resource: Resource,
    options: ListOptions & Partial<DeleteOptions> & { readonly signal?: AbortSignal },
  ): Promise<void> {
    await this.#text(deleteCollectionRequest(resource, options), options.signal)
  }

  async raw(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<unknown> {
    const [bare = '', query = ''] = path.split('?', 2)
    const content = body === undefined ? {} : { contentType: 'application/json', body }
    const text = await this.#text({ method, path: bare, query, accept: 'application/json, */*', ...content }, signal)
    try {
      return JSON.parse(text)
    } catch {
      // `ok`, a log: what is not JSON is given as the text it is.
      return text
    }
  }

  async #object<T>(parts: RequestParts, signal: AbortSignal | undefined): Promise<T> {
    const text = await this.#text(parts, signal)
    try {
      return JSON.parse(text) as T
    } catch (cause) {
      throw new Error(`Cannot read the answer to ${parts.method} ${parts.path} as JSON`, { cause })
    }
  }

  async #text(parts: RequestParts, signal: AbortSignal | undefined): Promise<string> {
    const { timeoutMs } = this.#options
    if (timeoutMs === undefined) return readAll((await this.#answer(parts, signal)).body)
    const late = new AbortController()
    const cancel = this.#clock.schedule(timeoutMs, () =>
      late.abort(new DOMException(`${parts.method} ${parts.path} took more than ${timeoutMs} ms`, 'TimeoutError')),
    )
    try {
      const both = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal])
      return await readAll((await this.#answer(parts, both)).body)
    } finally {
      cancel()
    }
  }

  /** Sends, waits where the server asks for it, and throws what it refuses. */
  async #answer(parts: RequestParts, signal: AbortSignal = new AbortController().signal): Promise<ApiResponse> {
    const request = this.#request(parts, signal)
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted()
      const answer = await this.#send(request)
      if (answer.status < 400) return answer
      const error = statusErrorOf(answer.status, await readAll(answer.body), answer.headers['retry-after'])
      const seconds = error.retryAfterSeconds
      // An eviction's 429 is an answer, not a plea: its caller decides how long to try.
      const asksPatience = error.code === 429 && seconds !== undefined && !parts.path.endsWith('/eviction')
      if (!asksPatience || attempt > patienceMax) throw error
      await delay(seconds * 1000, signal, this.#clock)
    }
  }

  #request(parts: RequestParts, signal: AbortSignal): ApiRequest {
    const { authorization, userAgent = 'weft' } = this.#options
    return {
      method: parts.method,
      path: parts.path,
      query: parts.query,
      headers: {
        accept: parts.accept,
        'user-agent': userAgent,
        ...(parts.contentType === undefined ? {} : { 'content-type': parts.contentType }),
        ...(authorization === undefined ? {} : { authorization }),
      },
      body: parts.body === undefined ? undefined : Buffer.from(JSON.stringify(parts.body)),
      signal,
    }
  }
}

async function* chunksOf(body: ApiResponse['body']): AsyncGenerator<Uint8Array, void> {
  if (body instanceof Uint8Array) yield body
  else yield* body
}

async function readAll(body: ApiResponse['body']): Promise<string> {
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.length).toString()
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}
