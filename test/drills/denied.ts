/**
 * Tries again and again what is denied. On SIGTERM prints how often it tried, and what came of it. Run by the survival drill
 * inside a pod's namespace: denied.ts ADDRESS:PORT...
 */
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

const targets = process.argv.slice(2).map((text) => {
  const cut = text.lastIndexOf(':')
  return { address: text.slice(0, cut), port: Number(text.slice(cut + 1)) }
})
const withinMs = 300
const outcomes = { refused: 0, silent: 0, opened: 0 }
let stopping = false
process.once('SIGTERM', () => {
  stopping = true
})

function attempt({ address, port }: (typeof targets)[number]): Promise<keyof typeof outcomes> {
  return new Promise((resolve) => {
    const socket = connect(port, address)
    const end = (outcome: keyof typeof outcomes): void => {
      socket.removeAllListeners().on('error', () => {})
      socket.destroy()
      resolve(outcome)
    }
    socket.setTimeout(withinMs, () => end('silent'))
    socket.on('connect', () => end('opened'))
    socket.on('error', () => end('refused'))
  })
}

while (!stopping) {
  for (const target of targets) outcomes[await attempt(target)]++
  await sleep(5)
}
process.stdout.write(`${JSON.stringify(outcomes)}\n`)
