import { release } from 'node:os'
import { nodes } from '#api/gen/resources.ts'
import { type Feature, probeFeatures } from '#kernel/features.ts'
import { exists } from '../cluster/down.ts'
import { externalUrl } from '../cluster/endpoint.ts'
import { layoutCluster } from '../cluster/layout.ts'
import { logFile, nodeCountOf, pidFile, processNames } from '../cluster/observe.ts'
import { findProcess } from '../cluster/processes.ts'
import { adminClient } from '../cluster/ready.ts'

interface NodeStatus {
  readonly name: string
  readonly ready: boolean
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
  /** What the Ready condition says where it is not True. */
  readonly message: string
}

export interface ClusterStatus {
  readonly name: string
  readonly server: string
  readonly processes: readonly { readonly name: string; readonly pid: number | null; readonly log: string }[]
  readonly nodes: readonly NodeStatus[]
  /** Why the nodes could not be asked for. */
  readonly error: string | null
  readonly kernel: { readonly release: string; readonly features: readonly Feature[] }
}

export async function readStatus(name: string): Promise<ClusterStatus> {
  const layout = layoutCluster(name, Math.max(1, nodeCountOf(name)))
  if (!exists(layout)) throw new Error(`there is no cluster ${JSON.stringify(name)}: run weft up --name ${name} first`)
  if (process.getuid?.() !== 0) throw new Error("weft status reads root's files: run it as root (sudo npx weft status)")
  const processes = processNames(layout).map((process) => ({
    name: process,
    pid: findProcess(process, pidFile(layout, process))?.pid ?? null,
    log: logFile(layout, process),
  }))
  let found: NodeStatus[] = []
  let error: string | null = null
  try {
    using client = await adminClient(layout)
    const { items } = await client.list(nodes, { signal: AbortSignal.timeout(5_000) })
    found = items.map((node) => {
      const ready = node.status.conditions?.find((c) => c.type === 'Ready')
      return {
        name: node.metadata.name,
        ready: ready?.status === 'True',
        addresses: node.status.addresses?.filter((a) => a.type === 'InternalIP').map((a) => a.address) ?? [],
        podCidrs: node.spec.podCIDRs ?? [],
        message: ready?.status === 'True' ? '' : (ready?.message ?? 'the agent has not reported yet'),
      }
    })
  } catch (failure) {
    error = failure instanceof Error ? failure.message : String(failure)
  }
  return {
    name,
    server: externalUrl(layout),
    processes,
    nodes: found,
    error,
    kernel: { release: release(), features: probeFeatures() },
  }
}

export function formatStatus(status: ClusterStatus): string {
  const lines = [`cluster ${status.name}, API server at ${status.server}`, '']
  for (const { name, pid, log } of status.processes) {
    lines.push(
      `  ${name.padEnd(20)} ${pid === null ? `not running: see ${log}, then weft up --name ${status.name}` : `pid ${pid}`}`,
    )
  }
  lines.push('')
  if (status.error !== null) lines.push(`  nodes: the API server did not answer (${status.error})`)
  for (const node of status.nodes) {
    lines.push(
      `  ${node.name.padEnd(20)} ${node.ready ? 'Ready' : `not Ready: ${node.message}`}   ${node.addresses.join(' ')}   pods ${node.podCidrs.join(' ')}`,
    )
  }
  const lacking = status.kernel.features.filter((f) => !f.available)
  const has = status.kernel.features.filter((f) => f.available)
  lines.push('', `  kernel ${status.kernel.release}: has ${has.map((f) => f.name).join(', ')}`)
  for (const f of lacking) lines.push(`  lacks ${f.name} (Linux ${f.since}): ${f.cost}`)
  return `${lines.join('\n')}\n`
}
