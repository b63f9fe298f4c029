import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import { isAbort } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import { isAccessDenied } from './errors.ts'

/** Something that runs until it is told to stop. `run` resolves when it has truly stopped. */
export interface Part {
  readonly name: string
  run(signal: AbortSignal, started: () => void): Promise<void>
}

export interface Health {
  /** `waiting`: stopped by a failure, will be started again. */
  readonly state: 'starting' | 'running' | 'waiting' | 'stopped'
  /** Why it is waiting: `Forbidden: …`. */
  readonly reason?: string
  /** Since when, milliseconds since the epoch. */
  readonly since: number
  readonly starts: number
}

export interface ManagerOptions {
  readonly parts: readonly Part[]
  readonly clock?: Clock
  readonly log?: Log
  /** Pause before a part that failed is started again: doubles from the first to the last. Default 1 s to 30 s. */
  readonly restartFirstMs?: number
  readonly restartMaxMs?: number
}

/** A part that ran this long was well: its next failure is a first one. */
const wellMs = 60_000

/**
 * Runs parts: started in order, stopped in reverse. A part that fails is started again after a pause and takes no other
 * with it; one without the rights it needs says so clearly, once, and comes back by itself when it has them.
 */
export class Manager {
  readonly #options: ManagerOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #health = new Map<string, Health>()

  constructor(options: ManagerOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    for (const { name } of options.parts) this.#set(name, 'starting')
  }

  health(): Readonly<Record<string, Health>> {
    return Object.fromEntries(this.#health)
  }

  /** Runs every part until `signal` aborts; resolves when the last has stopped. */
  async run(signal: AbortSignal): Promise<void> {
    const running: { readonly stop: AbortController; readonly ended: Promise<void> }[] = []
    for (const part of this.#options.parts) {
      if (signal.aborted) break
      const stop = new AbortController()
      running.push({ stop, ended: this.#keep(part, stop.signal) })
    }
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    for (const { stop, ended } of running.toReversed()) {
      stop.abort(signal.reason)
      await ended
    }
  }

  async #keep(part: Part, signal: AbortSignal): Promise<void> {
    const { restartFirstMs = 1_000, restartMaxMs = 30_000 } = this.#options
    const backoff = new Backoff({ firstMs: restartFirstMs, maxMs: restartMaxMs, jitter: 0.2 })
    const log = this.#log.child({ part: part.name })
    while (!signal.aborted) {
      const startedAt = this.#clock.monotonic()
      this.#set(part.name, 'starting')
      try {
        await part.run(signal, () => {
          this.#set(part.name, 'running')
          log.info({}, 'running')
        })
        if (!signal.aborted) throw new Error(`${part.name} ended by itself`)
      } catch (error) {
        if (signal.aborted && (error === signal.reason || isAbort(error))) break
        const denied = isAccessDenied(error)
        const previous = this.#health.get(part.name)?.reason
        const reason = denied ? `${error.reason}: ${error.message}` : String(error)
        if (this.#clock.monotonic() - startedAt > wellMs) backoff.reset()
        this.#set(part.name, 'waiting', reason)
        const afterMs = Math.round(backoff.next())
        if (denied) log.error({ reason, afterMs }, 'stopped: its identity lacks a right')
        else if (reason === previous) log.debug({ err: error, afterMs }, 'stopped by a failure')
        else log.error({ err: error, afterMs }, 'stopped by a failure')
        await delay(afterMs, signal, this.#clock).catch(() => {})
      }
    }
    this.#set(part.name, 'stopped')
  }

  #set(name: string, state: Health['state'], reason?: string): void {
    const known = this.#health.get(name)
    const starts = (known?.starts ?? 0) + (state === 'starting' && known !== undefined ? 1 : 0)
    // While it is only starting again, why it had stopped is still what matters.
    const kept = reason ?? (state === 'starting' ? known?.reason : undefined)
    this.#health.set(name, {
      state,
      ...(kept === undefined ? {} : { reason: kept }),
      since: this.#clock.now(),
      starts,
    })
  }
}
