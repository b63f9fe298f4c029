import type { PartialObjectMetadata } from '#api/gen/meta-v1.ts'
import { customResourceDefinitions } from '#api/gen/resources.ts'
import { groupOf } from '#api/meta/gvk.ts'
import type { Resource } from '#api/meta/resource.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { type Discovered, discover } from '#client/discovery.ts'
import type { Informers } from '#client/informer.ts'
import { qualifiedName } from '#client/key.ts'
import { follow } from '#client/watch.ts'
import { isAccessDenied } from '#reconcile/errors.ts'
import type { Consequences, Graph } from './graph.ts'

/** Upstream's: how often the server is asked what it serves. Definitions of custom resources are noticed at once. */
const resyncMs = 30_000
/** Several definitions that come together are one resync. */
const settleMs = 200
/** How long to wait at the start for the objects of all resources; who is not in by then is asked for one by one. */
const readyMaxMs = 30_000

/** They refer to much and own nothing, and there are many. */
const ignored = new Set(['events', 'events.events.k8s.io'])

interface Monitor {
  readonly resource: Resource
  readonly stop: AbortController
  readonly uids: Set<string>
  synced: boolean
}

export interface MonitorsOptions {
  readonly client: Client
  readonly informers: Informers
  readonly graph: Graph
  readonly clock: Clock
  readonly log: Log
  readonly onConsequences: (consequences: Consequences) => void
  /** Runs a task for as long as the collector runs. */
  readonly start: (task: (signal: AbortSignal) => Promise<void>) => void
}

/** Follows the metadata of every resource that can be deleted, custom ones included, and keeps the graph right. */
export class Monitors {
  readonly #options: MonitorsOptions
  readonly #monitors = new Map<string, Monitor>()
  #byKind = new Map<string, Resource>()
  readonly #ready = Promise.withResolvers<void>()
  #wake = () => {}

  constructor(options: MonitorsOptions) {
    this.#options = options
  }

  /** Resolves when the objects of all resources known at the start are in the graph (or are taking too long). */
  get ready(): Promise<void> {
    return this.#ready.promise
  }

  /** The resource of an owner reference; undefined where nothing of that kind is served. */
  resourceOf(apiVersion: string, kind: string): Resource | undefined {
    return this.#byKind.get(`${groupOf(apiVersion)}/${kind}`)
  }

  /** Asks again what is served, soon. */
  resync(): void {
    this.#wake()
  }

  async run(signal: AbortSignal): Promise<void> {
    const { client, informers, clock, log } = this.#options
    informers.of(customResourceDefinitions).onChange(() => this.resync(), signal)
    const cancel = clock.schedule(readyMaxMs, () => this.#ready.resolve())
    try {
      while (!signal.aborted) {
        const woken = new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        try {
          this.#update(await discover(client, signal))
        } catch (error) {
          signal.throwIfAborted()
          if (isAccessDenied(error)) throw error
          log.warn({ err: error }, 'cannot ask what the server serves, trying again')
        }
        const over = new AbortController()
        const pause = delay(resyncMs, AbortSignal.any([signal, over.signal]), clock).catch(() => {})
        await Promise.race([woken, pause])
        over.abort()
        signal.throwIfAborted()
        await delay(settleMs, signal, clock)
      }
    } finally {
      cancel()
    }
  }

  #update({ resources, failures }: Discovered): void {
    const followed = resources.filter(
      (r) => !ignored.has(qualifiedName(r)) && ['delete', 'list', 'watch'].every((verb) => r.verbs.has(verb)),
    )
    this.#byKind = new Map(resources.map((r) => [`${r.group}/${r.kind}`, r]))
    const wanted = new Map(followed.map((r) => [`${r.group}/${r.version}/${r.resource}`, r]))
    for (const [id, monitor] of this.#monitors) {
      // A group that could not be asked is still there, for all we know.
      if (wanted.has(id) || failures.has(id.slice(0, id.lastIndexOf('/')).replace(/^\//, ''))) continue
      monitor.stop.abort()
      this.#monitors.delete(id)
      for (const uid of monitor.uids) this.#options.onConsequences(this.#options.graph.remove(uid))
    }
    for (const [id, resource] of wanted) {
      if (this.#monitors.has(id)) continue
      const monitor: Monitor = { resource, stop: new AbortController(), uids: new Set(), synced: false }
      this.#monitors.set(id, monitor)
      this.#options.start((signal) => this.#follow(monitor, AbortSignal.any([signal, monitor.stop.signal])))
    }
    this.#checkReady()
  }

  #checkReady(): void {
    for (const { synced } of this.#monitors.values()) if (!synced) return
    this.#ready.resolve()
  }

  async #follow(monitor: Monitor, signal: AbortSignal): Promise<void> {
    const { client, graph, clock, onConsequences } = this.#options
    const resource = monitor.resource as Resource<PartialObjectMetadata>
    for await (const change of follow(client, resource, { metadataOnly: true, signal, clock })) {
      switch (change.type) {
        case 'replace': {
          const present = new Set(change.objects.map((o) => o.metadata.uid))
          for (const uid of monitor.uids) {
            if (present.has(uid)) continue
            monitor.uids.delete(uid)
            onConsequences(graph.remove(uid))
          }
          for (const { metadata } of change.objects) {
            monitor.uids.add(metadata.uid)
            onConsequences(graph.upsert(resource, metadata))
          }
          monitor.synced = true
          this.#checkReady()
          break
        }
        case 'changed':
          monitor.uids.add(change.object.metadata.uid)
          onConsequences(graph.upsert(resource, change.object.metadata))
          break
        case 'deleted':
          monitor.uids.delete(change.object.metadata.uid)
          onConsequences(graph.remove(change.object.metadata.uid))
          break
        case 'trouble':
          if (isAccessDenied(change.error)) throw change.error
          // Its definition may just have gone.
          this.resync()
          break
        case 'progress':
          break
        default:
          change satisfies never
      }
    }
  }
}
