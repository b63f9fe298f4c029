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

/** The outside client: one process in that namespace, which answers each question on a line. */
export class Outside implements Disposable {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Answered) => void>()
  #next = 0

  constructor(netns: string) {
    const args = [`--net=/run/netns/${netns}`, process.execPath, fileURLToPath(import.meta.url)]
    this.#child = spawn('nsenter', args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const { stdout } = this.#child
    if (stdout === null) throw new Error('Cannot hear the outside client')
    createInterface({ input: stdout }).on('line', (line) => {
      const { id, ...answer } = JSON.parse(line) as Answered & { id: number }
      this.#waiting.get(id)?.(answer)
      this.#waiting.delete(id)
    })
  }

  ask(asked: Asked): Promise<Answered> {
    const id = this.#next++
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#child.stdin?.write(`${JSON.stringify({ id, ...asked })}\n`)
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

// As a program: questions on lines of standard input, answers on lines of standard output, in whatever order.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  createInterface({ input: process.stdin }).on('line', (line) => {
    const { id, ...asked } = JSON.parse(line) as Asked & { id: number }
    void send(asked).then((answer) => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`))
  })
}
