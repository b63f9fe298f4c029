import { once } from 'node:events'
import type { WebSocket } from 'ws'
import { SpdyClient } from './spdy.ts'
import { upgrade } from './upstream.ts'

/** Numbers of the channels in `v4.channel.k8s.io` and `v5.channel.k8s.io`; v5 adds the close of one. */
const channel = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const
type Name = 'error' | 'stdin' | 'stdout' | 'stderr' | 'resize'

export interface ChannelOptions {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly tty: boolean
}

/** Input that comes before the runtime has opened its streams; more than this and the client has to wait. */
const earlyBytesMax = 1 << 20
/** Output waiting in the WebSocket beyond which the runtime is told to wait. */
const bufferedBytesMax = 1 << 20
const closeNormal = 1000
const closeInternal = 1011

/**
 * Carries exec or attach between a WebSocket of channels and the runtime's SPDY streams. The runtime's own WebSocket
 * knows no half-close; its SPDY does, which is why there is a translation.
 */
export async function carryChannels(socket: WebSocket, url: string, options: ChannelOptions): Promise<void> {
  const early = collectEarly(socket)
  const upgraded = await upgrade(url, 'POST', {
    Connection: 'Upgrade',
    Upgrade: 'SPDY/3.1',
    'X-Stream-Protocol-Version': 'v4.channel.k8s.io',
    'Content-Length': '0',
  })
  const streams = new Map<Name, number>()
  const names = new Map<number, Name>()
  const over = Promise.withResolvers<void>()
  let errorTold = false
  let left = 0

  const send = (number: number, data: Uint8Array) => {
    if (socket.readyState !== socket.OPEN) return
    socket.send(Buffer.concat([Buffer.from([number]), data]), { binary: true }, () => {
      if (socket.bufferedAmount < bufferedBytesMax) spdy.resume()
    })
    if (socket.bufferedAmount >= bufferedBytesMax) spdy.pause()
  }
  const spdy = new SpdyClient(upgraded.socket, upgraded.head, {
    data(id, chunk) {
      const name = names.get(id)
      if (name === undefined) return
      if (name === 'error') errorTold = true
      send(channel[name], chunk)
    },
    ended(id) {
      const name = names.get(id)
      if (name === undefined || name === 'stdin' || name === 'resize') return
      names.delete(id)
      // The last of output and error is the end of it all.
      if (--left === 0) over.resolve()
    },
    closed: (error) => (error === undefined ? over.resolve() : over.reject(error)),
  })

  try {
    // In the order that clients have always opened them in; a terminal has no stderr of its own.
    const wanted: Name[] = ['error']
    if (options.stdin) wanted.push('stdin')
    if (options.stdout) wanted.push('stdout')
    if (options.stderr && !options.tty) wanted.push('stderr')
    if (options.tty) wanted.push('resize')
    left = wanted.filter((n) => n !== 'stdin' && n !== 'resize').length
    const opened = wanted.map((name) => {
      const { id, ready } = spdy.open({ streamtype: name })
      names.set(id, name)
      streams.set(name, id)
      return ready
    })
    await Promise.all(opened)
    const input = relayInput(socket, early, spdy, streams)
    await Promise.race([over.promise, input])
    // Without a word on the error channel the command has succeeded.
    if (!errorTold) send(channel.error, Buffer.from(JSON.stringify({ metadata: {}, status: 'Success' })))
    socket.close(closeNormal)
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    send(
      channel.error,
      Buffer.from(JSON.stringify({ metadata: {}, status: 'Failure', reason: 'InternalError', code: 500, message })),
    )
    socket.close(closeInternal)
  } finally {
    // What was sent is on its way before the connection goes; a client that does not close is not waited for long.
    if (socket.readyState !== socket.CLOSED) {
      const giveUp = setTimeout(() => socket.terminate(), 5_000)
      await once(socket, 'close').catch(() => {})
      clearTimeout(giveUp)
    }
    spdy.close()
  }
}

interface Early {
  readonly messages: Buffer[]
  /** From now on each message goes to `take`. */
  handOver(take: (message: Buffer) => void): void
}

/** Keeps what arrives before the runtime is ready: `printf x | kubectl exec -i` has said all by then. */
function collectEarly(socket: WebSocket): Early {
  const messages: Buffer[] = []
  let bytes = 0
  let take: ((message: Buffer) => void) | undefined
  socket.on('message', (data) => {
    const message = toBuffer(data)
    if (take !== undefined) return take(message)
    messages.push(message)
    bytes += message.length
    if (bytes > earlyBytesMax) socket.pause()
  })
  return {
    messages,
    handOver(to) {
      take = to
      for (const message of messages.splice(0)) to(message)
      socket.resume()
    },
  }
}

function toBuffer(data: Buffer | ArrayBuffer | Buffer[]): Buffer {
  if (Buffer.isBuffer(data)) return data
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)
}

/** Resolves when the client has gone. */
function relayInput(
  socket: WebSocket,
  early: Early,
  spdy: SpdyClient,
  streams: ReadonlyMap<Name, number>,
): Promise<void> {
  early.handOver((message) => {
    const [number] = message
    const data = message.subarray(1)
    const id =
      number === channel.stdin ? streams.get('stdin') : number === channel.resize ? streams.get('resize') : undefined
    if (number === channel.close) {
      const closed = data[0] === channel.stdin ? streams.get('stdin') : undefined
      if (closed !== undefined) spdy.end(closed)
      return
    }
    if (id === undefined || data.length === 0) return
    if (!spdy.write(id, data)) {
      socket.pause()
      void spdy.drained().then(() => socket.resume())
    }
  })
  return new Promise((resolve) => {
    if (socket.readyState >= socket.CLOSING) return resolve()
    socket.once('close', () => resolve())
    socket.on('error', () => resolve())
  })
}
