import type { WebSocket } from 'ws'
import { ChannelSocket, closeInternal, closeNormal } from './channel-socket.ts'
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

/**
 * Carries exec or attach between a WebSocket of channels and the runtime's SPDY streams. The runtime's own WebSocket
 * knows no half-close; its SPDY does, which is why there is a translation.
 */
export async function carryChannels(socket: WebSocket, url: string, options: ChannelOptions): Promise<void> {
  const client = new ChannelSocket(socket)
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
  const spdy = new SpdyClient(upgraded.socket, upgraded.head, {
    data(id, chunk) {
      const name = names.get(id)
      if (name === undefined) return
      if (name === 'error') errorTold = true
      client.send(channel[name], chunk, spdy)
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
  const tell = (status: object) => client.send(channel.error, Buffer.from(JSON.stringify({ metadata: {}, ...status })))

  let code = closeNormal
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
    client.handOver((number, data) => {
      const id =
        number === channel.stdin ? streams.get('stdin') : number === channel.resize ? streams.get('resize') : undefined
      if (number === channel.close) {
        const closed = data[0] === channel.stdin ? streams.get('stdin') : undefined
        if (closed !== undefined) spdy.end(closed)
        return
      }
      if (id === undefined || data.length === 0) return
      if (!spdy.write(id, data)) client.wait(spdy.drained())
    })
    await Promise.race([over.promise, client.gone])
    // Without a word on the error channel the command has succeeded.
    if (!errorTold) tell({ status: 'Success' })
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    tell({ status: 'Failure', reason: 'InternalError', code: 500, message })
    code = closeInternal
  } finally {
    await client.close(code)
    spdy.close()
  }
}
