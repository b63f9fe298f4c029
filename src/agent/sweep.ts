import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Datapath } from '#datapath/datapath.ts'

/** Programs heed the age of what they find: a flow that waits for the sweep takes room, nothing else. */
const everyMs = 5_000

type Swept = Awaited<ReturnType<Datapath['sweepFlows']>>

export interface SweepOptions {
  readonly clock: Clock
  readonly log: Log
  /** Told of each sweep; `undefined`: it failed. */
  readonly observe?: (swept: Swept | undefined, seconds: number) => void
}

/** Takes away connections that are over, until `signal` aborts. A sweep that fails is said, and tried again. */
export async function sweepFlows(
  datapath: Pick<Datapath, 'sweepFlows'>,
  { clock, log, observe }: SweepOptions,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const start = clock.monotonic()
    const seconds = (): number => (clock.monotonic() - start) / 1000
    try {
      observe?.(await datapath.sweepFlows(), seconds())
    } catch (error) {
      observe?.(undefined, seconds())
      log.warn({ err: error }, 'flows that are over could not be swept')
    }
    await delay(everyMs, signal, clock).catch(() => {})
  }
}
