import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Datapath } from '#datapath/datapath.ts'

/** Programs heed the age of what they find: a flow that waits for the sweep takes room, nothing else. */
const everyMs = 5_000

/** Takes away connections that are over, until `signal` aborts. A sweep that fails is said, and tried again. */
export async function sweepFlows(
  datapath: Pick<Datapath, 'sweepFlows'>,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await datapath.sweepFlows()
    } catch (error) {
      log.warn({ err: error }, 'flows that are over could not be swept')
    }
    await delay(everyMs, signal, clock).catch(() => {})
  }
}
