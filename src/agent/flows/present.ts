import { formatHttp, httpJson } from './http.ts'
import type { Flow, Party } from './record.ts'

const protocols: ReadonlyMap<number, string> = new Map([
  [1, 'ICMPv4'],
  [6, 'TCP'],
  [17, 'UDP'],
  [58, 'ICMPv6'],
  [132, 'SCTP'],
])
export const protocolName = (protocol: number): string => protocols.get(protocol) ?? `IP-${protocol}`

export const verdictOf = ({ event }: Flow): 'FORWARDED' | 'DROPPED' => (event.kind === 'drop' ? 'DROPPED' : 'FORWARDED')

/** `Policy denied` as `POLICY_DENIED`. */
export const reasonCode = (reason: string): string =>
  reason
    .toUpperCase()
    .replaceAll(/[^A-Z0-9]+/g, '_')
    .replaceAll(/^_|_$/g, '')

/** The bits of a TCP header's flags, low first. */
const flagNames = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'] as const
export const tcpFlags = (flags: number): string[] => flagNames.filter((_, bit) => (flags & (1 << bit)) !== 0)

const literal = (address: string): string => (address.includes(':') ? `[${address}]` : address)

const who = (party: Party, address: string): string => {
  if (party.namespace !== undefined) return `${party.namespace}/${party.pod}`
  return literal(address)
}

function side(flow: Flow, which: 'source' | 'destination'): string {
  const { event } = flow
  const party = flow[which]
  const port = which === 'source' ? event.sourcePort : event.destinationPort
  const identity = which === 'source' ? event.sourceIdentity : event.destinationIdentity
  const named = `${who(party, event[which])}${hasPorts(event.protocol) ? `:${port}` : ''}`
  // A proxy knows addresses, not identities.
  const tag = party.entity ?? (flow.http === undefined ? `ID:${identity}` : undefined)
  return tag === undefined ? named : `${named} (${tag})`
}

const hasPorts = (protocol: number): boolean => protocol === 6 || protocol === 17 || protocol === 132

const detail = ({ event, http }: Flow): string => {
  if (http !== undefined) return formatHttp(http)
  if (event.protocol === 6) return `TCP Flags: ${tcpFlags(event.tcpFlags).join(', ') || 'none'}`
  if (event.protocol === 1 || event.protocol === 58) return `${protocolName(event.protocol)} type ${event.tcpFlags}`
  return protocolName(event.protocol)
}

/** One line, in the form that `hubble observe` made known; a denied one says by which policies. */
export function formatFlow(flow: Flow): string {
  const { event, allowedBy, deniedBy, service, http } = flow
  const dropped = event.kind === 'drop'
  const by = [
    ...(http === undefined ? [] : [`by ${http.rule || 'no rule'}`]),
    ...(service === undefined ? [] : [`via ${service.namespace}/${service.name}`]),
    ...(dropped
      ? deniedBy.map((p) => `denied by ${p.namespace}/${p.name}`)
      : allowedBy.map((p) => `allowed by ${p.namespace}/${p.name} ${p.path ?? ''}`.trimEnd())),
  ]
  return [
    `${timeOf(flow.time)}:`,
    side(flow, 'source'),
    event.isReply && http === undefined ? '<-' : '->',
    side(flow, 'destination'),
    ...(http === undefined
      ? [dropped ? event.reason : event.direction === 'EGRESS' ? 'from-endpoint' : 'to-endpoint', event.direction]
      : ['http-response']),
    verdictOf(flow),
    `(${detail(flow)})`,
    ...by.map((words) => `[${words}]`),
  ].join(' ')
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const two = (n: number): string => String(n).padStart(2, '0')
function timeOf(ms: number): string {
  const d = new Date(ms)
  const clock = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`
  return `${months[d.getMonth()]} ${two(d.getDate())} ${clock}.${String(d.getMilliseconds()).padStart(3, '0')}`
}

/** The flow in Hubble's JSON form (`observer.proto`, `flow.proto`), as far as we have its fields. */
export function flowJson(flow: Flow): object {
  const { event, service } = flow
  const time = new Date(flow.time).toISOString()
  const dropped = event.kind === 'drop'
  const direction = event.direction === 'EGRESS' ? 'egress' : 'ingress'
  const policies = (found: Flow['allowedBy'], did: 'allowed' | 'denied'): object =>
    Object.fromEntries(
      (['egress', 'ingress'] as const).flatMap((side) => {
        const there = found.filter((p) => (p.direction ?? direction) === side)
        const named = there.map(({ namespace, name, path }) => ({
          ...{ kind: 'NetworkPolicy', namespace, name },
          ...(path === undefined ? {} : { path }),
        }))
        return named.length === 0 ? [] : [[`${side}_${did}_by`, named]]
      }),
    )
  return {
    flow: {
      time,
      verdict: verdictOf(flow),
      ...(dropped ? { drop_reason_desc: reasonCode(event.reason) } : {}),
      IP: {
        source: event.source,
        destination: event.destination,
        ipVersion: event.source.includes(':') ? 'IPv6' : 'IPv4',
      },
      l4: layer4(flow),
      source: endpointJson(flow.source, event.sourceIdentity),
      destination: endpointJson(flow.destination, event.destinationIdentity),
      ...(flow.http === undefined ? { Type: 'L3_L4' } : { Type: 'L7', l7: httpJson(flow.http) }),
      node_name: flow.node,
      traffic_direction: event.direction,
      trace_observation_point: event.direction === 'EGRESS' ? 'FROM_ENDPOINT' : 'TO_ENDPOINT',
      is_reply: event.isReply,
      interface: { index: event.ifindex },
      ...(service === undefined ? {} : { destination_service: service }),
      ...(event.frontend === undefined ? {} : { frontend: event.frontend }),
      ...policies(flow.allowedBy, 'allowed'),
      ...policies(flow.deniedBy, 'denied'),
      Summary: detail(flow),
    },
    node_name: flow.node,
    time,
  }
}

function layer4({ event }: Flow): object {
  const ports = { source_port: event.sourcePort, destination_port: event.destinationPort }
  const flags = Object.fromEntries(tcpFlags(event.tcpFlags).map((name) => [name, true]))
  switch (event.protocol) {
    case 6:
      return { TCP: { ...ports, flags } }
    case 17:
      return { UDP: ports }
    case 132:
      return { SCTP: ports }
    case 1:
      return { ICMPv4: { type: event.tcpFlags } }
    case 58:
      return { ICMPv6: { type: event.tcpFlags } }
    default:
      return {}
  }
}

function endpointJson(party: Party, identity: number): object {
  return {
    identity,
    ...(party.namespace === undefined ? {} : { namespace: party.namespace, pod_name: party.pod }),
    labels:
      party.namespace === undefined
        ? [`reserved:${party.entity ?? 'unknown'}`]
        : Object.entries(party.labels ?? {})
            .map(([key, value]) => `k8s:${key}=${value}`)
            .toSorted(),
  }
}
