import type { MapDump } from '#agent/local/maps.ts'
import { isLoopback } from '#agent/services/host-ports.ts'
import type { Step } from '#agent/why/why.ts'
import type { Service } from '#api/gen/core-v1.ts'
import { type AgentSocket, agentSockets, ask } from '../agents/ask.ts'
import { layoutCluster } from '../cluster/layout.ts'
import { adminClient } from '../cluster/ready.ts'
import { type End, Ends, type Place } from './ends.ts'
import { familyOf, parsePort } from './words.ts'

export interface Question {
  readonly cluster: string
  readonly source: string
  readonly destination: string
  /** `80`, `53/udp`, `http`, `icmp`. */
  readonly port: string
  readonly ipv6: boolean
  /** The node by which it comes in from outside; absent: the one that answers for the address. */
  readonly by?: string
}

export interface Answer {
  readonly source: End
  readonly destination: End
  /** Where a Service is asked for at a node: the node port. 0 for ICMP. */
  readonly port: number
  readonly protocol: string
  /** Hook by hook; where there are several ways, the first that is refused, else the first. */
  readonly steps: readonly Step[]
  /** Each way that the connection may take: one for each backend of a Service. */
  readonly ways: readonly Way[]
  /** On every way. */
  readonly isAllowed: boolean
  /** What no program can say: why an address is nobody's, what a Service lacks. */
  readonly notes: readonly string[]
}

export interface Way {
  /** Who is reached by it, or would be. */
  readonly to: string
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
  const wanted = parsePort(question.port)
  const ipv6 = familyOf(question) === 6
  const agents = agentSockets(question.cluster)
  const layout = layoutCluster(question.cluster, agents.length)
  using client = await adminClient(layout)
  const ends = new Ends(client, layout, { ...wanted, ipv6 })
  const agentOf = (node: string | undefined): AgentSocket => {
    const agent = agents.find((a) => a.node === node)
    if (agent === undefined) throw new Error(`the agent of node ${JSON.stringify(node)} does not run on this machine`)
    return agent
  }
  const source = await ends.source(question.source)
  const by = question.by ?? agents[0]?.node ?? ''
  const place = await ends.destination(question.destination, source, by)
  const { end: destination, port, protocol } = place
  const askOf = async (node: string | undefined, hook: string, packet: Packet): Promise<readonly Step[][]> => {
    const query = { hook, ...packet, port: String(packet.port), protocol }
    return (await ask<{ readonly paths: readonly Step[][] }>(agentOf(node), '/v1/why', query)).paths
  }
  /** By which node a packet from outside comes in: where its destination is, or is answered for. */
  const entryOf = async (address: string): Promise<string> =>
    question.by ?? (await ends.nodeOf(address)) ?? (await announcer(agents, address)) ?? by
  /** The way on to another node, where it is one. */
  const onward = async (steps: readonly Step[], packet: Packet, node: string | undefined): Promise<Step[]> => {
    const last = steps.at(-1)
    const next: Packet = { ...packet, ...endsOf(last) }
    const there = last?.isGateway === true ? undefined : await ends.nodeOf(next.destination)
    const goesOn = last === undefined || last.verdict === 'forwarded' || last.verdict === 'translated'
    if (!goesOn || there === undefined || there === node) return [...steps]
    const [rest = []] = await askOf(there, 'from_netdev', next)
    return [...steps, ...rest]
  }

  const targets = place.instead ?? [destination]
  const found: { readonly to: string; readonly steps: readonly Step[] }[] = []
  for (const target of targets) {
    const first: Packet = { source: source.address, destination: target.address, port }
    // What is a pod's loopback never gets to a device.
    if (source.kind === 'pod' && isLoopback(target.address)) {
      found.push({ to: target.address, steps: [] })
      continue
    }
    // A pod's packet begins at its device; a node's own meets the pod's device from the other side; others come by the uplink.
    const hook = source.kind === 'pod' ? 'from_container' : source.node !== undefined ? 'to_container' : 'from_netdev'
    const node = hook === 'from_netdev' ? await entryOf(target.address) : source.node
    for (const path of await askOf(node, hook, first)) {
      const steps = await onward(path, first, node)
      const to = steps.findLast((s) => s.goesOn !== undefined)?.goesOn ?? first
      found.push({ to: `${literal(to.destination)}:${to.port}`, steps })
    }
  }
  const isLetThrough = (steps: readonly Step[]): boolean =>
    steps.every(({ verdict }) => verdict !== 'dropped' && verdict !== 'refused')
  const ways = found.map(({ to, steps }) => ({ to, isAllowed: isLetThrough(steps) }))
  const shown = found.find(({ steps }) => !isLetThrough(steps)) ?? found[0]
  const steps = shown?.steps ?? []
  const notes = [...place.notes, ...notesOn(source, place, steps)]
  const left = steps.length === 1 && steps[0]?.hook === 'from_netdev' && steps[0].verdict === 'stack'
  if (left && destination.kind === 'address' && steps[0]?.isGateway !== true && question.by === undefined)
    throw new Error(`${destination.name} is no address of this cluster: what asks for it does not come here`)
  return { source, destination, port, protocol, steps, ways, isAllowed: ways.every((w) => w.isAllowed), notes }
}

/** What stands in no packet. */
function notesOn(source: End, { end, service, port, protocol }: Place, steps: readonly Step[]): string[] {
  const notes: string[] = []
  const last = steps.at(-1)
  if (steps.length === 0 && source.kind === 'pod')
    notes.push(`${end.address} is the pod's own: what it asks for there never leaves it, and no policy is asked`)
  else if (steps.length === 0) notes.push('no policy is asked: none is about what a node itself sends')
  if (last !== undefined && last.destination.identity === identityUnknown && last.verdict !== 'dropped')
    notes.push(`no pod has the address ${last.destination.address}: nobody answers`)
  if (service !== undefined) notes.push(...serviceNotes(service, port, protocol, last))
  return notes
}

/** IDENTITY_UNKNOWN of bpf/abi/identity.h: of the pods' networks, and nobody's. */
const identityUnknown = 4

function serviceNotes({ metadata, spec }: Service, port: number, protocol: string, last: Step | undefined): string[] {
  const name = `svc/${metadata.namespace}/${metadata.name}`
  const ports = spec.ports ?? []
  const asked = ports.findIndex((p) => (p.port === port || p.nodePort === port) && (p.protocol ?? 'TCP') === protocol)
  if (asked < 0) {
    const has = ports.map((p) => `${p.port}/${p.protocol ?? 'TCP'}`).join(' ')
    return [`${name} has no port ${port}/${protocol}${has === '' ? '' : `, only ${has}`}`]
  }
  const target = ports[asked]?.targetPort
  if (protocol === 'SCTP' && target !== undefined && target !== ports[asked]?.port)
    return [
      `${name} spec.ports[${asked}].targetPort: SCTP port ${port} is not translated to ${target}: make them equal`,
    ]
  if (last?.reason === 'No local backend')
    return [`${name} spec.externalTrafficPolicy: Local, and ${last.node} has none of its pods`]
  return []
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

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)
