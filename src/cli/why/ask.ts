import type { MapDump } from '#agent/local/maps.ts'
import type { Step } from '#agent/why/why.ts'
import { type AgentSocket, agentSockets, ask } from '../agents/ask.ts'
import { layoutCluster } from '../cluster/layout.ts'
import { adminClient } from '../cluster/ready.ts'
import { type End, Ends } from './ends.ts'

export interface Question {
  readonly cluster: string
  readonly source: string
  readonly destination: string
  /** `80`, `53/udp`. */
  readonly port: string
  readonly ipv6: boolean
  /** The node by which it comes in from outside; absent: the one that answers for the address. */
  readonly by?: string
}

export interface Answer {
  readonly source: End
  readonly destination: End
  /** Where a Service is asked for at a node: the node port. */
  readonly port: number
  readonly protocol: string
  readonly steps: readonly Step[]
  readonly isAllowed: boolean
}

/** What is asked of a node's agent about, at one of its hooks. */
interface Packet {
  readonly source: string
  readonly destination: string
  readonly port: number
}

/** Asks the nodes on the way, in the order in which a packet meets them. Throws where an end is not there. */
export async function askWhy(question: Question): Promise<Answer> {
  const { port: wantedPort, protocol } = parsePort(question.port)
  const agents = agentSockets(question.cluster)
  const layout = layoutCluster(question.cluster, agents.length)
  using client = await adminClient(layout)
  const ends = new Ends(client, layout, { ipv6: question.ipv6, port: wantedPort, protocol })
  const agentOf = (node: string | undefined): AgentSocket => {
    const agent = agents.find((a) => a.node === node)
    if (agent === undefined) throw new Error(`the agent of node ${JSON.stringify(node)} does not run on this machine`)
    return agent
  }
  const source = await ends.source(question.source)
  const by = question.by ?? agents[0]?.node ?? ''
  const { end: destination, port } = await ends.destination(question.destination, source, by)
  const askOf = async (node: string | undefined, hook: string, packet: Packet): Promise<readonly Step[]> => {
    const query = { hook, ...packet, port: String(packet.port), protocol }
    return (await ask<{ readonly steps: readonly Step[] }>(agentOf(node), '/v1/why', query)).steps
  }
  /** By which node a packet from outside comes in: where its destination is, or is answered for. */
  const entryOf = async (address: string): Promise<string> =>
    question.by ?? (await ends.nodeOf(address)) ?? (await announcer(agents, address)) ?? by

  const first: Packet = { source: source.address, destination: destination.address, port }
  // A pod's packet begins at its device; a node's own meets the pod's device from the other side; others come by the uplink.
  const hook = source.kind === 'pod' ? 'from_container' : source.node !== undefined ? 'to_container' : 'from_netdev'
  const node = hook === 'from_netdev' ? await entryOf(destination.address) : source.node
  const steps = [...(await askOf(node, hook, first))]
  const last = steps.at(-1)
  const next: Packet = { ...first, ...endsOf(last) }
  const there = last?.isGateway === true ? undefined : await ends.nodeOf(next.destination)
  const goesOn = last === undefined || last.verdict === 'forwarded' || last.verdict === 'translated'
  if (goesOn && there !== undefined && there !== node) steps.push(...(await askOf(there, 'from_netdev', next)))
  if (steps.length === 0)
    throw new Error(`${source.name} to ${destination.name}: neither is a pod, so no program of ours has a say`)
  const isAllowed = steps.every(({ verdict }) => verdict !== 'dropped' && verdict !== 'refused')
  return { source, destination, port, protocol, steps, isAllowed }
}

/** Between whom the packet goes on after that step. */
function endsOf(step: Step | undefined): Partial<Packet> {
  if (step === undefined) return {}
  if (step.goesOn === undefined) return { destination: step.destination.address, port: step.destination.port }
  const { source, destination, port } = step.goesOn
  return { source, destination, port }
}

/** The node that answers for an address of a load balancer on the nodes' network. */
async function announcer(agents: readonly AgentSocket[], address: string): Promise<string | undefined> {
  for (const agent of agents) {
    const { rows } = await ask<MapDump>(agent, '/v1/bpf/address')
    if (rows.some(([known, , announced]) => known === address && announced === 'here')) return agent.node
  }
  return undefined
}

function parsePort(text: string): { readonly port: number; readonly protocol: string } {
  const [, number, protocol = 'tcp'] = /^(\d+)(?:\/(tcp|udp|sctp|icmp))?$/i.exec(text) ?? []
  const port = Number(number)
  if (number === undefined || port > 65_535)
    throw new RangeError(`port "${text}": use PORT or PORT/PROTOCOL, such as 80 or 53/udp`)
  return { port, protocol: protocol.toUpperCase() }
}
