import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Signal } from './signal.ts'

const retryFirstMs = 100
/** A kernel that refuses for good (a full map) is asked twice a minute: it costs nothing, and room may come. */
const retryMaxMs = 30_000
/** What has changed since is not made to wait for that: a pod that is to be isolated now is closed at least. */
const retryChangedMs = 250

export interface WriteLoopOptions {
  /** Raised when there is something to look at. */
  readonly wake: Signal
  /** Brings the kernel to what is wanted now. What it could not write it does with the next call. */
  readonly write: () => void | Promise<void>
  /** What went wrong, or undefined once a write has succeeded. */
  readonly tell: (trouble: unknown) => void
  /** Constant, for the log of a write that failed. */
  readonly sentence: string
  readonly clock: Clock
  readonly log: Log
}

/**
 * Writes at once and after each wake; where that failed again after a pause, or soon after the next wake. `started` after the
 * first success.
 */
export async function writeLoop(options: WriteLoopOptions, signal: AbortSignal, started: () => void): Promise<void> {
  const { wake, write, tell, sentence, log } = options
  const backoff = new Backoff({ firstMs: retryFirstMs, maxMs: retryMaxMs, jitter: 0.2 })
  let first = true
  while (!signal.aborted) {
    try {
      await write()
      if (first) started()
      first = false
      tell(undefined)
      backoff.reset()
      await wake.wait(signal)
    } catch (error) {
      if (signal.aborted) break
      tell(error)
      log.error({ err: error }, sentence)
      await pauseOrChange(backoff.next(), options, signal)
    }
  }
}

async function pauseOrChange(ms: number, { wake, clock }: WriteLoopOptions, signal: AbortSignal): Promise<void> {
  const least = Math.min(ms, retryChangedMs)
  await delay(least, signal, clock)
  if (ms === least) return
  const over = new AbortController()
  const either = AbortSignal.any([signal, over.signal])
  try {
    await Promise.race([delay(ms - least, either, clock), wake.wait(either)])
  } finally {
    over.abort()
  }
}
