import type { KubeObject } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { isAbort } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { isAccessDenied, TerminalError } from './errors.ts'
import type { QueueMetrics } from './metrics.ts'
import { WorkQueue } from './workqueue.ts'

/** What a reconciler says when it is through with a key. */
export type Result = { readonly do: 'await-change' } | { readonly do: 'requeue'; readonly afterMs: number }

/** All is as it should be: look again when something changes. */
export const awaitChange: Result = { do: 'await-change' }

/** Look again after `afterMs` even if nothing changes. */
export const requeueAfter = (afterMs: number): Result => ({ do: 'requeue', afterMs })

/** What a reconciler is given beside the key. */
export interface ReconcileContext {
  readonly signal: AbortSignal
  /** Has the controller's name and the key. */
  readonly log: Log
}

/** Brings the world of one key to what is wanted, from what is there now. May be called at any time, any number of times. */
export type Reconcile = (key: string, context: ReconcileContext) => Promise<Result>

export interface ControllerOptions {
  readonly name: string
  readonly reconcile: Reconcile
  /** Keys worked on at once; one key is never worked on twice at once. Default 1. */
  readonly workers?: number
  readonly clock?: Clock
  readonly log?: Log
  readonly metrics?: QueueMetrics
}

/**
 * Keys in, results out: takes keys from a queue and hands them to `reconcile`. The one place where the outcome of a key
 * is decided: success, later, again with a growing pause, or (an identity without the right) the end of the controller.
 */
export class Controller {
  readonly name: string
  readonly #options: ControllerOptions
  readonly #log: Log
  readonly queue: WorkQueue

  constructor(options: ControllerOptions) {
    this.name = options.name
    this.#options = options
    this.#log = (options.log ?? silentLog).child({ controller: options.name })
    const { clock = systemClock, metrics } = options
    this.queue = new WorkQueue({ clock, ...(metrics === undefined ? {} : { metrics }) })
  }

  enqueue(key: string): void {
    this.queue.add(key)
  }

  enqueueAfter(key: string, ms: number): void {
    this.queue.addAfter(key, ms)
  }

  /**
   * Looks at keys again whenever an object of the informer changes; by default the object's own key. For a change
   * `keysOf` is asked about the old object as well: what it no longer belongs to must hear of it too.
   */
  watch<K extends KubeObject>(
    informer: Informer<K>,
    signal: AbortSignal,
    keysOf: (object: K) => Iterable<string> = (object) => [keyOf(object)],
  ): void {
    informer.onChange((next, old) => {
      if (old !== undefined) for (const key of keysOf(old)) this.queue.add(key)
      if (next !== undefined) for (const key of keysOf(next)) this.queue.add(key)
    }, signal)
  }

  /** Works until `signal` aborts and every key in hand is finished. Throws when access is denied. */
  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController()
    const inner = AbortSignal.any([signal, stop.signal])
    let failure: { readonly error: unknown } | undefined
    const close = () => this.queue.close()
    inner.addEventListener('abort', close, { once: true })
    if (inner.aborted) close()
    const work = async (): Promise<void> => {
      for (;;) {
        const key = await this.queue.take()
        if (key === undefined) return
        try {
          await this.#handle(key, inner)
        } catch (error) {
          failure ??= { error }
          stop.abort(error)
        } finally {
          this.queue.done(key)
        }
      }
    }
    await Promise.all(Array.from({ length: this.#options.workers ?? 1 }, work))
    if (failure) throw failure.error
  }

  async #handle(key: string, signal: AbortSignal): Promise<void> {
    const log = this.#log.child({ key })
    try {
      const result = await this.#options.reconcile(key, { signal, log })
      this.queue.forget(key)
      if (result.do === 'requeue') this.queue.addAfter(key, result.afterMs)
    } catch (error) {
      if (signal.aborted && (error === signal.reason || isAbort(error))) return
      if (isAccessDenied(error)) throw error
      if (error instanceof TerminalError) {
        this.queue.forget(key)
        log.error({ err: error }, 'giving up until something changes')
        return
      }
      const afterMs = this.queue.retry(key)
      // A conflict is the ordinary way of hearing that somebody else was first.
      const level = isStatus(error, 'Conflict') ? 'debug' : 'warn'
      log[level]({ err: error, failures: this.queue.failures(key), afterMs }, 'failed, will try again')
    }
  }
}
