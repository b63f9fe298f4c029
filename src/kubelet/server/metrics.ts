import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Pod } from '#api/gen/core-v1.ts'
import type { RequestObserver } from '#client/observe.ts'
import type { Machine } from '../node/machine.ts'
import type { RuntimeObserver } from '../runtime/observed.ts'
import type { ContainerStats } from '../runtime/runtime.ts'

/** Upstream's, from 5 ms, doubling and a half. */
const operationBuckets = Array.from({ length: 14 }, (_, i) => 0.005 * 2.5 ** i)
const requestBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60]

/** What the kubelet counts, under upstream's names. */
export class KubeletMetrics {
  readonly registry = new Registry()
  readonly #podsByPhase: Gauge
  readonly #running: Gauge
  readonly #containers: Gauge
  readonly observeRuntime: RuntimeObserver
  readonly observeRequest: RequestObserver

  constructor(nodeName: string) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry })
    new Gauge({
      name: 'kubelet_node_name',
      help: 'The name of the node; always 1',
      labelNames: ['node'],
      registers,
    }).set({ node: nodeName }, 1)
    this.#podsByPhase = new Gauge({
      name: 'kubelet_pods',
      help: 'Pods on this node by phase',
      labelNames: ['phase'],
      registers,
    })
    this.#running = new Gauge({ name: 'kubelet_running_pods', help: 'Pods with a running container', registers })
    this.#containers = new Gauge({
      name: 'kubelet_running_containers',
      help: 'Containers by state',
      labelNames: ['container_state'],
      registers,
    })
    const labelNames = ['operation_type'] as const
    const count = new Counter({
      name: 'kubelet_runtime_operations_total',
      help: 'Calls to the container runtime',
      labelNames,
      registers,
    })
    const failed = new Counter({
      name: 'kubelet_runtime_operations_errors_total',
      help: 'Calls to the container runtime that failed',
      labelNames,
      registers,
    })
    const duration = new Histogram({
      name: 'kubelet_runtime_operations_duration_seconds',
      help: 'How long calls to the container runtime take',
      labelNames,
      buckets: operationBuckets,
      registers,
    })
    this.observeRuntime = (operation_type, seconds, outcome) => {
      count.inc({ operation_type })
      duration.observe({ operation_type }, seconds)
      if (outcome === 'fail') failed.inc({ operation_type })
    }
    const requests = new Counter({
      name: 'rest_client_requests_total',
      help: 'Requests to the API server, by method and code; <error>: no answer',
      labelNames: ['method', 'code'],
      registers,
    })
    const requestDuration = new Histogram({
      name: 'rest_client_request_duration_seconds',
      help: 'Time until the head of an answer of the API server',
      labelNames: ['verb'],
      buckets: requestBuckets,
      registers,
    })
    this.observeRequest = (method, status, seconds) => {
      requests.inc({ method, code: status === undefined ? '<error>' : String(status) })
      requestDuration.observe({ verb: method }, seconds)
    }
  }

  /** /metrics: the process and its pods, in Prometheus' text form. */
  async render(pods: readonly Pod[]): Promise<string> {
    for (const gauge of [this.#podsByPhase, this.#containers]) gauge.reset()
    let running = 0
    for (const { status } of pods) {
      this.#podsByPhase.inc({ phase: status?.phase ?? 'Pending' })
      const { containerStatuses = [], initContainerStatuses = [], ephemeralContainerStatuses = [] } = status ?? {}
      const states = [...containerStatuses, ...initContainerStatuses, ...ephemeralContainerStatuses].map((c) => c.state)
      if (states.some((state) => state.running !== undefined)) running++
      for (const state of states) this.#containers.inc({ container_state: stateOf(state) })
    }
    this.#running.set(running)
    return this.registry.metrics()
  }
}

const stateOf = (state: { readonly running?: unknown; readonly terminated?: unknown }): string =>
  state.running !== undefined ? 'running' : state.terminated !== undefined ? 'exited' : 'created'

/** /metrics/resource: what metrics-server reads. Pure. */
export function renderResourceMetrics(stats: readonly ContainerStats[], now: number): string {
  const labels = (s: ContainerStats) => `{container="${s.name}",namespace="${s.podNamespace}",pod="${s.podName}"}`
  return [
    '# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds',
    '# TYPE container_cpu_usage_seconds_total counter',
    ...stats.map((s) => `container_cpu_usage_seconds_total${labels(s)} ${secondsOf(s.cpuNanoseconds)} ${s.at || now}`),
    '# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes',
    '# TYPE container_memory_working_set_bytes gauge',
    ...stats.map((s) => `container_memory_working_set_bytes${labels(s)} ${s.workingSetBytes} ${s.at || now}`),
    '# HELP scrape_error [ALPHA] 1 if there was an error while getting container metrics, 0 otherwise',
    '# TYPE scrape_error gauge',
    'scrape_error 0',
    '',
  ].join('\n')
}

/** /metrics/cadvisor: of what dashboards read there, that which the runtime tells. Pure. */
export function renderContainerMetrics(
  stats: readonly ContainerStats[],
  machine: Pick<Machine, 'cpus' | 'memoryBytes'>,
): string {
  const family = (
    name: string,
    type: string,
    help: string,
    value: (s: ContainerStats) => string | number,
  ): string[] => [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} ${type}`,
    ...stats.map(
      (s) => `${name}{container="${s.name}",id="${s.id}",namespace="${s.podNamespace}",pod="${s.podName}"} ${value(s)}`,
    ),
  ]
  return [
    ...family('container_cpu_usage_seconds_total', 'counter', 'CPU time used', (s) => secondsOf(s.cpuNanoseconds)),
    ...family('container_memory_working_set_bytes', 'gauge', 'Working set', (s) => s.workingSetBytes),
    ...family('container_fs_usage_bytes', 'gauge', 'Written over the image', (s) => s.writableBytes),
    '# HELP machine_cpu_cores CPUs of this node',
    '# TYPE machine_cpu_cores gauge',
    `machine_cpu_cores ${machine.cpus}`,
    '# HELP machine_memory_bytes Memory of this node',
    '# TYPE machine_memory_bytes gauge',
    `machine_memory_bytes ${machine.memoryBytes}`,
    '',
  ].join('\n')
}

const secondsOf = (nanoseconds: bigint): string =>
  `${nanoseconds / 1_000_000_000n}.${String(nanoseconds % 1_000_000_000n).padStart(9, '0')}`
