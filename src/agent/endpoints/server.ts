import { chmodSync, copyFileSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import type { Log } from '#base/log/log.ts'
import {
  CniError,
  formatAnswer,
  formatConfigList,
  formatFailure,
  parseRequest,
  type Request,
  requestBytesMax,
} from '#cni/protocol.ts'

/** A runtime starts a plug-in per sandbox; more than this at once is a mistake, and they are told to come again. */
const connectionsMax = 256
const requestWithinMs = 10_000

export interface CniServerOptions {
  readonly socketPath: string
  readonly handle: (request: Request, signal: AbortSignal) => Promise<string>
  readonly log: Log
}

/** Answers the plug-in's calls until `signal` aborts; resolves when the last call has its answer. */
export async function serveCni(options: CniServerOptions, signal: AbortSignal, listening: () => void): Promise<void> {
  const { socketPath, handle, log } = options
  const calls = new Set<Promise<void>>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const call = answer(socket, handle, log, signal).finally(() => calls.delete(call))
    calls.add(call)
  })
  server.maxConnections = connectionsMax
  mkdirSync(dirname(socketPath), { recursive: true, mode: 0o755 })
  // Left by an agent that was killed.
  rmSync(socketPath, { force: true })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen(socketPath, done)
  })
  chmodSync(socketPath, 0o600)
  listening()
  if (!signal.aborted) await new Promise((done) => signal.addEventListener('abort', done, { once: true }))
  const closed = new Promise<void>((done) => server.close(() => done()))
  await Promise.all(calls)
  await closed
}

async function answer(
  socket: Socket,
  handle: CniServerOptions['handle'],
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  // A plug-in that went away does not hear the answer; the call is done all the same.
  socket.on('error', (err) => log.debug({ err }, 'a CNI call was broken off'))
  let version = '1.0.0'
  let text: string
  try {
    const request = parseRequest(await readAll(socket))
    version = request.cniVersion
    text = formatAnswer(await handle(request, signal))
  } catch (error) {
    log.warn({ err: error }, 'a CNI call failed')
    text = formatFailure(error, version)
  }
  await new Promise<void>((done) => {
    socket.once('close', () => done())
    socket.end(text, () => socket.destroy())
  })
}

function readAll(socket: Socket): Promise<Buffer> {
  return new Promise((done, fail) => {
    const chunks: Buffer[] = []
    let size = 0
    socket.setTimeout(requestWithinMs, () => fail(new CniError('io', 'the call did not end')))
    socket.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > requestBytesMax) fail(new CniError('decoding', `the call is longer than ${requestBytesMax} bytes`))
      else chunks.push(chunk)
    })
    socket.once('end', () => {
      socket.setTimeout(0)
      done(Buffer.concat(chunks))
    })
    socket.once('close', () => fail(new CniError('io', 'the call was broken off')))
  })
}

/** The program that the runtime starts. */
const plugin = resolve(import.meta.dirname, '../../../native/build/weft-cni')

/** Both names of the plug-in; containerd also calls one named loopback. Copies: where we are in a container, it is not. */
export function installPlugin(binDir: string): void {
  mkdirSync(binDir, { recursive: true })
  for (const name of ['weft-cni', 'loopback']) {
    const path = join(binDir, name)
    // Moved into place: the one that is there may be running.
    copyFileSync(plugin, `${path}.new`)
    chmodSync(`${path}.new`, 0o755)
    renameSync(`${path}.new`, path)
  }
}

/** From this moment on the runtime says that its network is ready. */
export function installConfig(confDir: string, socketPath: string): void {
  mkdirSync(confDir, { recursive: true })
  const path = join(confDir, '10-weft.conflist')
  // The runtime watches the directory and would read a half-written file; it does not look at other endings.
  writeFileSync(`${path}.new`, formatConfigList(socketPath))
  renameSync(`${path}.new`, path)
}
