import { Counter, Gauge, type Registry } from 'prom-client'
import type { Datapath } from '#datapath/datapath.ts'

/** What the agent counts, under the names that dashboards for eBPF dataplanes know. Read from the kernel when asked for. */
export function registerMetrics(
  registry: Registry,
  parts: {
    readonly datapath: () => Datapath | undefined
    readonly endpoints: () => number
    readonly services: () => { readonly frontends: number; readonly backends: number }
  },
): void {
  const perReason = (name: string, help: string, wanted: 'forwarded' | 'dropped', unit: 'packets' | 'bytes'): void => {
    const labelNames = wanted === 'dropped' ? ['direction', 'reason'] : ['direction']
    new Counter({
      name,
      help,
      labelNames,
      registers: [registry],
      collect() {
        // The kernel holds the sum: ours starts from nothing each time.
        this.reset()
        for (const counter of parts.datapath()?.counters() ?? []) {
          if ((counter.reason === 'Forwarded') !== (wanted === 'forwarded') || counter[unit] === 0) continue
          const { direction, reason } = counter
          this.inc(wanted === 'dropped' ? { direction, reason } : { direction }, counter[unit])
        }
      },
    })
  }
  perReason('cilium_drop_count_total', 'Packets dropped, by reason and direction as pods see it', 'dropped', 'packets')
  perReason('cilium_drop_bytes_total', 'Bytes dropped, by reason and direction as pods see it', 'dropped', 'bytes')
  perReason('cilium_forward_count_total', 'Packets forwarded, by direction as pods see it', 'forwarded', 'packets')
  perReason('cilium_forward_bytes_total', 'Bytes forwarded, by direction as pods see it', 'forwarded', 'bytes')
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(value())
      },
    })
  }
  gauge('cilium_endpoint', 'Sandboxes on this node', parts.endpoints)
  gauge('weft_service_frontends', 'Addresses and ports of Services in the kernel', () => parts.services().frontends)
  gauge('weft_service_backends', 'Backends of those, one for each Service that has it', () => parts.services().backends)
}
