import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join, resolve } from 'node:path'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { errnoName } from '#kernel/errno.ts'
import { type Ask, type AskFrom, countsOf, decodeAsk, encodeChanges, type NameCounts } from '#kernel/names.ts'
import type { TableChange } from './zone.ts'

/** Of the protocol in native/names/server.c. */
const protocolVersion = 3
const kinds = { change: 1, replace: 2, answer: 3, end: 4 } as const
const heard = { question: 1, hello: 2 } as const
const headBytes = 5
/** A started program listens at once; a second is for a machine that is very busy. */
const startMs = 1_000
const connectAgainMs = 5
/** One that was killed is there again at once; where port 53 is somebody else's, every ten seconds is enough. */
const againFirstMs = 10
const againMaxMs = 10_000
/** More than this unread by a program that is stuck: it is told everything again when it is there again. */
const unreadBytesMax = 256 << 20

export interface NameServerOptions {
  /** Its socket and counters are there. */
  readonly dir: string
  readonly addresses: readonly string[]
  /** All rows, as changes, for a program that has none or old ones. */
  readonly rows: () => Uint8Array
  readonly onAsk: (ask: Ask) => void
  readonly clock: Clock
  readonly log: Log
}

/**
 * `weft-names`, which answers over UDP in a process of its own and stays when the agent goes: found again or started,
 * told the whole table, then every change. One that ends is started again.
 */
export class NameServer {
  readonly #options: NameServerOptions
  #socket: Socket | undefined
  #trouble: unknown
  /** By address, in their order: errno of bind(2), or 0. */
  #errors: readonly number[] = []

  constructor(options: NameServerOptions) {
    this.#options = options
  }

  get trouble(): unknown {
    return this.#trouble
  }

  get listening(): readonly string[] {
    return this.#options.addresses.filter((_, i) => this.#errors[i] === 0)
  }

  /** Also of the time before this agent. */
  counts(): NameCounts {
    try {
      const bytes = readFileSync(join(this.#options.dir, 'names.counts'))
      return countsOf(Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readBigUInt64LE(i * 8)))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      // Not started yet.
      return countsOf([])
    }
  }

  change({ puts, removals }: TableChange): void {
    if (puts.length + removals.length > 0) this.#tell(kinds.change, encodeChanges(puts, removals))
  }

  send({ socket, address }: AskFrom, message: Uint8Array): void {
    const head = Buffer.alloc(8)
    head.writeUInt32LE(socket, 0)
    head.writeUInt32LE(address.length, 4)
    this.#tell(kinds.answer, Buffer.concat([head, address, message]))
  }

  #tell(kind: number, data: Uint8Array): void {
    const socket = this.#socket
    if (socket === undefined) return
    if (socket.writableLength > unreadBytesMax) socket.destroy(new Error(`weft-names does not read`))
    else socket.write(frame(kind, data))
  }

  /** Until `signal` aborts; the program goes on. `started` once it answers at an address, or cannot for now. */
  async run(signal: AbortSignal, started: () => void): Promise<void> {
    const { clock, log } = this.#options
    const backoff = new Backoff({ firstMs: againFirstMs, maxMs: againMaxMs, jitter: 0.2 })
    while (!signal.aborted) {
      const since = clock.monotonic()
      try {
        // An earlier agent's goes, then ours is there.
        if ((await this.#follow(signal, started)) === 'exchanged') await this.#follow(signal, started)
        signal.throwIfAborted()
        throw new Error('weft-names has ended')
      } catch (error) {
        if (signal.aborted) return
        this.#trouble = error
        log.error({ err: error }, 'names are not served as they should be, trying again')
        started()
        if (clock.monotonic() - since > againMaxMs) backoff.reset()
        await delay(backoff.next(), signal, clock).catch(() => {})
      } finally {
        this.#socket = undefined
        this.#errors = []
      }
    }
  }

  async #follow(signal: AbortSignal, started: () => void): Promise<'exchanged' | 'ended'> {
    const { addresses, rows, onAsk, log } = this.#options
    const socket = await this.#connect(signal)
    const stop = (): void => {
      socket.destroy()
    }
    signal.addEventListener('abort', stop, { once: true })
    let end: 'exchanged' | 'ended' = 'ended'
    try {
      for await (const { kind, data } of framesOf(socket)) {
        if (kind === heard.question) onAsk(decodeAsk(data))
        if (kind !== heard.hello) continue
        const [version, pid] = [data.readUInt32LE(0), data.readUInt32LE(4)]
        this.#errors = addresses.map((_, i) => (data.length < 12 + 4 * i ? 0 : data.readUInt32LE(8 + 4 * i)))
        const wrong = this.#errors.flatMap((error, i) => (error === 0 ? [] : [`${addresses[i]}: ${errnoName(error)}`]))
        const refused = wrong.length === 0 ? undefined : new Error(`Cannot listen on port 53 of ${wrong.join(', ')}`)
        const isOurs = version === protocolVersion && data.length === 8 + 4 * addresses.length && isOurProgram(pid)
        if (!isOurs || wrong.length === addresses.length) {
          // An older agent's, or without any address: another is started in its place.
          socket.end(frame(kinds.end, Buffer.alloc(0)))
          this.#errors = []
          if (isOurs && refused !== undefined) throw refused
          log.info({ pid, version }, 'the resolver of an earlier agent is exchanged')
          // It goes at once, and this stream ends with it.
          end = 'exchanged'
          continue
        }
        // From here on it hears of every change; what it has is replaced by what is true now.
        socket.write(frame(kinds.replace, rows()))
        this.#socket = socket
        this.#trouble = refused
        log.info({ listening: this.listening }, 'names are served')
        started()
      }
      return end
    } finally {
      signal.removeEventListener('abort', stop)
      socket.destroy()
    }
  }

  async #connect(signal: AbortSignal): Promise<Socket> {
    const { dir, addresses, clock } = this.#options
    const path = join(dir, 'names.sock')
    const end = clock.monotonic() + startMs
    for (let tries = 0; ; tries++) {
      const socket = connect(path)
      try {
        await once(socket, 'connect', { signal })
        return socket
      } catch (error) {
        socket.destroy()
        if (signal.aborted || clock.monotonic() > end)
          throw new Error(`Cannot reach weft-names at ${path}`, { cause: error })
        if (tries === 0) startProgram([path, join(dir, 'names.counts'), ...addresses])
        await delay(connectAgainMs, signal, clock)
      }
    }
  }
}

const program = resolve(import.meta.dirname, '../../../native/build/weft-names')

/** The file that we would start now: one that was replaced meanwhile is "(deleted)". */
function isOurProgram(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`) === program
  } catch {
    // Of another pid namespace, or gone.
    return false
  }
}

/** In this process' namespace and cgroup, and on its own from then on. */
function startProgram(args: readonly string[]): void {
  const child = spawn(program, args, { detached: true, stdio: 'ignore' })
  // That it could not be started shows when it cannot be reached.
  child.on('error', () => {})
  child.unref()
}

function frame(kind: number, data: Uint8Array): Buffer {
  const head = Buffer.alloc(headBytes)
  head.writeUInt32LE(data.length + 1, 0)
  head.writeUInt8(kind, 4)
  return Buffer.concat([head, data])
}

async function* framesOf(socket: Socket): AsyncGenerator<{ readonly kind: number; readonly data: Buffer }> {
  let got: Buffer = Buffer.alloc(0)
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    got = got.length === 0 ? chunk : Buffer.concat([got, chunk])
    while (got.length >= headBytes) {
      const length = got.readUInt32LE(0)
      if (got.length < 4 + length) break
      yield { kind: got.readUInt8(4), data: got.subarray(headBytes, 4 + length) }
      got = got.subarray(4 + length)
    }
  }
}
