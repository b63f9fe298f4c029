import { createServer, type Server, type Socket } from 'node:net'
import { withLength } from './forward.ts'

/** Per node, of all pods together; a connection holds little. */
const connectionsMax = 512
/** RFC 7766: an idle client may be let go after a few seconds. */
const idleMs = 10_000
/** Questions of one connection under way; then it is not read from until one is answered. */
const pipelineMax = 32
const messageBytesMax = 65_535

export interface StreamServer {
  readonly server: Server
  /** With all its connections. */
  close(): void
}

/** Answers over TCP with what `answer` says; undefined: the connection ends. The server listens when the caller says so. */
export function serveStreams(answer: (query: Buffer) => Promise<Buffer | undefined>): StreamServer {
  const sockets = new Set<Socket>()
  // Who has asked may close its side: the answer still goes out.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    serveConnection(socket, answer)
  })
  server.maxConnections = connectionsMax
  const close = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  return { server, close }
}

function serveConnection(socket: Socket, answer: (query: Buffer) => Promise<Buffer | undefined>): void {
  let got: Buffer = Buffer.alloc(0)
  let underWay = 0
  let ended = false
  const settle = (): void => {
    if (ended && underWay === 0) socket.end()
  }
  const next = (): void => {
    while (!socket.destroyed && underWay < pipelineMax && got.length >= 2) {
      const size = got.readUInt16BE(0)
      if (got.length < 2 + size) break
      const query = Buffer.from(got.subarray(2, 2 + size))
      got = got.subarray(2 + size)
      underWay++
      answer(query).then(
        (message) => {
          underWay--
          if (message === undefined) socket.destroy()
          else if (!socket.destroyed) socket.write(withLength(message))
          next()
          settle()
        },
        () => socket.destroy(),
      )
    }
    // Whole messages that wait, and a reader that does not read our answers, stop the reading.
    if (underWay >= pipelineMax || socket.writableNeedDrain || got.length > 2 + messageBytesMax) socket.pause()
    else socket.resume()
  }
  socket.setTimeout(idleMs, () => socket.destroy())
  socket.on('error', () => socket.destroy())
  socket.on('drain', next)
  socket.on('end', () => {
    ended = true
    settle()
  })
  socket.on('data', (chunk) => {
    got = got.length === 0 ? chunk : Buffer.concat([got, chunk])
    next()
  })
}
