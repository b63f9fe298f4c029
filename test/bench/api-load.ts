import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2'
import { parentPort, workerData } from 'node:worker_threads'
import { bodyOf, nameOf } from './api-body.ts'

/**
 * The load, in a thread of its own: what `apiload` does (test/bench/api.ts tells of it), over Node's http2 client. Up to 32
 * requests share a connection; an object is a ConfigMap of 300 bytes of data. Any failed request ends it.
 */
export interface LoadOptions {
  readonly url: string
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly objects: number
  readonly seconds: number
  readonly watchers: number
  readonly updates: number
}

export interface Measured {
  /** Requests a second, by step and concurrency: `create 16`. */
  readonly rates: Readonly<Record<string, number>>
  /** Median from the request to the last event. */
  readonly fanOutMs: number
}

const path = '/api/v1/namespaces/default/configmaps'
const perConnection = 32

class Load {
  readonly #options: LoadOptions
  readonly rates: Record<string, number> = {}
  readonly #sessions: ClientHttp2Session[] = []

  constructor(options: LoadOptions) {
    this.#options = options
  }

  open(): ClientHttp2Session {
    const { url, ca, cert, key } = this.#options
    const session = connect(url, { ca, cert, key, settings: { initialWindowSize: 4 * 1024 * 1024 } })
    session.on('connect', () => session.setLocalWindowSize(16 * 1024 * 1024))
    this.#sessions.push(session)
    return session
  }

  close(): void {
    for (const session of this.#sessions.splice(0)) session.destroy()
  }

  /** `workers` at a time until the count or the time is used up; requests a second. */
  async rate(
    name: string,
    workers: number,
    limit: { readonly count?: number; readonly seconds?: number },
    one: (session: ClientHttp2Session, i: number) => Promise<unknown>,
  ): Promise<void> {
    const sessions = Array.from({ length: Math.ceil(workers / perConnection) }, () => this.open())
    await Promise.all(sessions.map((session) => once(session, 'connect')))
    const start = performance.now()
    const end = limit.seconds === undefined ? Number.POSITIVE_INFINITY : start + limit.seconds * 1000
    const count = limit.count ?? Number.POSITIVE_INFINITY
    let next = 0
    await Promise.all(
      Array.from({ length: workers }, async (_, worker) => {
        const session = sessions[worker % sessions.length] as ClientHttp2Session
        while (next < count && performance.now() < end) await one(session, next++)
      }),
    )
    this.rates[`${name} ${workers}`] = next / ((performance.now() - start) / 1000)
    this.close()
  }

  /** One object is changed; how long until every watch has the event. */
  async fanOut(): Promise<number> {
    const { watchers, updates } = this.#options
    const writer = this.open()
    const name = nameOf(0)
    let object = JSON.parse(await send(writer, 'GET', `${path}/${name}`))
    object.metadata.annotations = { round: 'start' }
    // A fresh revision: nothing old is replayed.
    object = JSON.parse(await send(writer, 'PUT', `${path}/${name}`, JSON.stringify(object)))
    let heard = 0
    let last = 0
    let wake = (): void => {}
    const opened: Promise<unknown>[] = []
    for (let at = 0; at < watchers; at += 100) {
      const session = this.open()
      for (let i = at; i < Math.min(at + 100, watchers); i++) {
        const stream = session.request({
          ':path': `${path}?watch=1&resourceVersion=${object.metadata.resourceVersion}`,
        })
        opened.push(once(stream, 'response'))
        stream.on('data', (piece: Buffer) => {
          if (piece.at(-1) !== 0x0a) return
          heard++
          last = performance.now()
          if (heard === watchers) wake()
        })
      }
    }
    await Promise.all(opened)
    const times: number[] = []
    for (let round = 0; round < updates; round++) {
      heard = 0
      const all = new Promise<void>((resolve) => {
        wake = resolve
      })
      object.metadata.annotations = { round: String(round) }
      const start = performance.now()
      const answer = send(writer, 'PUT', `${path}/${name}`, JSON.stringify(object))
      await all
      times.push(last - start)
      object = JSON.parse(await answer)
    }
    this.close()
    return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? Number.NaN
  }
}

async function send(session: ClientHttp2Session, method: string, url: string, body?: string): Promise<string> {
  const stream = session.request({
    ':method': method,
    ':path': url,
    ...(body === undefined ? {} : { 'content-type': 'application/json' }),
  })
  stream.end(body)
  return read(stream, `${method} ${url}`)
}

function read(stream: ClientHttp2Stream, what: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let status = 0
    const pieces: Buffer[] = []
    stream.on('response', (headers) => {
      status = Number(headers[':status'])
    })
    stream.on('data', (piece: Buffer) => pieces.push(piece))
    stream.on('error', reject)
    stream.on('end', () => {
      const text = Buffer.concat(pieces).toString('latin1')
      if (status < 300) resolve(text)
      else reject(new Error(`${what}: ${status} ${text.slice(0, 300)}`))
    })
  })
}

async function run(options: LoadOptions): Promise<Measured> {
  const load = new Load(options)
  const shares = { 1: 2000, 16: Math.floor(options.objects / 3), 256: 0 }
  shares[256] = options.objects - shares[1] - shares[16]
  let made = 0
  for (const workers of [1, 16, 256] as const) {
    const base = made
    await load.rate('create', workers, { count: shares[workers] }, (session, i) =>
      send(session, 'POST', path, bodyOf(nameOf(base + i))),
    )
    made += shares[workers]
  }
  const { seconds } = options
  for (const workers of [1, 16, 256]) {
    await load.rate('get', workers, { seconds }, (session) =>
      send(session, 'GET', `${path}/${nameOf(Math.floor(Math.random() * made))}`),
    )
  }
  for (const workers of [1, 4]) {
    await load.rate('list', workers, { seconds }, (session) => send(session, 'GET', `${path}?resourceVersion=0`))
  }
  const fanOutMs = await load.fanOut()
  return { rates: load.rates, fanOutMs }
}

parentPort?.postMessage(await run(workerData as LoadOptions))
