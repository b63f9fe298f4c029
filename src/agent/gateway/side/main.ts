/**
 * The side engine's process: `main.ts DIR`. Serves HAProxy on DIR/side.sock (HTTP/1) and DIR/side2.sock (HTTP/2), and the
 * agent on DIR/side-control.sock, a line of JSON each way. It outlives its agent; the next one finds it there.
 */
import { rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createServer2 } from 'node:http2'
import { createServer as createControl, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Forwarder } from './forward.ts'
import type { Delta } from './orders.ts'

const [dir = '.'] = process.argv.slice(2)
const forwarder = new Forwarder()

const handle = (request: IncomingMessage, response: ServerResponse): void => {
  // It answers every failure itself; what is thrown beyond that is a mistake of ours and ends the process.
  void forwarder.handle(request, response)
}

const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 0, maxHeaderSize: 65_536 }, handle)
server.on('upgrade', (request, socket, head) => void forwarder.upgrade(request, socket, head))
const server2 = createServer2({}, handle as unknown as Parameters<typeof createServer2>[1])

/** Replaces everything or changes some of it; the answer follows once it is in force. */
type Message = { readonly fresh?: boolean; readonly delta?: Delta; readonly counts?: true }

function converse(socket: Socket): void {
  socket.on('error', () => socket.destroy())
  createInterface(socket).on('line', (line) => {
    const message = JSON.parse(line) as Message
    if (message.fresh === true) forwarder.clear()
    if (message.delta !== undefined) forwarder.change(message.delta)
    socket.write(`${JSON.stringify({ counts: forwarder.counts })}\n`)
  })
}

const listen = (listener: { listen(path: string, then: () => void): unknown }, name: string): Promise<void> => {
  rmSync(join(dir, name), { force: true })
  return new Promise((resolve) => listener.listen(join(dir, name), resolve))
}
await listen(server, 'side.sock')
await listen(server2, 'side2.sock')
// Last: whoever reaches it finds the others there.
await listen(createControl(converse), 'side-control.sock')
