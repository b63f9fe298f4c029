import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

/** The runtime's side of a stream: its connection, its answer, and what came with it. */
export interface Upgraded {
  readonly socket: Duplex
  readonly response: IncomingMessage
  readonly head: Buffer
}

/** The runtime's streaming server answered with something else than a switch of protocols. */
export class UpgradeRefused extends Error {
  override readonly name = 'UpgradeRefused'
  readonly status: number

  constructor(status: number, words: string) {
    super(words)
    this.status = status
  }
}

const connectMs = 30_000
const wordsMax = 4096

/** Asks the runtime's streaming server at `url` to switch protocols. Throws `UpgradeRefused`. */
export function upgrade(
  url: string,
  method: string,
  headers: Readonly<Record<string, string | string[]>>,
): Promise<Upgraded> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers, agent: false, timeout: connectMs })
    request.on('upgrade', (response, socket, head) => {
      socket.setTimeout(0)
      resolve({ socket, response, head })
    })
    request.on('response', (response) => {
      let words = ''
      response.setEncoding('utf8')
      response.on('data', (text: string) => {
        if (words.length < wordsMax) words += text
      })
      response.on('close', () =>
        reject(new UpgradeRefused(response.statusCode ?? 502, words.trim() || 'the runtime refused')),
      )
    })
    request.on('timeout', () => request.destroy(new Error(`no answer within ${connectMs / 1000} s`)))
    request.on('error', (error) => reject(new Error(`Cannot reach the streaming server at ${url}`, { cause: error })))
    request.end()
  })
}

/** Moves bytes both ways until both sides have ended; a half-close stays one. */
export function splice(a: Duplex, b: Duplex): Promise<void> {
  return new Promise((resolve) => {
    let open = 2
    const shut = () => {
      a.destroy()
      b.destroy()
      resolve()
    }
    const over = () => {
      open--
      if (open === 0) shut()
    }
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      from.on('error', shut)
      from.on('end', over)
      from.on('close', () => {
        // Ended without a word: the other side has nobody to talk to.
        if (!from.readableEnded) shut()
      })
      from.pipe(to)
    }
  })
}
