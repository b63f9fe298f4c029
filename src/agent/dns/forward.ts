import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { decodeName, headerBytes } from './wire.ts'

/** What one upstream gets, and all of them together: resolvers in pods wait five seconds. */
const tryMs = 1500
const triesMax = 3
/** Questions under way at a time; each holds a socket. What comes beyond is told SERVFAIL at once. */
const inFlightMax = 512
/** Askers of one question that is under way already. */
const askersMax = 256
const port = 53

export interface ForwardCounts {
  readonly forwarded: number
  readonly answered: number
  readonly failed: number
  readonly overload: number
}

export interface Upstream {
  readonly address: string
  readonly port?: number
}

/**
 * Takes questions to the node's resolvers, in their order, each over a socket of its own: its port and id are chance.
 * A question that is under way is not asked twice; so one that comes back to us, round some loop, waits for itself and
 * ends with the time, and nothing multiplies.
 */
export class Forwarder {
  readonly #upstreams: readonly Upstream[]
  readonly #tries: { readonly tryMs: number }
  readonly #inFlight = new Map<string, { askers: number; readonly answer: Promise<Buffer | undefined> }>()
  readonly #counts = { forwarded: 0, answered: 0, failed: 0, overload: 0 }

  constructor(upstreams: readonly Upstream[], tries: { readonly tryMs?: number } = {}) {
    this.#upstreams = upstreams
    this.#tries = { tryMs: tries.tryMs ?? tryMs }
  }

  get upstreams(): readonly Upstream[] {
    return this.#upstreams
  }

  counts(): ForwardCounts {
    return { ...this.#counts }
  }

  /** The upstream's answer with this query's id and spelling; undefined where there is none to be had. */
  async ask(query: Buffer, transport: 'udp' | 'tcp', signal: AbortSignal): Promise<Buffer | undefined> {
    if (this.#upstreams.length === 0) return undefined
    const end = questionEnd(query)
    if (end === undefined) return undefined
    const key = `${transport} ${query.toString('latin1', 2, headerBytes)}${query.toString('latin1', headerBytes).toLowerCase()}`
    const known = this.#inFlight.get(key)
    if (known === undefined ? this.#inFlight.size >= inFlightMax : known.askers >= askersMax) {
      this.#counts.overload++
      return undefined
    }
    const entry = known ?? { askers: 0, answer: this.#run(key, query, end, transport, signal) }
    entry.askers++
    if (known === undefined) this.#inFlight.set(key, entry)
    const answer = await entry.answer
    if (answer === undefined) return undefined
    const own = Buffer.from(answer)
    query.copy(own, 0, 0, 2)
    query.copy(own, headerBytes, headerBytes, end)
    return own
  }

  async #run(
    key: string,
    query: Buffer,
    end: number,
    transport: 'udp' | 'tcp',
    signal: AbortSignal,
  ): Promise<Buffer | undefined> {
    // Not before the entry is in the map.
    await Promise.resolve()
    this.#counts.forwarded++
    try {
      for (let i = 0; i < Math.min(triesMax, Math.max(this.#upstreams.length, 2)); i++) {
        const upstream = this.#upstreams[i % this.#upstreams.length]
        if (upstream === undefined || signal.aborted) break
        const sent = Buffer.from(query)
        sent.writeUInt16BE(randomInt(65_536), 0)
        const ask = transport === 'udp' ? askDatagram : askStream
        const answer = await ask(upstream, sent, (message) => belongs(message, sent, end), this.#tries.tryMs, signal)
        if (answer === undefined) continue
        this.#counts.answered++
        return answer
      }
      this.#counts.failed++
      return undefined
    } finally {
      this.#inFlight.delete(key)
    }
  }
}

/** Whether a message answers what was sent: somebody may guess a port. */
function belongs(message: Buffer, sent: Buffer, end: number): boolean {
  return (
    message.length >= end &&
    message.readUInt16BE(0) === sent.readUInt16BE(0) &&
    ((message[2] ?? 0) & 0x80) !== 0 &&
    message.readUInt16BE(4) === 1 &&
    message.toString('latin1', headerBytes, end).toLowerCase() ===
      sent.toString('latin1', headerBytes, end).toLowerCase()
  )
}

function questionEnd(query: Buffer): number | undefined {
  const name = decodeName(query, headerBytes)
  return name === undefined || name.end + 4 > query.length ? undefined : name.end + 4
}

type Check = (message: Buffer) => boolean

/** Undefined after the time, and at once where the upstream cannot be reached. */
function askDatagram(
  to: Upstream,
  query: Buffer,
  check: Check,
  ms: number,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(to.address) ? 'udp6' : 'udp4')
    const end = (answer?: Buffer): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      socket.removeAllListeners()
      // What was on its way when we closed is of no interest.
      socket.on('error', () => {})
      socket.close()
      resolve(answer)
    }
    const stop = (): void => end()
    const timer = setTimeout(stop, ms)
    signal.addEventListener('abort', stop, { once: true })
    socket.on('error', stop)
    socket.on('message', (message) => {
      if (check(message)) end(message)
    })
    // Connected: only that peer is heard, and "port unreachable" comes back as an error.
    socket.connect(to.port ?? port, to.address, () => {
      socket.send(query, (error) => {
        if (error) stop()
      })
    })
  })
}

function askStream(
  to: Upstream,
  query: Buffer,
  check: Check,
  ms: number,
  signal: AbortSignal,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = connect(to.port ?? port, to.address)
    let got = Buffer.alloc(0)
    const end = (answer?: Buffer): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      socket.destroy()
      resolve(answer)
    }
    const stop = (): void => end()
    const timer = setTimeout(stop, ms)
    signal.addEventListener('abort', stop, { once: true })
    socket.on('error', stop)
    socket.on('close', stop)
    socket.on('connect', () => socket.write(withLength(query)))
    socket.on('data', (chunk) => {
      // One answer, of 65,535 bytes at most: that is all that is kept.
      got = Buffer.concat([got, chunk])
      if (got.length < 2) return
      const size = got.readUInt16BE(0)
      if (got.length < 2 + size) return
      const message = got.subarray(2, 2 + size)
      end(check(message) ? message : undefined)
    })
  })
}

/** As TCP carries it. */
export function withLength(message: Buffer): Buffer {
  const out = Buffer.alloc(2 + message.length)
  out.writeUInt16BE(message.length, 0)
  message.copy(out, 2)
  return out
}
