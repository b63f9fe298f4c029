import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Pod } from '#api/gen/core-v1.ts'
import type { ContainerStats } from '../runtime/runtime.ts'

const registry = new Registry()
let podsByPhase: Gauge | undefined

/** /metrics: the process and its pods, in Prometheus' text form. */
export async function renderMetrics(pods: readonly Pod[]): Promise<string> {
  if (podsByPhase === undefined) {
    collectDefaultMetrics({ register: registry })
    podsByPhase = new Gauge({
      name: 'kubelet_pods',
      help: 'Pods on this node by phase',
      labelNames: ['phase'],
      registers: [registry],
    })
  }
  podsByPhase.reset()
  for (const pod of pods) podsByPhase.inc({ phase: pod.status?.phase ?? 'Pending' })
  return registry.metrics()
}

/** /metrics/resource: what metrics-server reads. Pure. */
export function renderResourceMetrics(stats: readonly ContainerStats[], now: number): string {
  const labels = (s: ContainerStats) => `{container="${s.name}",namespace="${s.podNamespace}",pod="${s.podName}"}`
  const seconds = (s: ContainerStats) =>
    `${s.cpuNanoseconds / 1_000_000_000n}.${String(s.cpuNanoseconds % 1_000_000_000n).padStart(9, '0')}`
  return [
    '# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds',
    '# TYPE container_cpu_usage_seconds_total counter',
    ...stats.map((s) => `container_cpu_usage_seconds_total${labels(s)} ${seconds(s)} ${s.at || now}`),
    '# HELP container_memory_working_set_bytes [STABLE] Current working set of the container in bytes',
    '# TYPE container_memory_working_set_bytes gauge',
    ...stats.map((s) => `container_memory_working_set_bytes${labels(s)} ${s.workingSetBytes} ${s.at || now}`),
    '# HELP scrape_error [ALPHA] 1 if there was an error while getting container metrics, 0 otherwise',
    '# TYPE scrape_error gauge',
    'scrape_error 0',
    '',
  ].join('\n')
}
