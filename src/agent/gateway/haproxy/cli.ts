import { createConnection, type Socket } from 'node:net'

/** A reply that large is a table dump of a hundred thousand rows. */
const replyBytesMax = 64 << 20
/** HAProxy answers within a millisecond or two; under load, or with a large table, within a second. */
const answerWithinMs = 10_000
/** A command and its payload go through a buffer of HAProxy's (tune.bufsize): what is larger vanishes without a word. */
export const payloadBytesMax = 15_000

/** The engine is not there, or answered other than was to be expected. */
export class EngineError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'EngineError'
  }
}

/**
 * HAProxy's run-time API over one connection, one command at a time. Commands are words that we made; what users wrote goes
 * as payload lines or as hexadecimal digits. A reply is returned as it is: the caller checks what it says.
 */
export class Cli implements Disposable {
  readonly #socket: Socket
  #buffer = ''
  #waiting: { resolve(reply: string): void; reject(error: Error): void } | undefined
  #turn: Promise<unknown> = Promise.resolve()
  #ended: Error | undefined
  readonly #onEnd: (() => void)[] = []

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#take(text))
    socket.on('error', (error) => this.#end(error))
    socket.on('close', () => this.#end(new EngineError('HAProxy closed the connection to its run-time API')))
  }

  /** Rejects where nobody listens there. */
  static async connect(path: string): Promise<Cli> {
    const socket = createConnection({ path })
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', (cause) =>
        reject(new EngineError(`Cannot reach HAProxy's run-time API at ${path}`, { cause })),
      )
    })
    const cli = new Cli(socket)
    const ready = cli.#exchange('prompt\n')
    await ready
    return cli
  }

  get connected(): boolean {
    return this.#ended === undefined
  }

  /** Called once, when the connection has gone: HAProxy has, or another took its place. */
  onEnd(call: () => void): void {
    if (this.#ended === undefined) this.#onEnd.push(call)
    else call()
  }

  /** The reply without the prompt. Throws a RangeError for a command that could end before its end. */
  command(line: string): Promise<string> {
    if (!/^[\x20-\x7e]*$/.test(line) || line.includes(';') || line.includes('\\'))
      throw new RangeError(`Cannot send ${JSON.stringify(line)} to HAProxy: it is not one plain command`)
    return this.#queue(`${line}\n`)
  }

  /** A command with lines of payload. Throws a RangeError for a line that would end it, or too many bytes. */
  payload(line: string, rows: readonly string[]): Promise<string> {
    for (const row of rows)
      if (row === '' || /[\n\r\0]/.test(row))
        throw new RangeError(`Cannot send ${JSON.stringify(row.slice(0, 100))} to HAProxy: it is not one line`)
    const text = `${line} <<\n${rows.join('\n')}\n\n`
    if (Buffer.byteLength(text) > payloadBytesMax + line.length + 16)
      throw new RangeError(`Cannot send ${Buffer.byteLength(text)} bytes to HAProxy in one command`)
    return this.#queue(text)
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }

  #queue(text: string): Promise<string> {
    const turn = this.#turn.then(() => this.#exchange(text))
    this.#turn = turn.catch(() => {})
    return turn
  }

  #exchange(text: string): Promise<string> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended)
    return new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#end(new EngineError(`HAProxy did not answer ${JSON.stringify(text.slice(0, 60))} within 10 s`))
        this.#socket.destroy()
      }, answerWithinMs)
      this.#waiting = {
        resolve: (reply) => {
          clearTimeout(timer)
          resolve(reply)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      }
      this.#socket.write(text)
    })
  }

  #take(text: string): void {
    this.#buffer += text
    if (this.#buffer.length > replyBytesMax) {
      this.#end(new EngineError('HAProxy answered more than can be'))
      this.#socket.destroy()
      return
    }
    // A reply is followed by a line of its own, which none of our rows can look like.
    if (!this.#buffer.endsWith('\n> ')) return
    const reply = this.#buffer.slice(0, -3)
    this.#buffer = ''
    const waiting = this.#waiting
    this.#waiting = undefined
    // Each line of payload is asked for with a plus.
    waiting?.resolve(reply.replace(/^(\+ )+/, '').replace(/^\n+|\n+$/g, ''))
  }

  #end(error: Error): void {
    if (this.#ended !== undefined) return
    this.#ended = error
    this.#waiting?.reject(error)
    this.#waiting = undefined
    for (const call of this.#onEnd.splice(0)) call()
  }
}
