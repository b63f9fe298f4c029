import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { type Datapath, frontendName, type Service } from '#datapath/datapath.ts'
import { Signal } from '../signal.ts'
import { planServices } from './plan.ts'
import { reflectService, serviceOfSlice } from './reflect.ts'

export interface ServicesOptions {
  readonly services: Informer<KubeService>
  readonly slices: Informer<EndpointSlice>
  readonly datapath: Datapath
  readonly clock: Clock
  readonly log: Log
}

const retryFirstMs = 100
const retryMaxMs = 30_000

/**
 * Services and EndpointSlices poured into the kernel's maps. On start everything is compared with what the kernel has,
 * in one batch and only once both copies are complete, so that a restart takes nothing away; after that a change costs
 * the rows of its Service.
 */
export class Services {
  readonly #options: ServicesOptions
  /** What each Service came to when it was last written. */
  readonly #rows = new Map<string, readonly Service[]>()
  readonly #changed = new Set<string>()
  readonly #wake = new Signal()
  #trouble: unknown

  constructor(options: ServicesOptions) {
    this.#options = options
  }

  status(): {
    readonly services: number
    readonly frontends: number
    readonly backends: number
    readonly trouble: string
  } {
    const rows = [...this.#rows.values()].flat()
    return {
      services: this.#rows.size,
      frontends: rows.length,
      backends: rows.reduce((sum, row) => sum + row.backends.length, 0),
      trouble: this.#trouble === undefined ? '' : String(this.#trouble),
    }
  }

  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { services, slices, clock, log } = this.#options
    slices.index('service', serviceOfSlice)
    await Promise.all([services.whenSynced(signal), slices.whenSynced(signal)])
    services.onChange(
      (next, old) => this.#look([next, old].flatMap((s) => (s === undefined ? [] : [keyOf(s)]))),
      signal,
    )
    slices.onChange(
      (next, old) => this.#look([next, old].flatMap((s) => (s === undefined ? [] : serviceOfSlice(s)))),
      signal,
    )
    const backoff = new Backoff({ firstMs: retryFirstMs, maxMs: retryMaxMs, jitter: 0.2 })
    let first = true
    while (!signal.aborted) {
      try {
        if (first) this.#writeAll()
        else this.#writeChanged()
        if (first) started()
        first = false
        this.#trouble = undefined
        backoff.reset()
        await this.#wake.wait(signal)
      } catch (error) {
        if (signal.aborted) break
        // The rows stay changed: they are written with the next attempt.
        this.#trouble = error
        log.error({ err: error }, 'Services could not be written, trying again')
        await delay(backoff.next(), signal, clock)
      }
    }
  }

  #look(keys: readonly string[]): void {
    for (const key of keys) this.#changed.add(key)
    this.#wake.raise()
  }

  #reflect(key: string): readonly Service[] {
    const { services, slices } = this.#options
    const service = services.get(key)
    return service === undefined ? [] : reflectService(service, slices.index('service', serviceOfSlice).get(key))
  }

  #writeAll(): void {
    const { services, datapath, log, clock } = this.#options
    const start = clock.monotonic()
    const wanted = new Map(services.list().map((service) => [keyOf(service), this.#reflect(keyOf(service))]))
    const plan = planServices(datapath.services(), [...wanted.values()].flat())
    datapath.changeServices(plan.upserts, plan.removals)
    for (const [key, rows] of wanted) this.#rows.set(key, rows)
    this.#changed.clear()
    log.info(
      {
        services: wanted.size,
        written: plan.upserts.length,
        removed: plan.removals.length,
        ms: Math.round(clock.monotonic() - start),
      },
      'Services are in place',
    )
  }

  /** Everything that changed since, in one go. An address that moves from one Service to another is one write. */
  #writeChanged(): void {
    const keys = [...this.#changed]
    if (keys.length === 0) return
    const wanted = new Map(keys.map((key) => [key, this.#reflect(key)]))
    const present = keys.flatMap((key) => this.#rows.get(key) ?? [])
    const plan = planServices(present, [...wanted.values()].flat())
    const elsewhere = new Set(
      [...this.#rows].flatMap(([key, rows]) =>
        wanted.has(key) || plan.removals.length === 0 ? [] : rows.map((r) => frontendName(r.frontend)),
      ),
    )
    this.#options.datapath.changeServices(
      plan.upserts,
      plan.removals.filter((frontend) => !elsewhere.has(frontendName(frontend))),
    )
    for (const [key, rows] of wanted) {
      if (rows.length === 0) this.#rows.delete(key)
      else this.#rows.set(key, rows)
      this.#changed.delete(key)
    }
  }
}
