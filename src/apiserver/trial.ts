import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ListMeta, Status } from '#api/gen/meta-v1.ts'
import type { KindDefinition } from '#api/kind.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import type { Clock } from '#base/clock.ts'
import { openMemoryStore } from '#store/memory/memory.ts'
import type { Store } from '#store/store.ts'
import { type ApiServer, createApiServer } from './apiserver.ts'
import type { BundledDefinitions } from './crd/install.ts'
import { plainKinds } from './fake-kinds.ts'
import { loadOrCreatePki, type Pki } from './pki/pki.ts'

/** An API server for tests: kinds without rules on a store in memory, and short ways to ask it. */
export interface Trial extends AsyncDisposable {
  readonly api: ApiServer
  readonly pki: Pki
  readonly store: Store
  call(method: ApiRequest['method'], path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
  /** The body as the object or Status it is. */
  readonly object: Shown
}

export interface Shown extends Record<string, unknown> {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: KubeObject['metadata'] & ListMeta
  readonly items?: readonly KubeObject[]
  readonly reason?: string
  readonly message?: string
  readonly details?: Status['details']
}

export interface TrialOptions {
  readonly store?: Store
  readonly kinds?: readonly KindDefinition[]
  readonly clock?: Clock
  readonly bodyTimeoutMs?: number
  readonly bundled?: BundledDefinitions
}

/** Who asks, unless the headers say otherwise: may do everything. */
export const adminToken = 'a-token-of-the-tests'

let sharedPki: Promise<Pki> | undefined

/** Keys and certificates take a moment, so all trials of a process share them. */
function trialPki(): Promise<Pki> {
  sharedPki ??= (async () => {
    const directory = mkdtempSync(join(tmpdir(), 'weft-pki-'))
    try {
      return await loadOrCreatePki({ directory, names: [], serviceAddresses: ['10.96.0.1'] })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })()
  return sharedPki
}

export async function startTrial(options: TrialOptions = {}): Promise<Trial> {
  const pki = await trialPki()
  const store = options.store ?? openMemoryStore()
  const api = await createApiServer({
    store,
    kinds: options.kinds ?? plainKinds(),
    pki,
    serviceCidrs: ['10.96.0.0/16', 'fd00:10:96::/112'],
    servers: [{ address: '172.30.0.1', port: 6443 }],
    staticTokens: new Map([[adminToken, { name: 'tester', groups: ['system:masters', 'system:authenticated'] }]]),
    ...(options.clock ? { clock: options.clock } : {}),
    ...(options.bundled ? { bundled: options.bundled } : {}),
    ...(options.bodyTimeoutMs ? { bodyTimeoutMs: options.bodyTimeoutMs } : {}),
  })
  return {
    api,
    pki,
    store,
    async call(method, path, body, headers = {}) {
      return read(await api.handler(requestOf(method, path, body, headers)))
    },
    async [Symbol.asyncDispose]() {
      await api.close()
      await store.close()
    },
  }
}

export function requestOf(
  method: ApiRequest['method'],
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
  signal: AbortSignal = new AbortController().signal,
): ApiRequest {
  const [path = '', query = ''] = url.split('?')
  const bytes = body === undefined || body instanceof Uint8Array ? body : Buffer.from(textOf(body))
  return {
    method,
    path,
    query,
    headers: {
      authorization: `Bearer ${adminToken}`,
      ...(bytes && method !== 'PATCH' ? { 'content-type': 'application/json' } : {}),
      ...headers,
    },
    body: bytes,
    signal,
  }
}

const textOf = (body: unknown): string => (typeof body === 'string' ? body : JSON.stringify(body))

export async function read({ status, headers, body }: ApiResponse): Promise<Answer> {
  const bytes = body instanceof Uint8Array ? body : Buffer.concat(await Array.fromAsync(body))
  const text = Buffer.from(bytes).toString()
  const object = headers['content-type']?.startsWith('application/json') ? JSON.parse(text) : {}
  return { status, headers, text, object }
}

export interface Event {
  readonly type: string
  readonly object: Shown
}

/** A watch, line by line. `next()` waits for the next event and throws when there is none for a while. */
class WatchReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #text = ''

  constructor(response: ApiResponse) {
    if (response.body instanceof Uint8Array) throw new Error(`No watch: ${Buffer.from(response.body).toString()}`)
    this.#chunks = response.body[Symbol.asyncIterator]()
  }

  /** Undefined at the end of the stream. */
  async next(withinMs = 5_000): Promise<Event | undefined> {
    for (;;) {
      const end = this.#text.indexOf('\n')
      if (end >= 0) {
        const line = this.#text.slice(0, end)
        this.#text = this.#text.slice(end + 1)
        return JSON.parse(line) as Event
      }
      const { value, done } = await within(this.#chunks.next(), withinMs)
      if (done) return undefined
      this.#text += Buffer.from(value).toString()
    }
  }

  /** `ADDED a`, `BOOKMARK`, … of the next events. */
  async take(count: number): Promise<string[]> {
    const lines: string[] = []
    for (let i = 0; i < count; i++) {
      const event = await this.next()
      const name = event?.object.metadata?.name
      lines.push(event === undefined ? 'end' : name ? `${event.type} ${name}` : event.type)
    }
    return lines
  }

  async stop(): Promise<void> {
    await this.#chunks.return?.()
  }
}

function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(new Error(`nothing came within ${ms} ms`)), ms)
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export async function openWatch(
  trial: Pick<Trial, 'api'>,
  url: string,
  headers?: Record<string, string>,
): Promise<WatchReader> {
  return new WatchReader(await trial.api.handler(requestOf('GET', url, undefined, headers)))
}

export const configMap = (name: string, more: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name },
  ...more,
})
