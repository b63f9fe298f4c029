import { type ChildProcess, spawn } from 'node:child_process'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A request of the client that lives outside the cluster, in the fabric's namespace. */
export interface Asked {
  readonly address: string
  readonly port: number
  readonly path?: string
  readonly host?: string
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** PEM: asks by TLS, and trusts this alone. */
  readonly ca?: string
}

export interface Answered {
  /** 0 where there was no answer; `error` says why. */
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
  readonly error?: string
}

/** What became of a load. */
export interface Loaded {
  readonly count: number
  /** Answers other than 200; the first hundred. */
  readonly failures: readonly Answered[]
}

type Question = { readonly asked: Asked } | { readonly load: Asked } | { readonly stop: true }

/** The outside client: one process in that namespace, which answers each question on a line. */
export class Outside implements Disposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: unknown) => void>()
  #next = 0

  constructor(netns: string) {
    const args = [`--net=/run/netns/${netns}`, process.execPath, fileURLToPath(import.meta.url)]
    this.#child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const { stdout } = this.#child
    if (stdout === null) throw new Error('Cannot hear the outside client')
    createInterface({ input: stdout }).on('line', (line) => {
      const { id, ...answer } = JSON.parse(line) as { id: number }
      this.#waiting.get(id)?.(answer)
      this.#waiting.delete(id)
    })
  }

  ask(asked: Asked): Promise<Answered> {
    return this.#call({ asked })
  }

  /** Asks again and again over four connections at a time, whatever the test does meanwhile, until `stop()`. */
  load(asked: Asked): { stop(): Promise<Loaded> } {
    const ended = this.#call<Loaded>({ load: asked })
    return {
      stop: async () => {
        await this.#call({ stop: true })
        return ended
      },
    }
  }

  #call<A>(question: Question): Promise<A> {
    const id = this.#next++
    return new Promise((resolve) => {
      this.#waiting.set(id, (answer) => resolve(answer as A))
      this.#child.stdin?.write(`${JSON.stringify({ id, ...question })}\n`)
    })
  }

  [Symbol.dispose](): void {
    this.#child.kill()
  }
}

const timeoutMs = 5_000

function send({ address, port, path = '/', host, method = 'GET', headers = {}, ca }: Asked): Promise<Answered> {
  return new Promise((resolve) => {
    const fail = (error: Error) => resolve({ status: 0, headers: {}, body: '', error: error.message })
    const options = {
      host: address,
      port,
      path,
      method,
      agent: false as const,
      headers: { ...headers, ...(host === undefined ? {} : { host }) },
      timeout: timeoutMs,
      ...(ca === undefined ? {} : { ca, servername: host ?? '' }),
    }
    const request = (ca === undefined ? httpRequest : httpsRequest)(options, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', fail)
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString('utf8'),
        }),
      )
    })
    request.on('timeout', () => request.destroy(new Error(`no answer within ${timeoutMs} ms`)))
    request.on('error', fail)
    request.end()
  })
}

let loading = false

async function load(asked: Asked): Promise<Loaded> {
  const failures: Answered[] = []
  let count = 0
  loading = true
  const one = async (): Promise<void> => {
    while (loading) {
      const answer = await send(asked)
      count++
      if (answer.status !== 200 && failures.length < 100) failures.push(answer)
    }
  }
  await Promise.all([one(), one(), one(), one()])
  return { count, failures }
}

async function answer(question: Question): Promise<object> {
  if ('asked' in question) return send(question.asked)
  if ('load' in question) return load(question.load)
  loading = false
  return {}
}

// As a program: questions on lines of standard input, answers on lines of standard output, in whatever order.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  createInterface({ input: process.stdin }).on('line', (line) => {
    const { id, ...question } = JSON.parse(line) as Question & { id: number }
    void answer(question).then((found) => process.stdout.write(`${JSON.stringify({ id, ...found })}\n`))
  })
}
