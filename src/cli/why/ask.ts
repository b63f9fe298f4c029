import type { Step } from '#agent/why/why.ts'
import { nodes, pods, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import { type AgentSocket, agentSockets, ask } from '../agents/ask.ts'
import { layoutCluster } from '../cluster/layout.ts'
import { adminClient } from '../cluster/ready.ts'

export interface Question {
  readonly cluster: string
  readonly source: string
  readonly destination: string
  /** `80`, `53/udp`. */
  readonly port: string
  readonly ipv6: boolean
}

/** An end of the connection, as somebody named it. */
export interface End {
  readonly name: string
  readonly address: string
  /** Where it is, if it is in the cluster. */
  readonly node: string | undefined
  readonly kind: 'pod' | 'node' | 'service' | 'address'
}

export interface Answer {
  readonly source: End
  readonly destination: End
  readonly port: number
  readonly protocol: string
  readonly steps: readonly Step[]
  readonly isAllowed: boolean
}

/** Asks the nodes on the way, in the order in which a packet meets them. Throws where an end is not there. */
export async function askWhy(question: Question): Promise<Answer> {
  const { port, protocol } = parsePort(question.port)
  const agents = agentSockets(question.cluster)
  using client = await adminClient(layoutCluster(question.cluster, agents.length))
  const [source, destination] = await Promise.all([
    find(client, question.source, question.ipv6),
    find(client, question.destination, question.ipv6),
  ])
  const agentOf = (node: string | undefined): AgentSocket => {
    const agent = agents.find((a) => a.node === node)
    if (agent === undefined) throw new Error(`the agent of node ${JSON.stringify(node)} does not run on this machine`)
    return agent
  }
  const askOf = async (node: string | undefined, hook: string, to: string, at: number): Promise<readonly Step[]> => {
    const query = { hook, source: source.address, destination: to, port: String(at), protocol }
    return (await ask<{ readonly steps: readonly Step[] }>(agentOf(node), '/v1/why', query)).steps
  }
  // A pod's packet begins at its device; a node's own meets the pod's device from the other side; others come by the uplink.
  const steps: Step[] = []
  const { address } = destination
  if (source.kind === 'pod') steps.push(...(await askOf(source.node, 'from_container', address, port)))
  else if (source.node !== undefined && source.node === destination.node)
    steps.push(...(await askOf(source.node, 'to_container', address, port)))
  else if (destination.node === undefined)
    throw new Error(
      destination.kind === 'service'
        ? `${source.name} to ${destination.name}: only pods are asked about as clients of a Service: name one of its pods instead`
        : `${source.name} to ${destination.name}: neither is a pod, so no program of ours has a say`,
    )
  const last = steps.at(-1)
  const reached = last === undefined ? { address, port } : last.destination
  const there = await nodeOf(client, reached.address)
  const isElsewhere = there !== undefined && there !== (source.kind === 'address' ? undefined : source.node)
  if ((last === undefined || last.verdict === 'forwarded') && isElsewhere)
    steps.push(...(await askOf(there, 'from_netdev', reached.address, reached.port)))
  const isAllowed = steps.every(({ verdict }) => verdict !== 'dropped' && verdict !== 'refused')
  return { source, destination, port, protocol, steps, isAllowed }
}

async function find(client: Client, text: string, ipv6: boolean): Promise<End> {
  const ofFamily = (addresses: readonly string[]): string => {
    const found = addresses.find((a) => a.includes(':') === ipv6)
    if (found === undefined)
      throw new Error(
        `${text} has no ${ipv6 ? 'IPv6' : 'IPv4'} address${addresses.length > 0 ? `, only ${addresses.join(' ')}` : ''}`,
      )
    return found
  }
  try {
    const [kind = '', ...rest] = text.split('/')
    if (kind === 'node' && rest.length === 1) {
      const node = await client.get(nodes, { name: rest[0] ?? '' })
      const addresses = (node.status.addresses ?? []).filter((a) => a.type === 'InternalIP').map((a) => a.address)
      return { name: text, address: ofFamily(addresses), node: node.metadata.name, kind: 'node' }
    }
    if (kind === 'svc' || kind === 'service' || kind === 'services') {
      const [namespace, name] = rest.length === 2 ? [rest[0] ?? '', rest[1] ?? ''] : ['default', rest[0] ?? '']
      const { spec } = await client.get(services, { namespace, name })
      return {
        name: `svc/${namespace}/${name}`,
        address: ofFamily(spec.clusterIPs ?? []),
        node: undefined,
        kind: 'service',
      }
    }
    if (/^[0-9.]+$/.test(text) || text.includes(':')) {
      return {
        name: text,
        address: text,
        node: await nodeOf(client, text),
        kind: (await isPod(client, text)) ? 'pod' : 'address',
      }
    }
    const [namespace, name] = text.includes('/') ? [kind, rest.join('/')] : ['default', text]
    const pod = await client.get(pods, { namespace, name })
    const addresses = (pod.status.podIPs ?? []).map(({ ip }) => ip)
    const end = { name: `${namespace}/${name}`, address: ofFamily(addresses), node: pod.spec.nodeName }
    return { ...end, kind: pod.spec.hostNetwork === true ? 'node' : 'pod' }
  } catch (error) {
    if (isStatus(error, 'NotFound')) throw new Error(`${text}: ${error.message}`, { cause: error })
    throw error
  }
}

async function podsAt(client: Client, address: string) {
  const { items } = await client.list(pods)
  return items.filter(
    ({ spec, status }) =>
      spec.hostNetwork !== true &&
      status.phase !== 'Succeeded' &&
      status.phase !== 'Failed' &&
      status.podIPs?.some(({ ip }) => ip === address),
  )
}
const isPod = async (client: Client, address: string): Promise<boolean> => (await podsAt(client, address)).length > 0
const nodeOf = async (client: Client, address: string): Promise<string | undefined> =>
  (await podsAt(client, address))[0]?.spec.nodeName

function parsePort(text: string): { readonly port: number; readonly protocol: string } {
  const [, number, protocol = 'tcp'] = /^(\d+)(?:\/(tcp|udp|sctp|icmp))?$/i.exec(text) ?? []
  const port = Number(number)
  if (number === undefined || port > 65_535)
    throw new RangeError(`port "${text}": use PORT or PORT/PROTOCOL, such as 80 or 53/udp`)
  return { port, protocol: protocol.toUpperCase() }
}
