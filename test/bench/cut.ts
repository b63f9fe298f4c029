import { readFileSync } from 'node:fs'

/**
 * A bench that is cut takes away what it has made before it ends: namespaces, clusters, processes. It is cut by Ctrl-C, by the
 * end of its terminal, by whoever ends its process, and by a reader of its output that has gone (`npm run bench | head`).
 * Whatever waits for a process then fails, and unwinds; what else waits looks at `cut`. Who asks again is obeyed at once.
 */
const controller = new AbortController()

/** Aborted when the bench is to end. */
export const cut: AbortSignal = controller.signal

const againMs = 500
/** A signal to a process and to its group, as of a terminal through npm, is one. */
const sameMs = 1000

/** From here on a cut is heeded. */
export function heedCuts(): void {
  let first: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      first ??= performance.now()
      if (performance.now() - first > sameMs) process.exit(1)
      end(signal)
    })
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      // Each line to a reader who has gone fails again; any other error is nobody's to expect.
      if (error.code !== 'EPIPE') throw error
      end('nobody reads on')
    })
}

function end(reason: string): void {
  if (cut.aborted) return
  process.exitCode = 1
  controller.abort(new Error(`The bench was cut: ${reason}`))
  endChildren()
  // What is in between two processes starts another one.
  setInterval(endChildren, againMs).unref()
}

/** Those that we have started ourselves; what a cluster runs is not among them. */
function endChildren(): void {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').split(' ')
  for (const pid of children.map(Number).filter((number) => number > 0)) {
    try {
      process.kill(pid)
    } catch {
      // It has ended by itself.
    }
  }
}
