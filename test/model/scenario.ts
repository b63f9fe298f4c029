import type {
  Cluster,
  ContainerPort,
  Endpoint,
  Labels,
  Namespace,
  NetworkPolicy,
  Node,
  Pod,
  ProtocolName,
  Service,
  ServicePort,
} from './cluster.ts'
import { nameOf } from './cluster.ts'
import type { Hook } from './journey.ts'
import type { Packet } from './packet.ts'
import { formatPacket, parsePacket } from './packet-text.ts'

/**
 * A scenario is a text: objects, changes, time and packets, one on a line, in the order in which they happen, on the node
 * that is first named. scenarios/first.txt is the one to read first. parseScenario and formatScenario are inverse.
 */

/** What the cluster's objects become. */
export type Change =
  | { readonly do: 'node'; readonly node: Node }
  | { readonly do: 'namespace'; readonly namespace: Namespace }
  | { readonly do: 'pod'; readonly pod: Pod }
  | { readonly do: 'policy'; readonly policy: NetworkPolicy }
  | { readonly do: 'service'; readonly service: Service }
  | { readonly do: 'tunnel' }
  | { readonly do: 'remove'; readonly kind: 'pod' | 'policy' | 'service'; readonly name: string }

export type Step =
  | Change
  | { readonly do: 'wait'; readonly ms: number }
  | {
      readonly do: 'send'
      readonly hook: Hook
      readonly packet: Packet
      /** So many at the same moment; absent: one. */
      readonly times?: number
    }

export interface Scenario {
  readonly title: string
  readonly steps: readonly Step[]
}

export const podCidrs = ['10.244.0.0/16', 'fd00:10:244::/56']
export const serviceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112']

export const emptyCluster: Cluster = {
  namespaces: new Map(),
  nodes: new Map(),
  pods: new Map(),
  policies: new Map(),
  services: new Map(),
  podCidrs,
  serviceCidrs,
}

/** The cluster after a change; the old one stays as it was. */
export function changed(cluster: Cluster, change: Change): Cluster {
  const put = <T>(map: ReadonlyMap<string, T>, name: string, value: T): Map<string, T> => new Map(map).set(name, value)
  const without = <T>(map: ReadonlyMap<string, T>, name: string): Map<string, T> => {
    const copy = new Map(map)
    copy.delete(name)
    return copy
  }
  switch (change.do) {
    case 'node':
      return { ...cluster, nodes: put(cluster.nodes, change.node.name, change.node) }
    case 'namespace':
      return { ...cluster, namespaces: put(cluster.namespaces, change.namespace.name, change.namespace) }
    case 'pod':
      return { ...cluster, pods: put(cluster.pods, nameOf(change.pod), change.pod) }
    case 'policy':
      return { ...cluster, policies: put(cluster.policies, nameOf(change.policy), change.policy) }
    case 'service':
      return { ...cluster, services: put(cluster.services, nameOf(change.service), change.service) }
    case 'tunnel':
      return { ...cluster, isTunnelled: true }
    case 'remove':
      if (change.kind === 'pod') return { ...cluster, pods: without(cluster.pods, change.name) }
      if (change.kind === 'policy') return { ...cluster, policies: without(cluster.policies, change.name) }
      return { ...cluster, services: without(cluster.services, change.name) }
    default:
      return change satisfies never
  }
}

export function formatScenario({ title, steps }: Scenario): string {
  return `# ${title}\n${steps.map((step) => `${formatStep(step)}\n`).join('')}`
}

/** Throws a SyntaxError with the line's number. What begins with `#` is for the reader, with `=>` the answer of a run. */
export function parseScenario(text: string): Scenario {
  const lines = text.split('\n')
  const title = (lines.find((line) => line.startsWith('#')) ?? '').replace(/^#\s*/, '')
  const steps: Step[] = []
  for (const [i, line] of lines.entries()) {
    const words = line.trim()
    if (words === '' || words.startsWith('#') || words.startsWith('=>')) continue
    try {
      steps.push(parseStep(words))
    } catch (error) {
      throw new SyntaxError(`Cannot read line ${i + 1}: ${(error as Error).message}`, { cause: error })
    }
  }
  return { title, steps }
}

export function formatStep(step: Step): string {
  switch (step.do) {
    case 'node':
      return `node ${step.node.name} ${step.node.addresses.join(',')} pods ${step.node.podCidrs.join(',')}`
    case 'namespace':
      return `namespace ${step.namespace.name} labels ${formatLabels(step.namespace.labels)}`
    case 'pod':
      return formatPod(step.pod)
    case 'policy':
      return `policy ${nameOf(step.policy)} ${JSON.stringify(step.policy.spec)}`
    case 'service':
      return formatService(step.service)
    case 'tunnel':
      return 'tunnel'
    case 'remove':
      return `remove ${step.kind} ${step.name}`
    case 'wait':
      return `wait ${step.ms} ms`
    case 'send':
      return `${step.times === undefined ? '' : `${step.times} times `}${formatHook(step.hook)}: ${formatPacket(step.packet)}`
    default:
      return step satisfies never
  }
}

const formatHook = (hook: Hook): string => {
  if (hook.from === 'pod') return `from ${hook.pod}`
  if (hook.from === 'uplink') return hook.early === true ? 'from uplink early' : 'from uplink'
  if (hook.from === 'tunnel') return `from tunnel ${hook.node} as ${hook.as}`
  return hook.from === 'stack' ? 'from stack' : `from host to ${hook.pod}`
}

function formatPod({ namespace, name, labels, node, addresses, ports, hostNetwork, unready }: Pod): string {
  const list = ports.map((p) => `${p.name}=${p.port}/${p.protocol}`).join(',')
  return `pod ${namespace}/${name} on ${node} ${addresses.join(',')} labels ${formatLabels(labels)} ports ${list || '-'}${hostNetwork ? ' host' : ''}${unready ? ' unready' : ''}`
}

const formatLabels = (labels: Labels): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',') || '-'

/** `service red/web ClusterIP 10.96.0.10 port 80/TCP to 10.244.1.2:8080@node-1 … affinity 60`. */
function formatService(service: Service): string {
  const words = ['service', nameOf(service), service.type, service.clusterIPs.join(',')]
  if (service.externalIPs !== undefined) words.push('external', service.externalIPs.join(','))
  if (service.isExternalGuarded === true) words.push('guarded')
  if (service.ingressIPs !== undefined) words.push('ingress', service.ingressIPs.join(','))
  if (service.externalTrafficPolicy === 'Local') words.push('external-local')
  if (service.internalTrafficPolicy === 'Local') words.push('internal-local')
  if (service.affinitySeconds !== undefined) words.push('affinity', `${service.affinitySeconds}`)
  if (service.sourceRanges !== undefined) words.push('ranges', service.sourceRanges.join(','))
  for (const { port, protocol, nodePort } of service.ports) {
    words.push('port', `${port}/${protocol}`)
    if (nodePort !== undefined) words.push('node-port', `${nodePort}`)
    words.push('to', (service.endpoints[port] ?? []).map(formatEndpoint).join(',') || '-')
  }
  return words.join(' ')
}

/** `[fd00::1]:8080@node-1!s`: marks for not ready, (s)erving all the same, (t)erminating. */
function formatEndpoint({ address, port, node, ready, serving, terminating }: Endpoint): string {
  const host = address.includes(':') ? `[${address}]` : address
  const marks = `${ready ? '' : '!'}${!ready && serving ? 's' : ''}${terminating ? 't' : ''}`
  return `${host}:${port}@${node}${marks}`
}

function parseStep(line: string): Step {
  const [word = '', ...rest] = line.split(/\s+/)
  switch (word) {
    case 'node': {
      const [name = '', addresses = '', , cidrs = ''] = rest
      return { do: 'node', node: { name, addresses: addresses.split(','), podCidrs: cidrs.split(',') } }
    }
    case 'namespace': {
      const [name = '', , labels = '-'] = rest
      return { do: 'namespace', namespace: { name, labels: parseLabels(labels) } }
    }
    case 'pod':
      return { do: 'pod', pod: parsePod(rest) }
    case 'policy': {
      const [namespace, name] = splitName(rest[0] ?? '')
      const spec = JSON.parse(line.slice(line.indexOf('{'))) as NetworkPolicy['spec']
      return { do: 'policy', policy: { namespace, name, spec } }
    }
    case 'service':
      return { do: 'service', service: parseService(rest) }
    case 'tunnel':
      return { do: 'tunnel' }
    case 'remove': {
      const [kind = '', name = ''] = rest
      if (kind !== 'pod' && kind !== 'policy' && kind !== 'service') throw new SyntaxError(`what is ${kind}?`)
      return { do: 'remove', kind, name }
    }
    case 'wait':
      return { do: 'wait', ms: Number(rest[0]) }
    case 'from':
      return parseSend(line)
    default:
      if (rest[0] === 'times') return { ...parseSend(rest.slice(1).join(' ')), times: Number(word) }
      throw new SyntaxError(`there is no step ${JSON.stringify(word)}`)
  }
}

function parseSend(line: string): Step & { readonly do: 'send' } {
  const found = /^from (host to |tunnel )?(\S+)( early)?(?: as (\S+))?: (.*)$/.exec(line)
  if (found === null) throw new SyntaxError('write: from POD: SOURCE > DESTINATION …')
  const [, place, name = '', early, as = '', text = ''] = found
  return { do: 'send', hook: parseHook(place?.trim(), name, early !== undefined, as), packet: parsePacket(text) }
}

function parseHook(place: string | undefined, name: string, early: boolean, as: string): Hook {
  if (place === 'host to') return { from: 'host', pod: name }
  if (place === 'tunnel') return { from: 'tunnel', node: name, as }
  if (name === 'stack') return { from: 'stack' }
  return name === 'uplink' ? { from: 'uplink', ...(early ? { early } : {}) } : { from: 'pod', pod: name }
}

function splitName(text: string): [string, string] {
  const [namespace, name] = text.split('/')
  if (namespace === undefined || name === undefined) throw new SyntaxError(`${text} is no namespace/name`)
  return [namespace, name]
}

const parseLabels = (text: string): Labels =>
  text === '-' ? {} : Object.fromEntries(text.split(',').map((pair) => pair.split('=') as [string, string]))

function parsePod(words: readonly string[]): Pod {
  const [full = '', , node = '', addresses = '', , labels = '-', , ports = '-', mark] = words
  const [namespace, name] = splitName(full)
  return {
    namespace,
    name,
    node,
    addresses: addresses.split(','),
    labels: parseLabels(labels),
    ports: ports === '-' ? [] : ports.split(',').map(parseContainerPort),
    ...(mark === 'host' ? { hostNetwork: true } : {}),
    ...(mark === 'unready' ? { unready: true } : {}),
  }
}

function parseContainerPort(text: string): ContainerPort {
  const found = /^(\S+)=(\d+)\/(TCP|UDP|SCTP)$/.exec(text)
  if (found === null) throw new SyntaxError(`${text} is no name=port/protocol`)
  return { name: found[1] ?? '', port: Number(found[2]), protocol: found[3] as ProtocolName }
}

function parseService(words: readonly string[]): Service {
  const [full = '', type = '', clusterIPs = ''] = words
  const [namespace, name] = splitName(full)
  if (type !== 'ClusterIP' && type !== 'NodePort' && type !== 'LoadBalancer')
    throw new SyntaxError(`there is no type of Service ${type}`)
  const service: { -readonly [K in keyof Service]: Service[K] } = {
    namespace,
    name,
    type,
    clusterIPs: clusterIPs.split(','),
    ports: [],
    endpoints: {},
  }
  const ports: ServicePort[] = []
  const endpoints: Record<number, readonly Endpoint[]> = {}
  for (let i = 3; i < words.length; i++) {
    const word = words[i]
    if (word === 'external-local') service.externalTrafficPolicy = 'Local'
    else if (word === 'guarded') service.isExternalGuarded = true
    else if (word === 'internal-local') service.internalTrafficPolicy = 'Local'
    else {
      const value = words[++i] ?? ''
      const last = ports.at(-1)
      if (word === 'external') service.externalIPs = value.split(',')
      else if (word === 'ingress') service.ingressIPs = value.split(',')
      else if (word === 'affinity') service.affinitySeconds = Number(value)
      else if (word === 'ranges') service.sourceRanges = value.split(',')
      else if (word === 'port') {
        const [port = '', protocol = ''] = value.split('/')
        ports.push({ port: Number(port), protocol: protocol as ProtocolName })
      } else if (word === 'node-port' && last !== undefined)
        ports[ports.length - 1] = { ...last, nodePort: Number(value) }
      else if (word === 'to' && last !== undefined)
        endpoints[last.port] = value === '-' ? [] : value.split(',').map(parseEndpoint)
      else throw new SyntaxError(`what is ${word}?`)
    }
  }
  return { ...service, ports, endpoints }
}

function parseEndpoint(text: string): Endpoint {
  const found = /^(?:\[(.+)\]|([\d.]+)):(\d+)@(node-\d+)(!?)(s?)(t?)$/.exec(text)
  if (found === null) throw new SyntaxError(`${text} is no address:port@node`)
  const ready = found[5] === ''
  return {
    address: found[1] ?? found[2] ?? '',
    port: Number(found[3]),
    node: found[4] ?? '',
    ready,
    serving: ready || found[6] === 's',
    terminating: found[7] === 't',
  }
}
