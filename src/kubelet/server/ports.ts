import type { WebSocket } from 'ws'
import { ChannelSocket, closeInternal, closeNormal } from './channel-socket.ts'
import { SpdyClient } from './spdy.ts'
import { upgrade } from './upstream.ts'

/** Each port has two channels, in the order in which the ports were asked for. */
const channelsOf = (index: number) => ({ data: 2 * index, error: 2 * index + 1 })

/** What the runtime's SPDY is asked for. */
export const portForwardProtocol = 'portforward.k8s.io'

/** More have no number: a channel's is one byte. */
export const portsMax = 128

/**
 * Carries connections to ports of a pod over a WebSocket of channels, `v4.channel.k8s.io`: one connection for each port. What
 * is said first on each channel is the number of its port, two bytes, the lower first. This protocol knows no half-close: the
 * client's end ends all, and the socket is closed when the last port has ended.
 */
export async function carryPorts(socket: WebSocket, url: string, ports: readonly number[]): Promise<void> {
  const client = new ChannelSocket(socket)
  const upgraded = await upgrade(url, 'POST', {
    Connection: 'Upgrade',
    Upgrade: 'SPDY/3.1',
    'X-Stream-Protocol-Version': portForwardProtocol,
    'Content-Length': '0',
  })
  const channels = new Map<number, number>()
  const over = Promise.withResolvers<void>()
  const spdy = new SpdyClient(upgraded.socket, upgraded.head, {
    data(id, chunk) {
      const number = channels.get(id)
      if (number !== undefined) client.send(number, chunk, spdy)
    },
    ended(id) {
      channels.delete(id)
      if (channels.size === 0) over.resolve()
    },
    closed: (error) => (error === undefined ? over.resolve() : over.reject(error)),
  })
  let code = closeNormal
  try {
    const streams = new Map<number, number>()
    const opened = ports.flatMap((port, index) => {
      const { data, error } = channelsOf(index)
      const number = Buffer.alloc(2)
      number.writeUInt16LE(port)
      client.send(data, number)
      client.send(error, number)
      const headers = { port: String(port), requestid: String(index) }
      const errors = spdy.open({ streamtype: 'error', ...headers })
      const bytes = spdy.open({ streamtype: 'data', ...headers })
      channels.set(errors.id, error).set(bytes.id, data)
      streams.set(data, bytes.id)
      // Nothing is said on it from here.
      spdy.end(errors.id)
      return [errors.ready, bytes.ready]
    })
    await Promise.all(opened)
    client.handOver((number, data) => {
      const id = streams.get(number)
      if (id === undefined || data.length === 0) return
      if (!spdy.write(id, data)) client.wait(spdy.drained())
    })
    await Promise.race([over.promise, client.gone])
  } catch (error) {
    const words = Buffer.from(error instanceof Error ? error.message : String(error))
    for (const index of ports.keys()) client.send(channelsOf(index).error, words)
    code = closeInternal
  } finally {
    await client.close(code)
    spdy.close()
  }
}
