import type { Duplex } from 'node:stream'

/**
 * The client half of SPDY/3.1, as far as a runtime's streaming server needs it: we open streams, both sides send data
 * and half-close. Header blocks that we send are stored, not compressed (zlib allows it, and then needs no dictionary);
 * those that come back say nothing that we use.
 */
export interface SpdyEvents {
  data(streamId: number, chunk: Buffer): void
  /** The other side has no more to say on this stream, or has reset it. */
  ended(streamId: number): void
  /** The connection is over; undefined: in good order. */
  closed(error: Error | undefined): void
}

const controlTypes = { synStream: 1, synReply: 2, rstStream: 3, settings: 4, ping: 6, goaway: 7 } as const
const version = 0x8003
const flagFin = 0x01
/** SPDY counts 24 bits. */
const frameBytesMax = 0xffffff
/** A frame of a runtime is at most what it read at once; more than this is not one. */
const incomingBytesMax = 16 << 20
const zlibHeader = Buffer.from([0x78, 0x01])
const emptyBlock = Buffer.from([0, 0, 0, 0xff, 0xff])

export class SpdyClient {
  readonly #socket: Duplex
  readonly #events: SpdyEvents
  readonly #replies = new Map<number, PromiseWithResolvers<void>>()
  #nextId = 1
  #began = false
  #pending: Buffer = Buffer.alloc(0)
  #closed = false

  /** `head`: bytes that came with the answer to the Upgrade. */
  constructor(socket: Duplex, head: Buffer, events: SpdyEvents) {
    this.#socket = socket
    this.#events = events
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('error', (error) => this.#close(error))
    socket.on('close', () => this.#close(undefined))
    socket.on('end', () => this.#close(undefined))
    if (head.length > 0) this.#receive(head)
  }

  /** Opens a stream; `ready` resolves once the other side has taken it. Its data may come before that. */
  open(headers: Readonly<Record<string, string>>): { readonly id: number; readonly ready: Promise<void> } {
    const id = this.#nextId
    this.#nextId += 2
    const block = this.#storedBlock(encodeHeaders(headers))
    const body = Buffer.alloc(10)
    body.writeUInt32BE(id, 0)
    const reply = Promise.withResolvers<void>()
    this.#replies.set(id, reply)
    this.#control(controlTypes.synStream, Buffer.concat([body, block]))
    return { id, ready: reply.promise }
  }

  /** False: the socket is full, wait for `drained`. */
  write(streamId: number, data: Uint8Array): boolean {
    let room = true
    for (let at = 0; at < data.length; at += frameBytesMax)
      room = this.#data(streamId, data.subarray(at, at + frameBytesMax), 0)
    return room
  }

  drained(): Promise<void> {
    return new Promise((resolve) => {
      if (!this.#socket.writableNeedDrain) return resolve()
      this.#socket.once('drain', resolve)
      this.#socket.once('close', resolve)
    })
  }

  /** We have no more to say on this stream. */
  end(streamId: number): void {
    this.#data(streamId, Buffer.alloc(0), flagFin)
  }

  /** Takes no more in until resumed: what is sent meanwhile waits on the other side. */
  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  close(): void {
    if (!this.#closed) this.#socket.end()
    this.#socket.destroy()
  }

  #data(streamId: number, data: Uint8Array, flags: number): boolean {
    const header = Buffer.alloc(8)
    header.writeUInt32BE(streamId, 0)
    header.writeUInt32BE(((flags << 24) | data.length) >>> 0, 4)
    return this.#socket.write(Buffer.concat([header, data]))
  }

  #control(type: number, body: Uint8Array): void {
    const header = Buffer.alloc(8)
    header.writeUInt16BE(version, 0)
    header.writeUInt16BE(type, 2)
    header.writeUInt32BE(body.length, 4)
    this.#socket.write(Buffer.concat([header, body]))
  }

  /**
   * One stored, byte-aligned block of the connection's one zlib stream (RFC 1950, RFC 1951 3.2.4), and an empty one: Go's
   * reader hands out what it has when it meets that, and would otherwise look for more and fail.
   */
  #storedBlock(data: Buffer): Buffer {
    const block = Buffer.alloc(5)
    block.writeUInt16LE(data.length, 1)
    block.writeUInt16LE(~data.length & 0xffff, 3)
    const parts = this.#began ? [block, data, emptyBlock] : [zlibHeader, block, data, emptyBlock]
    this.#began = true
    return Buffer.concat(parts)
  }

  #receive(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    for (;;) {
      if (this.#pending.length < 8) return
      const word = this.#pending.readUInt32BE(4)
      const length = word & 0xffffff
      if (length > incomingBytesMax) {
        this.#close(new Error(`a SPDY frame of ${length} bytes`))
        return
      }
      if (this.#pending.length < 8 + length) return
      const head = this.#pending.readUInt32BE(0)
      const body = this.#pending.subarray(8, 8 + length)
      this.#pending = this.#pending.subarray(8 + length)
      this.#frame(head, word >>> 24, body)
    }
  }

  #frame(head: number, flags: number, body: Buffer): void {
    if (head >>> 31 === 0) {
      if (body.length > 0) this.#events.data(head, body)
      if ((flags & flagFin) !== 0) this.#events.ended(head)
      return
    }
    switch (head & 0xffff) {
      case controlTypes.synReply: {
        const id = body.readUInt32BE(0) & 0x7fffffff
        this.#replies.get(id)?.resolve()
        this.#replies.delete(id)
        if ((flags & flagFin) !== 0) this.#events.ended(id)
        return
      }
      case controlTypes.rstStream: {
        const id = body.readUInt32BE(0) & 0x7fffffff
        this.#replies.get(id)?.reject(new Error('the runtime refused a stream'))
        this.#replies.delete(id)
        this.#events.ended(id)
        return
      }
      case controlTypes.ping:
        // Ours would be odd; theirs are answered as they are.
        if ((body.readUInt32BE(0) & 1) === 0) this.#control(controlTypes.ping, body)
        return
      case controlTypes.goaway:
        this.#close(undefined)
        return
      default:
        // Settings and window updates: this server of streams does not hold anybody back.
        return
    }
  }

  #close(error: Error | undefined): void {
    if (this.#closed) return
    this.#closed = true
    for (const reply of this.#replies.values()) reply.reject(error ?? new Error('the runtime closed the connection'))
    this.#replies.clear()
    this.#events.closed(error)
  }
}

function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const parts: Buffer[] = []
  const number = (value: number) => {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(value)
    parts.push(bytes)
  }
  const entries = Object.entries(headers)
  number(entries.length)
  for (const pair of entries) {
    for (const text of pair) {
      const bytes = Buffer.from(text)
      number(bytes.length)
      parts.push(bytes)
    }
  }
  return Buffer.concat(parts)
}
