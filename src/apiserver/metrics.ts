import { Counter, Gauge, Histogram, Registry as MetricRegistry } from 'prom-client'
import type { Registry } from './registry/registry.ts'
import type { Route } from './route.ts'
import type { WatchObserver } from './watch/watch.ts'

interface Labels {
  readonly verb: string
  readonly group: string
  readonly version: string
  readonly resource: string
  readonly subresource: string
  readonly scope: string
  readonly code: string
}

const bucketsSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
/** Label sets kept; more than every verb of every resource here. A client must not be able to make more. */
const seriesMax = 5000

class Series {
  count = 0
  readonly labels: Labels
  constructor(labels: Labels) {
    this.labels = labels
  }
}

/** Upstream's names for what happens here. Counting is a map look-up; the rest is done when somebody scrapes. */
export class Metrics {
  readonly #registry = new MetricRegistry()
  readonly #series = new Map<string, Series>()
  readonly #duration: Histogram
  readonly #watchEvents: Counter
  readonly #pendingEvents = new Map<string, number>()
  readonly inflight = { readOnly: 0, mutating: 0 }
  #watches = 0
  readonly #pendingDurations = new Map<string, { readonly labels: Omit<Labels, 'code'>; readonly seconds: number[] }>()

  constructor(registry: Registry) {
    const registers = [this.#registry]
    const labelNames = ['verb', 'group', 'version', 'resource', 'subresource', 'scope', 'code'] as const
    const requests = this.#series
    new Counter({
      name: 'apiserver_request_total',
      help: 'Requests answered, by verb, resource and HTTP code.',
      labelNames,
      registers,
      collect() {
        this.reset()
        for (const { labels, count } of requests.values()) this.inc({ ...labels }, count)
      },
    })
    this.#duration = new Histogram({
      name: 'apiserver_request_duration_seconds',
      help: 'Time from the end of the request to the start of its answer, watches left out.',
      labelNames: ['verb', 'group', 'version', 'resource', 'subresource', 'scope'],
      buckets: bucketsSeconds,
      registers,
    })
    this.#watchEvents = new Counter({
      name: 'apiserver_watch_events_total',
      help: 'Events sent to watches.',
      labelNames: ['group', 'version', 'resource'],
      registers,
    })
    const { inflight } = this
    new Gauge({
      name: 'apiserver_current_inflight_requests',
      help: 'Requests under way, watches left out.',
      labelNames: ['request_kind'],
      registers,
      collect() {
        this.set({ request_kind: 'readOnly' }, inflight.readOnly)
        this.set({ request_kind: 'mutating' }, inflight.mutating)
      },
    })
    const watches = (): number => this.#watches
    new Gauge({
      name: 'apiserver_longrunning_requests',
      help: 'Watches and streams open now.',
      registers,
      collect() {
        this.set(watches())
      },
    })
    new Gauge({
      name: 'apiserver_storage_objects',
      help: 'Objects stored.',
      labelNames: ['resource'],
      registers,
      collect() {
        this.reset()
        for (const { definition, collection } of registry.all()) {
          const { group, resource } = definition.resource
          this.set({ resource: group === '' ? resource : `${resource}.${group}` }, collection.size)
        }
      },
    })
    new Gauge({
      name: 'weft_store_revision',
      help: 'The newest committed revision.',
      registers,
      collect() {
        this.set(registry.revision)
      },
    })
    new Gauge({
      name: 'process_resident_memory_bytes',
      help: 'Resident memory.',
      registers,
      collect() {
        this.set(process.memoryUsage.rss())
      },
    })
    new Gauge({
      name: 'process_cpu_seconds_total',
      help: 'User and system CPU time.',
      registers,
      collect() {
        const { user, system } = process.cpuUsage()
        this.set((user + system) / 1e6)
      },
    })
  }

  /** `known`: the resource is served; others are counted together, so that no client can make labels. */
  request(route: Route, known: boolean, code: number, seconds: number | undefined): void {
    const key = known
      ? `${route.verb} ${route.group} ${route.version} ${route.resource} ${route.subresource} ${route.name === '' ? 1 : 0} ${code}`
      : `${route.verb} ${code}`
    let series = this.#series.get(key)
    if (series === undefined) {
      if (this.#series.size >= seriesMax) return
      series = new Series(labelsOf(route, known, code))
      this.#series.set(key, series)
    }
    series.count++
    if (seconds === undefined) return
    let pending = this.#pendingDurations.get(key)
    if (pending === undefined) {
      const { code: _, ...labels } = series.labels
      pending = { labels, seconds: [] }
      this.#pendingDurations.set(key, pending)
    }
    pending.seconds.push(seconds)
    if (pending.seconds.length >= 1024) this.#observe()
  }

  /** For one watch or stream of a resource. */
  observeWatch(group: string, version: string, resource: string): WatchObserver {
    const key = `${group} ${version} ${resource}`
    return {
      opened: () => {
        this.#watches++
      },
      sent: (events) => {
        this.#pendingEvents.set(key, (this.#pendingEvents.get(key) ?? 0) + events)
      },
      closed: () => {
        this.#watches--
      },
    }
  }

  async text(): Promise<string> {
    this.#observe()
    for (const [key, count] of this.#pendingEvents) {
      const [group = '', version = '', resource = ''] = key.split(' ')
      this.#watchEvents.inc({ group, version, resource }, count)
    }
    this.#pendingEvents.clear()
    return this.#registry.metrics()
  }

  #observe(): void {
    for (const { labels, seconds } of this.#pendingDurations.values()) {
      for (const each of seconds) this.#duration.observe({ ...labels }, each)
    }
    this.#pendingDurations.clear()
  }
}

function labelsOf(route: Route, known: boolean, code: number): Labels {
  const { verb, group, version, resource, subresource, namespace, name } = route
  const scope = !route.isResource ? '' : name !== '' ? 'resource' : namespace !== '' ? 'namespace' : 'cluster'
  const none = { group: '', version: '', resource: '', subresource: '', scope: '' }
  const shown = known ? { group, version, resource, subresource, scope } : none
  return { verb: verb.toUpperCase(), ...shown, code: String(code) }
}
