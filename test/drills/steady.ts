/**
 * Many connections to an echo server, each with sequence numbers that are checked. On SIGTERM it stops asking, waits for what is
 * still on its way, and prints what it counted. Run by the survival drill inside a pod's namespace:
 * steady.ts ADDRESS PORT CONNECTIONS INTERVAL_MS
 */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const [address = '', port = '', count = '', interval = ''] = process.argv.slice(2)
const intervalMs = Number(interval)
/** Connections are opened at this pace: what is measured is that they live. */
const openPerSecond = 800
/** What is lost is not sent for ever: this only has to be longer than a busy machine makes an answer wait. */
const settleMs = 20_000

const begin = performance.now()
let exchanges = 0
let longestMs = 0
let open = 0
const broken: string[] = []
let stopping = false

/** Resolves when it has been told to stop and has all its answers, or is broken. */
function converse(): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(Number(port), address)
    let sequence = 0
    let expected = ''
    let sentAt = 0
    let ended = false
    open++
    const end = (words?: string): void => {
      // Also asked for by a timer of before.
      if (ended) return
      ended = true
      if (words !== undefined && broken.length < 100) {
        const at = `${Math.round(performance.now() - begin)} ms after the beginning`
        broken.push(`${socket.localAddress}:${socket.localPort}, ${at}, after ${sequence} numbers: ${words}`)
      }
      socket.removeAllListeners().on('error', () => {})
      socket.destroy()
      open--
      resolve()
    }
    const ask = (): void => {
      if (stopping) {
        end()
        return
      }
      expected = `${sequence++}\n`
      sentAt = performance.now()
      socket.write(expected)
    }
    let got = ''
    socket.setNoDelay(true)
    socket.on('connect', () => setTimeout(ask, Math.random() * intervalMs))
    socket.on('error', (error) => end(error.message))
    socket.on('close', () => end('closed by the other side'))
    socket.on('data', (chunk: Buffer) => {
      got += chunk
      if (got.length < expected.length) return
      if (got !== expected) {
        end(`sent ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`)
        return
      }
      got = ''
      exchanges++
      longestMs = Math.max(longestMs, performance.now() - sentAt)
      setTimeout(ask, intervalMs)
    })
    stops.push(() => {
      // Nothing is on its way: it may end at once.
      if (got === '' && sequence > 0 && socket.bytesRead === socket.bytesWritten) end()
    })
  })
}
const stops: (() => void)[] = []

const conversations: Promise<void>[] = []
const told = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()))
for (let i = 0; i < Number(count); i++) {
  conversations.push(converse())
  if (i % (openPerSecond / 10) === 0) await sleep(100)
}
process.stdout.write('open\n')
await told
stopping = true
for (const stop of stops) stop()
const late = sleep(settleMs).then(() => true)
if (await Promise.race([Promise.all(conversations).then(() => false), late]))
  broken.push(`${open} connections had no answer for ${settleMs} ms at the end`)
process.stdout.write(`${JSON.stringify({ connections: conversations.length, exchanges, longestMs, broken })}\n`)
process.exit(0)
