import { connect, createServer, type Server } from 'node:net'

/** How long who has the lock may take to say who he is: he may be busy with something else. */
const answerWithinMs = 2_000

/**
 * Held by one command that changes a cluster, until it is disposed or the process ends in whatever way: a socket with a name
 * that is not in the file system, which the kernel takes away with its owner. Throws with the other command's name and pid.
 */
export async function lockCluster(name: string, command: string): Promise<Disposable> {
  const path = `\0weft/cluster/${name}`
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end(`weft ${command} (pid ${process.pid})`)
  })
  try {
    await listen(server, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE')
      throw new Error(`Cannot lock cluster ${JSON.stringify(name)}`, { cause: error })
    throw new Error(
      `${await askHolder(path)} is at work on cluster ${JSON.stringify(name)}: run weft ${command} again when it has ended`,
    )
  }
  // Nothing waits for it.
  server.unref()
  return { [Symbol.dispose]: () => void server.close() }
}

const listen = (server: Server, path: string): Promise<void> =>
  new Promise((done, fail) => {
    server.once('error', fail)
    server.listen(path, () => {
      server.removeListener('error', fail)
      done()
    })
  })

function askHolder(path: string): Promise<string> {
  return new Promise((done) => {
    let words = ''
    const socket = connect(path)
    socket.setTimeout(answerWithinMs)
    socket.on('data', (chunk: Buffer) => {
      words += chunk
    })
    // It may end in this moment, or say nothing for a while: another command it was in any case.
    socket.on('error', () => {})
    socket.on('timeout', () => socket.destroy())
    socket.on('close', () => done(words === '' ? 'another command' : words))
  })
}
