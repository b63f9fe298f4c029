import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Datapath, Service } from '#datapath/datapath.ts'
import { type Backend, frontendName } from '#datapath/frontend.ts'
import type { StaleBackend } from '#datapath/maps/translations.ts'
import { Namespace } from '#kernel/netns.ts'
import { Signal } from '../signal.ts'

/** One rolling step takes several backends away, and a pod is in the slices of several Services: they are dealt with together. */
const gatherMs = 50
const sweepEveryMs = 5_000

/** Every backend that a slice names, in whatever condition. */
export function backendsIn(slice: EndpointSlice | undefined): Backend[] {
  return (slice?.endpoints ?? []).flatMap(({ addresses: [address] }) =>
    (slice?.ports ?? []).flatMap(({ port, protocol = 'TCP' }) =>
      address === undefined || port === undefined ? [] : [{ address, port, protocol } as Backend],
    ),
  )
}

/** Backends that a change of a slice took out of it. Pure. */
export function takenOut(old: EndpointSlice | undefined, next: EndpointSlice | undefined): Backend[] {
  const left = new Set(backendsIn(next).map(frontendName))
  return backendsIn(old).filter((backend) => !left.has(frontendName(backend)))
}

/**
 * Backends that datagrams of a Service must leave at once: a datagram has no connection that could end by itself, so those of a
 * pod that is going move to the others while it still answers what is on its way (Kubernetes #48714). Pure.
 */
export function leftByDatagrams(old: readonly Service[], next: readonly Service[]): StaleBackend[] {
  const now = new Map(next.map((row) => [frontendName(row.frontend), row]))
  const left = old.flatMap((row): StaleBackend[] => {
    const { frontend, number } = row
    if (frontend.protocol !== 'UDP' || number === undefined) return []
    const after = now.get(frontendName(frontend))
    const stays = new Set(after === undefined ? [] : allBackends(after).map(frontendName))
    return allBackends(row).flatMap((b) => (stays.has(frontendName(b)) ? [] : [{ ...b, service: number }]))
  })
  return [...new Map(left.map((b) => [`${b.service} ${frontendName(b)}`, b])).values()]
}

const allBackends = ({ backends, outside }: Service): Backend[] => [...backends, ...(outside?.backends ?? [])]

export interface GoneOptions {
  readonly datapath: Datapath
  /** Whether any slice still names it. */
  readonly isPresent: (backend: Backend) => boolean
  /** Paths of the pods' network namespaces. */
  readonly sandboxes: () => readonly string[]
  /** The node's network namespace; absent: our own. */
  readonly namespace?: Namespace
  readonly clock: Clock
  readonly log: Log
}

/**
 * What was translated to backends that are gone: translations go, and sockets that are connected to them are ended, the node's
 * and its pods', so that their owners connect anew at once instead of talking to nobody.
 */
export class GoneBackends {
  readonly #options: GoneOptions
  readonly #wake = new Signal()
  readonly #taken = new Map<string, Backend>()
  readonly #left: StaleBackend[] = []

  constructor(options: GoneOptions) {
    this.#options = options
  }

  /** Taken out of a slice: gone, unless another still names it. */
  noteTaken(backends: readonly Backend[]): void {
    for (const backend of backends) this.#taken.set(frontendName(backend), backend)
    if (backends.length > 0) this.#wake.raise()
  }

  noteLeft(backends: readonly StaleBackend[]): void {
    this.#left.push(...backends)
    if (backends.length > 0) this.#wake.raise()
  }

  /** Runs until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#sweep(signal), this.#follow(signal)])
  }

  /** Translations that nobody has used for long take room, nothing else. */
  async #sweep(signal: AbortSignal): Promise<void> {
    const { datapath, clock, log } = this.#options
    while (!signal.aborted) {
      try {
        await datapath.sweepTranslations()
      } catch (error) {
        log.warn({ err: error }, 'translations that are over could not be swept')
      }
      await delay(sweepEveryMs, signal, clock).catch(() => {})
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    while (!signal.aborted) {
      await this.#wake.wait(signal).catch(() => {})
      await delay(gatherMs, signal, clock).catch(() => {})
      if (signal.aborted) return
      const taken = [...this.#taken.values()]
      const left = this.#left.splice(0)
      this.#taken.clear()
      const gone = taken.filter((backend) => !this.#options.isPresent(backend))
      try {
        await this.#forget(gone, left)
      } catch (error) {
        log.warn(
          { err: error, backends: gone.map(frontendName) },
          'connections to backends that are gone were not ended',
        )
      }
    }
  }

  async #forget(gone: readonly Backend[], left: readonly StaleBackend[]): Promise<void> {
    const { datapath, log } = this.#options
    if (gone.length === 0 && left.length === 0) return
    const { removed } = await datapath.sweepTranslations([...gone, ...left])
    const sockets = gone.length === 0 ? 0 : await this.#endSockets(gone)
    if (removed > 0 || sockets > 0)
      log.info({ backends: gone.map(frontendName), translations: removed, sockets }, 'backends are gone')
  }

  async #endSockets(gone: readonly Backend[]): Promise<number> {
    const { sandboxes, namespace, log } = this.#options
    let ended = 0
    const endIn = async (where: Namespace): Promise<void> => {
      for (const protocol of ['TCP', 'UDP'] as const) {
        const peers = gone.filter((b) => b.protocol === protocol)
        if (peers.length > 0) ended += await where.destroySockets(protocol, peers)
      }
    }
    if (namespace !== undefined) await endIn(namespace)
    else {
      using own = Namespace.own()
      await endIn(own)
    }
    for (const path of sandboxes()) {
      try {
        using sandbox = Namespace.open(path)
        await endIn(sandbox)
      } catch (error) {
        // The pod has gone meanwhile, and its sockets with it.
        log.debug({ err: error, sandbox: path }, 'sockets of a sandbox were not looked at')
      }
    }
    return ended
  }
}
