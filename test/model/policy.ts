import { contains } from './address.ts'
import {
  type Cluster,
  type NetworkPolicy,
  nameOf,
  type Peer,
  type Pod,
  type PolicyPort,
  protocolNumbers,
  selects,
} from './cluster.ts'

/** networking.k8s.io/v1 NetworkPolicy, read as its API documentation says it. Nothing is compiled: every question reads the objects. */

export type Direction = 'ingress' | 'egress'

/** The other side of a connection as a policy sees it: an address, and the pod that has it. */
export interface Party {
  readonly address: string
  /** A pod on its node's network is its node: it is not here. */
  readonly pod: Pod | undefined
}

export interface Asked {
  readonly protocol: number
  /** Undefined for what has no ports (ICMP). */
  readonly port: number | undefined
}

export interface Judgement {
  readonly allowed: boolean
  /** No policy selects the pod in this direction. */
  readonly isolated: boolean
  /** Every place that allows it: `team-a/web spec.ingress[0].from[1]`. Empty where nothing isolates the pod, or nothing allows it. */
  readonly rules: readonly string[]
  /** The policies that select the pod in this direction: on a denial, those that it lacks a rule of. */
  readonly policies: readonly string[]
}

const open: Judgement = { allowed: true, isolated: false, rules: [], policies: [] }

const unready: Judgement = { allowed: false, isolated: true, rules: [], policies: [] }

/**
 * May `pod` receive from (ingress) or send to (egress) `peer`? `asked.port` is the destination's, after DNAT.
 * What a pod says to itself no policy blocks.
 */
export function judgePolicy(cluster: Cluster, direction: Direction, pod: Pod, peer: Party, asked: Asked): Judgement {
  if (pod.unready === true && peer.pod !== pod) return unready
  const policies = [...cluster.policies.values()].filter((policy) => isolates(policy, direction, pod))
  if (policies.length === 0) return open
  const names = policies.map(nameOf)
  if (peer.pod === pod) return { allowed: true, isolated: true, rules: [], policies: names }
  const rules = policies.flatMap((policy) => matches(cluster, policy, direction, pod, peer, asked))
  return { allowed: rules.length > 0, isolated: true, rules, policies: names }
}

export function isolates(policy: NetworkPolicy, direction: Direction, pod: Pod): boolean {
  return (
    policy.namespace === pod.namespace &&
    pod.hostNetwork !== true &&
    typesOf(policy).includes(direction === 'ingress' ? 'Ingress' : 'Egress') &&
    selects(policy.spec.podSelector, pod.labels)
  )
}

/** Where it is not said: Ingress always, Egress where there is at least one egress rule. */
const typesOf = ({ spec }: NetworkPolicy): readonly ('Ingress' | 'Egress')[] =>
  spec.policyTypes !== undefined && spec.policyTypes.length > 0
    ? spec.policyTypes
    : (spec.egress ?? []).length > 0
      ? ['Ingress', 'Egress']
      : ['Ingress']

function matches(
  cluster: Cluster,
  policy: NetworkPolicy,
  direction: Direction,
  pod: Pod,
  peer: Party,
  asked: Asked,
): string[] {
  const { spec } = policy
  const rules =
    direction === 'ingress'
      ? (spec.ingress ?? []).map(({ from, ports }) => ({ peers: from, ports }))
      : (spec.egress ?? []).map(({ to, ports }) => ({ peers: to, ports }))
  // A name is the destination's: the guarded pod's own for what comes in, the other's for what goes out.
  const destination = direction === 'ingress' ? pod : peer.pod
  const word = direction === 'ingress' ? 'from' : 'to'
  return rules.flatMap(({ peers = [], ports = [] }, i) => {
    const path = `${nameOf(policy)} spec.${direction}[${i}]`
    const portsMatch = (named: Pod | undefined): boolean =>
      ports.length === 0 || ports.some((port) => portMatches(port, asked, named))
    if (peers.length === 0) return portsMatch(destination) ? [path] : []
    return peers.flatMap((p, j) => {
      // Whom an egress rule names by its address is nobody whose ports have names.
      const named = direction === 'egress' && p.ipBlock !== undefined ? undefined : destination
      return peerMatches(cluster, policy, p, peer) && portsMatch(named) ? [`${path}.${word}[${j}]`] : []
    })
  })
}

function peerMatches(cluster: Cluster, policy: NetworkPolicy, peer: Peer, party: Party): boolean {
  const { podSelector, namespaceSelector, ipBlock } = peer
  if (ipBlock !== undefined)
    return contains(ipBlock.cidr, party.address) && !(ipBlock.except ?? []).some((e) => contains(e, party.address))
  const { pod } = party
  if (pod === undefined) return false
  if (podSelector !== undefined && !selects(podSelector, pod.labels)) return false
  if (namespaceSelector === undefined) return podSelector !== undefined && pod.namespace === policy.namespace
  return selects(namespaceSelector, cluster.namespaces.get(pod.namespace)?.labels ?? {})
}

function portMatches(wanted: PolicyPort, asked: Asked, destination: Pod | undefined): boolean {
  const { protocol = 'TCP', port, endPort } = wanted
  if (protocolNumbers[protocol] !== asked.protocol || asked.port === undefined) return false
  if (port === undefined) return true
  if (typeof port === 'string')
    return (destination?.ports ?? []).some((p) => p.name === port && p.protocol === protocol && p.port === asked.port)
  return asked.port >= port && asked.port <= (endPort ?? port)
}
