import { once } from 'node:events'
import type { WebSocket } from 'ws'

/** What comes before somebody takes it; more than this and the client has to wait. */
const earlyBytesMax = 1 << 20
/** What waits to be sent beyond which its source is told to wait. */
const bufferedBytesMax = 1 << 20
/** A client that does not close when it is asked to is not waited for longer. */
const closeMs = 5_000

export const closeNormal = 1000
export const closeInternal = 1011

/** Where data comes from: it can be told to wait. */
export interface Source {
  pause(): void
  resume(): void
}

/** A WebSocket each of whose messages begins with the number of a channel. */
export class ChannelSocket {
  /** Resolves when the client has gone. */
  readonly gone: Promise<void>
  readonly #socket: WebSocket
  /** `printf x | kubectl exec -i` has said all before the runtime is ready. */
  readonly #early: Buffer[] = []
  #take: ((number: number, data: Buffer) => void) | undefined

  constructor(socket: WebSocket) {
    this.#socket = socket
    let bytes = 0
    socket.on('message', (data) => {
      const message = toBuffer(data)
      if (message.length === 0) return
      if (this.#take !== undefined) return this.#take(message.readUInt8(0), message.subarray(1))
      this.#early.push(message)
      bytes += message.length
      if (bytes > earlyBytesMax) socket.pause()
    })
    this.gone = new Promise((resolve) => {
      if (socket.readyState >= socket.CLOSING) return resolve()
      socket.once('close', () => resolve())
      socket.on('error', () => resolve())
    })
  }

  /** From now on each message goes to `take`; those that came early go first. */
  handOver(take: (number: number, data: Buffer) => void): void {
    this.#take = take
    for (const message of this.#early.splice(0)) take(message.readUInt8(0), message.subarray(1))
    this.#socket.resume()
  }

  /** Reads nothing more until then. */
  wait(until: Promise<void>): void {
    this.#socket.pause()
    void until.then(() => this.#socket.resume())
  }

  /** `source` waits while too much of what it gave is still here. */
  send(number: number, data: Uint8Array, source?: Source): void {
    const socket = this.#socket
    if (socket.readyState !== socket.OPEN) return
    socket.send(Buffer.concat([Buffer.from([number]), data]), { binary: true }, () => {
      if (socket.bufferedAmount < bufferedBytesMax) source?.resume()
    })
    if (socket.bufferedAmount >= bufferedBytesMax) source?.pause()
  }

  /** What was sent is on its way when this resolves. */
  async close(code: number): Promise<void> {
    const socket = this.#socket
    socket.close(code)
    if (socket.readyState === socket.CLOSED) return
    const giveUp = setTimeout(() => socket.terminate(), closeMs)
    await once(socket, 'close').catch(() => {})
    clearTimeout(giveUp)
  }
}

function toBuffer(data: Buffer | ArrayBuffer | Buffer[]): Buffer {
  if (Buffer.isBuffer(data)) return data
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)
}
