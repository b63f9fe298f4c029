import { Counter, Gauge, Histogram, type Metric, type Registry } from 'prom-client'
import type { Datapath } from '#datapath/datapath.ts'
import { type MapUse, mapOperations, mapUse } from '#kernel/bpf/map.ts'
import type { Feature } from '#kernel/features.ts'
import type { SweepOptions } from './sweep.ts'

export interface Sample {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: number
}
/** Cumulative counts for each upper bound, as Prometheus has them. */
export interface HistogramSample {
  readonly labels: Readonly<Record<string, string>>
  readonly buckets: readonly { readonly le: number; readonly count: number }[]
  readonly count: number
  readonly sumSeconds: number
}
type Read = () => Iterable<Sample> | Promise<Iterable<Sample>>

/**
 * Where every part of the agent puts its metrics: families that are read when somebody scrapes, so that counting costs
 * nothing in between. A part has its families in a `metrics.ts` of its own. Labels take values of a closed set: never a
 * pod's name or an address, of which there may be any number.
 */
export class AgentMetrics {
  readonly #registry: Registry

  constructor(registry: Registry) {
    this.#registry = registry
  }

  /** The sums are kept by whoever is read; `read` gives them as they are now. */
  counter(name: string, help: string, labelNames: readonly string[], read: Read): void {
    new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
      async collect() {
        const samples = [...(await read())]
        this.reset()
        for (const { labels = {}, value } of samples) this.inc(labels, value)
      },
    })
  }

  gauge(name: string, help: string, labelNames: readonly string[], read: Read): void {
    new Gauge({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
      async collect() {
        const samples = [...(await read())]
        this.reset()
        for (const { labels = {}, value } of samples) this.set(labels, value)
      },
    })
  }

  /** One number without labels; undefined: not known now. */
  value(name: string, help: string, read: () => number | undefined): void {
    this.gauge(name, help, [], () => {
      const value = read()
      return value === undefined ? [] : [{ value }]
    })
  }

  /** A histogram that somebody else keeps. */
  histogramOf(name: string, help: string, read: () => Promise<Iterable<HistogramSample>>): void {
    // What prom-client asks of a metric is its name and what it is now; its own Histogram can only be added to.
    const metric = {
      name,
      get: async () => ({
        name,
        help,
        type: 'histogram',
        aggregator: 'sum',
        values: [...(await read())].flatMap(({ labels, buckets, count, sumSeconds }) => [
          ...buckets.map(({ le, count: value }) => ({
            metricName: `${name}_bucket`,
            labels: { ...labels, le },
            value,
          })),
          { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count },
          { metricName: `${name}_sum`, labels, value: sumSeconds },
          { metricName: `${name}_count`, labels, value: count },
        ]),
      }),
      reset() {},
    }
    this.#registry.registerMetric(metric as unknown as Metric)
  }

  histogram<L extends string>(name: string, help: string, labelNames: readonly L[], buckets: number[]): Histogram<L> {
    return new Histogram({ name, help, labelNames: [...labelNames], buckets, registers: [this.#registry] })
  }
}

export interface AgentParts {
  readonly datapath: () => Datapath | undefined
  readonly endpoints: () => number
  readonly services: () =>
    | { readonly services: number; readonly frontends: number; readonly backends: number }
    | undefined
  readonly nodes: () => number | undefined
  readonly policies: () => PolicyNumbers | undefined
  readonly gateways: () => GatewayNumbers | undefined
  /** Loops by name, with what is wrong with each now; empty: nothing. */
  readonly troubles: () => Readonly<Record<string, string>>
  readonly features: () => readonly Feature[]
  readonly ready: () => boolean
}

interface PolicyNumbers {
  readonly policies: number
  readonly sets: number
  readonly entries: number
  readonly identities: number
  /** Sandboxes that are shut because their rules could not be written. */
  readonly closed: number
  /** Policies that say what cannot be done. */
  readonly refused: number
}
interface GatewayNumbers {
  readonly gateways: number
  readonly listeners: number
  readonly routes: number
  readonly backends: number
  readonly reloads: number
}

/** A map that is nearly empty tells nothing: as Cilium, from a tenth on. */
const pressureMin = 0.1

/** What the agent counts, under the names that dashboards for eBPF dataplanes know. Read from the kernel when asked for. */
export function registerMetrics(metrics: AgentMetrics, parts: AgentParts): void {
  registerTraffic(metrics, parts.datapath)
  registerMaps(metrics)
  registerPolicies(metrics, parts.policies)
  registerGateways(metrics, parts.gateways)
  metrics.value('cilium_endpoint', 'Sandboxes on this node', parts.endpoints)
  metrics.gauge('cilium_endpoint_state', 'Sandboxes on this node, by state', ['endpoint_state'], () => [
    { labels: { endpoint_state: 'ready' }, value: parts.endpoints() },
  ])
  metrics.value(
    'weft_service_frontends',
    'Addresses and ports of Services in the kernel',
    () => parts.services()?.frontends,
  )
  metrics.value(
    'weft_service_backends',
    'Backends of those, one for each Service that has it',
    () => parts.services()?.backends,
  )
  metrics.value('weft_services', 'Services that this node has rows for', () => parts.services()?.services)
  metrics.value('weft_nodes', 'Nodes that this node has routes to, itself included', parts.nodes)
  metrics.value('cilium_controllers_failing', 'Loops of the agent whose last write failed', () => failing(parts).length)
  metrics.gauge('weft_loop_failing', 'Whether the last write of a loop failed', ['loop'], () =>
    Object.entries(parts.troubles()).map(([loop, trouble]) => ({ labels: { loop }, value: trouble === '' ? 0 : 1 })),
  )
  metrics.gauge('weft_feature_available', 'Whether this kernel has what Weft uses where it is there', ['feature'], () =>
    parts.features().map(({ name, available }) => ({ labels: { feature: name }, value: available ? 1 : 0 })),
  )
  metrics.value('weft_agent_ready', 'Whether the runtime has been told that the network is ready', () =>
    parts.ready() ? 1 : 0,
  )
}

const failing = ({ troubles }: AgentParts): string[] => Object.values(troubles()).filter((trouble) => trouble !== '')

function registerTraffic(metrics: AgentMetrics, datapath: AgentParts['datapath']): void {
  const perReason = (name: string, help: string, wanted: 'forwarded' | 'dropped', unit: 'packets' | 'bytes'): void => {
    const labelNames = wanted === 'dropped' ? ['direction', 'reason'] : ['direction']
    metrics.counter(name, help, labelNames, () =>
      (datapath()?.counters() ?? []).flatMap((counter): Sample[] => {
        if ((counter.reason === 'Forwarded') !== (wanted === 'forwarded') || counter[unit] === 0) return []
        const { direction, reason } = counter
        return [{ labels: wanted === 'dropped' ? { direction, reason } : { direction }, value: counter[unit] }]
      }),
    )
  }
  perReason('cilium_drop_count_total', 'Packets dropped, by reason and direction as pods see it', 'dropped', 'packets')
  perReason('cilium_drop_bytes_total', 'Bytes dropped, by reason and direction as pods see it', 'dropped', 'bytes')
  perReason('cilium_forward_count_total', 'Packets forwarded, by direction as pods see it', 'forwarded', 'packets')
  perReason('cilium_forward_bytes_total', 'Bytes forwarded, by direction as pods see it', 'forwarded', 'bytes')
}

function registerPolicies(metrics: AgentMetrics, read: AgentParts['policies']): void {
  const value = (name: string, help: string, of: (numbers: PolicyNumbers) => number): void =>
    metrics.value(name, help, () => {
      const numbers = read()
      return numbers && of(numbers)
    })
  value('cilium_policy', 'Policies that this node knows', ({ policies }) => policies)
  value('cilium_identity', 'Sets of labels that policies tell apart, as this node knows them', (n) => n.identities)
  value('weft_policy_sets', 'Distinct sets of rules in the kernel', ({ sets }) => sets)
  value('weft_policy_entries', 'Rules in the kernel', ({ entries }) => entries)
  value('weft_policy_closed_endpoints', 'Sandboxes that are shut: their rules could not be written', (n) => n.closed)
  value('weft_policy_refused', 'Policies that say what cannot be done', ({ refused }) => refused)
}

function registerGateways(metrics: AgentMetrics, read: AgentParts['gateways']): void {
  const value = (name: string, help: string, of: (numbers: GatewayNumbers) => number): void =>
    metrics.value(name, help, () => {
      const numbers = read()
      return numbers && of(numbers)
    })
  value('weft_gateways', 'Gateways that this node serves', ({ gateways }) => gateways)
  value('weft_gateway_listeners', 'Listeners of those', ({ listeners }) => listeners)
  value('weft_gateway_routes', 'Routes of those', ({ routes }) => routes)
  value('weft_gateway_backends', 'Backends of those', ({ backends }) => backends)
  metrics.counter('weft_gateway_reloads_total', 'How often the engine had to begin anew', [], () => {
    const numbers = read()
    return numbers === undefined ? [] : [{ value: numbers.reloads }]
  })
}

/** Returns whom to tell of each sweep. */
export function registerSweepMetrics(metrics: AgentMetrics): NonNullable<SweepOptions['observe']> {
  const runs = { completed: 0, failed: 0 }
  let last = { kept: 0, removed: 0 }
  metrics.counter('cilium_datapath_conntrack_gc_runs_total', 'Sweeps of connections that are over', ['status'], () =>
    Object.entries(runs).map(([status, value]) => ({ labels: { status }, value })),
  )
  metrics.gauge('cilium_datapath_conntrack_gc_entries', 'Of the last sweep', ['status'], () => [
    { labels: { status: 'alive' }, value: last.kept },
    { labels: { status: 'deleted' }, value: last.removed },
  ])
  const buckets = Array.from({ length: 12 }, (_, i) => 0.0005 * 2 ** i)
  const duration = metrics.histogram('cilium_datapath_conntrack_gc_duration_seconds', 'Time of a sweep', [], buckets)
  return (swept, seconds) => {
    runs[swept === undefined ? 'failed' : 'completed']++
    last = swept ?? last
    duration.observe(seconds)
  }
}

function registerMaps(metrics: AgentMetrics): void {
  // Three families, one reading: they are collected within one turn of a scrape.
  let reading: Promise<MapUse[]> | undefined
  const use = (): Promise<MapUse[]> => {
    reading ??= mapUse().finally(() => {
      reading = undefined
    })
    return reading
  }
  metrics.gauge('cilium_bpf_map_pressure', 'How full a map is, from a tenth on', ['map_name'], async () =>
    (await use()).flatMap(({ name, entries, entriesMax }) =>
      entries / entriesMax < pressureMin ? [] : [{ labels: { map_name: name }, value: entries / entriesMax }],
    ),
  )
  metrics.gauge('weft_bpf_map_entries', 'Entries in a map', ['map_name'], async () =>
    (await use()).map(({ name, entries }) => ({ labels: { map_name: name }, value: entries })),
  )
  metrics.gauge('cilium_bpf_map_capacity', 'Entries that a map has room for', ['map_name'], async () =>
    (await use()).map(({ name, entriesMax }) => ({ labels: { map_name: name }, value: entriesMax })),
  )
  metrics.counter(
    'cilium_bpf_map_ops_total',
    'Operations of the agent on a map',
    ['map_name', 'operation', 'outcome'],
    () =>
      mapOperations().map(({ map, operation, outcome, count }) => ({
        labels: { map_name: map, operation, outcome },
        value: count,
      })),
  )
}
