import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '#api/gen/networking-v1.ts'
import { formatSelector, type Selector, selectorFrom } from '#api/meta/selector.ts'
import { type Cidr, isMapped, parseCidr } from '#base/net/address.ts'
import { type Block, networkKey, outermost } from './networks.ts'
import { type PortPrefix, protocolNumbers, rangePrefixes } from './ports.ts'

export type Direction = 'ingress' | 'egress'

/** A NetworkPolicy as the compiler takes it: every selector read, every port a number, every default filled in. */
export interface Policy {
  /** `namespace/name`. */
  readonly key: string
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly generation: number
  readonly selector: Selector
  /** Undefined: it does not isolate pods in this direction. Empty: it does, and allows nothing. */
  readonly rules: Readonly<Record<Direction, readonly Rule[] | undefined>>
  readonly object: NetworkPolicy
}

/** An element of `ingress` or `egress`. */
export interface Rule {
  /** `spec.ingress[1]`. */
  readonly path: string
  /** Undefined: anyone. */
  readonly peers: readonly Peer[] | undefined
  /** Undefined: any protocol and port. */
  readonly ports: Ports | undefined
}

/** By number and by name: a name is another number on each pod. */
export interface Ports {
  readonly prefixes: readonly PortPrefix[]
  readonly names: readonly { readonly name: string; readonly protocol: number }[]
}

/** An element of `from` or `to`. */
export type Peer =
  | {
      readonly kind: 'pods'
      /** `spec.ingress[1].from[0]`. */
      readonly path: string
      /** The same for selectors that mean the same. */
      readonly text: string
      /** The policy's own namespace, or those that a selector takes. */
      readonly namespaces: string | Selector
      readonly pods: Selector
    }
  | { readonly kind: 'block'; readonly path: string; readonly text: string; readonly block: Block }

/** Why a policy cannot be compiled. */
export interface Problem {
  readonly field: string
  readonly message: string
}

/** A policy, or what is wrong with it. */
export type Parsed =
  | { readonly policy: Policy }
  | {
      readonly problems: readonly Problem[]
      /** The same pods and directions, with nothing allowed; absent where not even they can be read. */
      readonly closed: Policy | undefined
    }

/**
 * Most map entries that one rule may need for one peer, and one policy for all its peers: a policy of the object limit's
 * size (1.5 MB) could otherwise take the map of all others.
 */
const cellsPerPolicyMax = 16_384
const problemsMax = 8

/** Reads a policy. What the API server would refuse is refused here too: the object may come from another one. Pure. */
export function parsePolicy(object: NetworkPolicy): Parsed {
  const { namespace, name = '', uid = '', generation = 0 } = object.metadata
  const spec = (object.spec ?? {}) as Partial<NetworkPolicy['spec']>
  const problems: Problem[] = []
  const say = (field: string, message: string): void => {
    if (problems.length < problemsMax) problems.push({ field, message })
  }
  const types: readonly string[] = spec.policyTypes?.length
    ? spec.policyTypes
    : (spec.egress ?? []).length > 0
      ? ['Ingress', 'Egress']
      : ['Ingress']
  for (const [i, type] of types.entries())
    if (type !== 'Ingress' && type !== 'Egress')
      say(`spec.policyTypes[${i}]`, `unknown policy type ${JSON.stringify(type)}`)
  const readSelector = (selector: NetworkPolicyPeer['podSelector'], field: string): Selector => {
    try {
      return selectorFrom(selector ?? {})
    } catch (error) {
      say(field, error instanceof Error ? error.message : String(error))
      return selectorFrom({})
    }
  }
  const rulesOf = (direction: Direction): Rule[] => {
    const given =
      direction === 'ingress'
        ? (spec.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports, word: 'from' }))
        : (spec.egress ?? []).map(({ to, ports }) => ({ peers: to, ports, word: 'to' }))
    return given.map(({ peers, ports, word }, i): Rule => {
      const path = `spec.${direction}[${i}]`
      return {
        path,
        peers: peers?.length
          ? peers.flatMap((peer, j) => parsePeer(peer, `${path}.${word}[${j}]`, namespace, readSelector, say))
          : undefined,
        ports: ports?.length ? parsePorts(ports, path, say) : undefined,
      }
    })
  }
  const selector = readSelector(spec.podSelector, 'spec.podSelector')
  const rules = {
    ingress: types.includes('Ingress') ? rulesOf('ingress') : undefined,
    egress: types.includes('Egress') ? rulesOf('egress') : undefined,
  }
  let cells = 0
  for (const rule of [...(rules.ingress ?? []), ...(rules.egress ?? [])]) {
    const perPeer = rule.ports === undefined ? 1 : rule.ports.prefixes.length + rule.ports.names.length
    // What is excepted is no entry of a set, but one of the networks, and those are all policies' too.
    const excepted = (rule.peers ?? []).reduce((sum, p) => sum + (p.kind === 'block' ? p.block.except.length : 0), 0)
    cells += perPeer * (rule.peers?.length ?? 1) + excepted
    if (cells > cellsPerPolicyMax) {
      say(rule.path, `the policy needs more than ${cellsPerPolicyMax} entries up to here: split it`)
      break
    }
  }
  const policy: Policy = { key: `${namespace}/${name}`, namespace, name, uid, generation, selector, rules, object }
  if (problems.length === 0) return { policy }
  const readable = !problems.some(({ field }) => field === 'spec.podSelector')
  const none = { ingress: rules.ingress && [], egress: rules.egress && [] }
  return { problems, closed: readable ? { ...policy, rules: none } : undefined }
}

function parsePeer(
  peer: NetworkPolicyPeer,
  path: string,
  namespace: string,
  readSelector: (selector: NetworkPolicyPeer['podSelector'], field: string) => Selector,
  say: (field: string, message: string) => void,
): Peer[] {
  const { podSelector, namespaceSelector, ipBlock } = peer
  if (ipBlock !== undefined) {
    if (podSelector !== undefined || namespaceSelector !== undefined) {
      say(path, 'may not specify both ipBlock and another peer')
      return []
    }
    const outer = networkOf(ipBlock.cidr ?? '')
    if (outer === undefined) {
      say(`${path}.ipBlock.cidr`, `${JSON.stringify(ipBlock.cidr)} is not a network`)
      return []
    }
    const except = (ipBlock.except ?? []).flatMap((text, i) => {
      const inner = networkOf(text)
      const isInside = inner !== undefined && networkKey(inner).startsWith(networkKey(outer))
      if (!isInside) say(`${path}.ipBlock.except[${i}]`, `${JSON.stringify(text)} is not a network inside of cidr`)
      return inner === undefined ? [] : [inner]
    })
    const keys = outermost(except.map(networkKey))
    return [
      {
        kind: 'block',
        path,
        text: `${networkKey(outer)} ${keys.join(' ')}`,
        block: { cidr: outer, key: networkKey(outer), except, exceptKeys: keys },
      },
    ]
  }
  if (podSelector === undefined && namespaceSelector === undefined) {
    say(path, 'must specify a peer')
    return []
  }
  const pods = readSelector(podSelector, `${path}.podSelector`)
  const namespaces =
    namespaceSelector === undefined ? namespace : readSelector(namespaceSelector, `${path}.namespaceSelector`)
  const scope = typeof namespaces === 'string' ? namespaces : `(${formatSelector(namespaces)})`
  return [{ kind: 'pods', path, text: `${scope}|${formatSelector(pods)}`, namespaces, pods }]
}

/** Undefined also for IPv4 written as IPv6: the kernel's maps have IPv4 there, which is not what such a text says. */
function networkOf(text: string): Cidr | undefined {
  const cidr = parseCidr(text)
  return cidr === undefined || isMapped(cidr) ? undefined : cidr
}

function parsePorts(
  ports: readonly NetworkPolicyPort[],
  path: string,
  say: (field: string, message: string) => void,
): Ports {
  const prefixes = new Map<string, PortPrefix>()
  const names: { name: string; protocol: number }[] = []
  const add = (prefix: PortPrefix): void => {
    prefixes.set(`${prefix.protocol} ${prefix.port} ${prefix.bits}`, prefix)
  }
  for (const [i, { protocol: text = 'TCP', port, endPort }] of ports.entries()) {
    const field = `${path}.ports[${i}]`
    const protocol = protocolNumbers.get(text)
    if (protocol === undefined) {
      say(`${field}.protocol`, `${JSON.stringify(text)} is none of TCP, UDP and SCTP`)
      continue
    }
    if (port === undefined) {
      if (endPort === undefined) add({ protocol, port: 0, bits: 0 })
      else say(`${field}.endPort`, 'may not be specified when `port` is not specified')
    } else if (typeof port === 'string') {
      if (endPort === undefined) names.push({ name: port, protocol })
      else say(`${field}.endPort`, 'may not be specified when `port` is non-numeric')
    } else {
      const last = endPort ?? port
      if (!isPort(port)) say(`${field}.port`, `${port} is not between 1 and 65535`)
      else if (!isPort(last) || last < port) say(`${field}.endPort`, `${last} is not between port and 65535`)
      else for (const prefix of rangePrefixes(protocol, port, last)) add(prefix)
    }
  }
  return { prefixes: [...prefixes.values()], names }
}

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535
