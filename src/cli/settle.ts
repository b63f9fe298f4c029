import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Clock } from '#base/clock.ts'

/** Long after a start, and before anybody looks how much an idle program takes. */
const afterMs = 8_000

/**
 * Collects once what the start left. V8 gives memory back when it needs room, and a program that is idle never does: a server
 * kept 30 MB of what it had parsed. Takes some 100 ms, once. Returns what cancels it.
 */
export function settle(clock: Clock): () => void {
  // Only the process that was started with the flag has it otherwise; contexts made from here on have it too.
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (options: object) => void
  return clock.schedule(afterMs, () => collect({ type: 'major', execution: 'sync', flavor: 'last-resort' }))
}
