import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { type Datapath, frontendName, type Service } from '#datapath/datapath.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'
import { type LocalBackends, withLocalBackends } from './local.ts'
import { planServices } from './plan.ts'
import { reflectService, serviceOfSlice } from './reflect.ts'

export interface ServicesOptions {
  readonly services: Informer<KubeService>
  readonly slices: Informer<EndpointSlice>
  readonly datapath: Datapath
  /** Services, as `namespace/name`, whose backend is the node itself at one of these addresses, where they have no selector. */
  readonly localBackends?: LocalBackends
  readonly clock: Clock
  readonly log: Log
}

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
    let first = true
    const write = (): void => {
      if (first) this.#writeAll()
      else this.#writeChanged()
      first = false
    }
    const tell = (trouble: unknown): void => {
      this.#trouble = trouble
    }
    const sentence = 'Services could not be written, trying again'
    await writeLoop({ wake: this.#wake, write, tell, sentence, clock, log }, signal, started)
  }

  #look(keys: readonly string[]): void {
    for (const key of keys) this.#changed.add(key)
    this.#wake.raise()
  }

  #reflect(key: string): readonly Service[] {
    const { services, slices, localBackends } = this.#options
    const service = services.get(key)
    if (service === undefined) return []
    const rows = reflectService(service, slices.index('service', serviceOfSlice).get(key))
    return withLocalBackends(service, rows, localBackends?.get(key))
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

  /** Everything that changed since, in one go; after a failure it all stays changed. An address that moves from one Service to another is one write. */
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
