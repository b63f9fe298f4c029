/**
 * Sends numbered lines to an echo server, one connection that lives throughout and a new one every few exchanges, and
 * checks each answer. On SIGTERM prints what it counted. Run by the drills inside a pod's namespace.
 */
import { connect, type Socket } from 'node:net'

const [address = '', port = ''] = process.argv.slice(2)
const answerWithinMs = 5_000
const exchangesPerConnection = 20

let exchanges = 0
let connections = 0
const failures: string[] = []
let stopping = false
process.on('SIGTERM', () => {
  stopping = true
})

function open(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), address, () => {
      connections++
      socket.setNoDelay(true)
      resolve(socket)
    })
    socket.once('error', reject)
    socket.setTimeout(answerWithinMs, () => socket.destroy(new Error(`silent for ${answerWithinMs} ms`)))
  })
}

function exchange(socket: Socket): Promise<void> {
  const line = `${exchanges}\n`
  return new Promise((resolve, reject) => {
    let got = ''
    const onData = (chunk: Buffer) => {
      got += chunk
      if (got.length < line.length) return
      settle()
      if (got === line) {
        exchanges++
        resolve()
      } else reject(new Error(`sent ${JSON.stringify(line)}, got ${JSON.stringify(got)}`))
    }
    const onEnd = () => {
      settle()
      reject(new Error('the connection was closed'))
    }
    const onError = (error: Error) => {
      settle()
      reject(error)
    }
    const settle = () => {
      socket.off('data', onData).off('close', onEnd).off('error', onError)
    }
    socket.on('data', onData).on('close', onEnd).on('error', onError)
    socket.write(line)
  })
}

async function work(rounds: () => boolean): Promise<void> {
  try {
    const socket = await open()
    while (!stopping && rounds()) await exchange(socket)
    socket.removeAllListeners('close').destroy()
  } catch (error) {
    failures.push(error instanceof Error ? error.message : String(error))
  }
}

const lasting = work(() => true)
while (!stopping && failures.length === 0) {
  let left = exchangesPerConnection
  await work(() => left-- > 0)
}
await lasting
process.stdout.write(JSON.stringify({ exchanges, connections, failures }))
