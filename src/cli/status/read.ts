import { release } from 'node:os'
import { join } from 'node:path'
import type { AgentStatus } from '#agent/status.ts'
import { nodes } from '#api/gen/resources.ts'
import { type Feature, probeFeatures } from '#kernel/features.ts'
import { ask } from '../agents/ask.ts'
import { loopbackPortsFile } from '../cluster/commands.ts'
import { exists } from '../cluster/down.ts'
import { externalUrl } from '../cluster/endpoint.ts'
import { layoutCluster, type NodeLayout } from '../cluster/layout.ts'
import { logFile, nodeCountOf, pidFile, processNames } from '../cluster/observe.ts'
import { findProcess } from '../cluster/processes.ts'
import { adminClient } from '../cluster/ready.ts'
import { type LoopbackPort, readLoopbackPorts } from '../server/loopback.ts'

interface NodeStatus {
  readonly name: string
  readonly ready: boolean
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
  /** What the Ready condition says where it is not True. */
  readonly message: string
}

/** What a node's agent says of itself, or why it does not. */
export interface AgentAnswer {
  readonly node: string
  readonly agent: AgentStatus | null
  readonly error: string
}

export interface ClusterStatus {
  readonly name: string
  readonly server: string
  readonly processes: readonly { readonly name: string; readonly pid: number | null; readonly log: string }[]
  readonly nodes: readonly NodeStatus[]
  /** Why the nodes could not be asked for. */
  readonly error: string | null
  readonly agents: readonly AgentAnswer[]
  /** Gateways on the machine's loopback. */
  readonly gateways: readonly LoopbackPort[]
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
  const agents = await Promise.all(layout.nodes.map((node) => askAgent(node)))
  return {
    name,
    server: externalUrl(layout),
    processes,
    nodes: found,
    error,
    agents,
    gateways: readLoopbackPorts(loopbackPortsFile(layout)),
    kernel: { release: release(), features: probeFeatures() },
  }
}

const agentMs = 3_000

/** The agent of a node on this machine. */
export async function askAgent({ name, runDir }: Pick<NodeLayout, 'name' | 'runDir'>): Promise<AgentAnswer> {
  const path = join(runDir, 'agent.sock')
  try {
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error(`no answer within ${agentMs} ms`)), agentMs).unref()
    })
    const agent = await Promise.race([ask<AgentStatus>({ node: name, path }, '/v1/status'), late])
    return { node: name, agent, error: '' }
  } catch (failure) {
    return { node: name, agent: null, error: failure instanceof Error ? failure.message : String(failure) }
  }
}
