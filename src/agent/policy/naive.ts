import { BlockList, isIPv6 } from 'node:net'
import type { NamedPort } from '#api/core/pod/identity.ts'
import type { LabelSelector } from '#api/gen/meta-v1.ts'
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '#api/gen/networking-v1.ts'

/**
 * For tests only: NetworkPolicy read straight from the objects, one packet at a time, as the API's documentation tells it.
 * Shares nothing with the compiler that it is there to check.
 */

export interface WorldPod {
  readonly name: string
  readonly namespace: string
  readonly labels: Readonly<Record<string, string>>
  readonly ports: readonly NamedPort[]
  readonly addresses: readonly string[]
  readonly identity: number | undefined
  readonly isLocal: boolean
}

export interface World {
  readonly namespaces: Map<string, Readonly<Record<string, string>>>
  readonly pods: Map<string, WorldPod>
  /** By `namespace/name`. */
  readonly policies: Map<string, NetworkPolicy>
}

export interface Packet {
  readonly from: string
  readonly to: string
  readonly protocol: number
  readonly port: number
}

/** Whether this node's pods may send or receive it: other nodes judge for theirs. */
export function evaluate(world: World, packet: Packet): boolean {
  const podAt = (address: string) => [...world.pods.values()].find((p) => p.addresses.includes(address))
  const source = podAt(packet.from)
  const destination = podAt(packet.to)
  return (
    (source?.isLocal !== true || mayLeave(world, source, packet, destination)) &&
    (destination?.isLocal !== true || mayEnter(world, destination, packet, source))
  )
}

const policiesFor = ({ policies }: World, pod: WorldPod, type: 'Ingress' | 'Egress'): NetworkPolicy[] =>
  [...policies.values()].filter(({ metadata, spec }) => {
    if (metadata.namespace !== pod.namespace || !selects(spec.podSelector, pod.labels)) return false
    // "If not specified, it will default based on the existence of egress rules; Ingress always."
    if (spec.policyTypes?.length) return spec.policyTypes.includes(type)
    return type === 'Ingress' || (spec.egress?.length ?? 0) > 0
  })

function mayEnter(world: World, pod: WorldPod, packet: Packet, peer: WorldPod | undefined): boolean {
  const policies = policiesFor(world, pod, 'Ingress')
  return (
    policies.length === 0 ||
    policies.some(({ metadata, spec }) =>
      (spec.ingress ?? []).some(
        (rule) =>
          peersHave(world, rule.from, metadata.namespace, packet.from, peer) && portsHave(rule.ports, packet, pod),
      ),
    )
  )
}

function mayLeave(world: World, pod: WorldPod, packet: Packet, peer: WorldPod | undefined): boolean {
  const policies = policiesFor(world, pod, 'Egress')
  return (
    policies.length === 0 ||
    policies.some(({ metadata, spec }) =>
      (spec.egress ?? []).some((rule) => {
        // A name is a pod's: by an ipBlock a packet is not known to go to a pod.
        const fits = (peers: NetworkPolicyPeer[] | undefined, ports: NetworkPolicyPort[] | undefined) =>
          peersHave(world, peers, metadata.namespace, packet.to, peer) && portsHave(ports, packet, peer)
        if (!rule.to?.length) return fits(undefined, rule.ports)
        return rule.to.some((to) => {
          const ports = to.ipBlock ? rule.ports?.filter((p) => typeof p.port !== 'string') : rule.ports
          if (rule.ports?.length && !ports?.length) return false
          return fits([to], ports)
        })
      }),
    )
  )
}

function peersHave(
  world: World,
  peers: NetworkPolicyPeer[] | undefined,
  own: string,
  address: string,
  pod: WorldPod | undefined,
): boolean {
  if (!peers?.length) return true
  return peers.some(({ podSelector, namespaceSelector, ipBlock }) => {
    if (ipBlock) {
      if (isIPv6(address) !== ipBlock.cidr.includes(':')) return false
      return inside(address, ipBlock.cidr) && !(ipBlock.except ?? []).some((hole) => inside(address, hole))
    }
    if (pod === undefined) return false
    if (podSelector && !selects(podSelector, pod.labels)) return false
    if (!namespaceSelector) return pod.namespace === own
    return selects(namespaceSelector, world.namespaces.get(pod.namespace) ?? {})
  })
}

function portsHave(ports: NetworkPolicyPort[] | undefined, packet: Packet, owner: WorldPod | undefined): boolean {
  if (!ports?.length) return true
  const number = { TCP: 6, UDP: 17, SCTP: 132 }
  return ports.some(({ protocol = 'TCP', port, endPort }) => {
    if (number[protocol] !== packet.protocol) return false
    if (port === undefined) return true
    if (typeof port === 'string')
      return owner?.ports.some((p) => p.name === port && p.protocol === protocol && p.number === packet.port) ?? false
    return packet.port >= port && packet.port <= (endPort ?? port)
  })
}

function selects(
  { matchLabels = {}, matchExpressions = [] }: LabelSelector,
  labels: Readonly<Record<string, string>>,
): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key]
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value)
        case 'NotIn':
          return value === undefined || !values.includes(value)
        case 'Exists':
          return value !== undefined
        default:
          return value === undefined
      }
    })
  )
}

function inside(address: string, cidr: string): boolean {
  const [base = '', prefix = ''] = cidr.split('/')
  const family = cidr.includes(':') ? 'ipv6' : 'ipv4'
  if (isIPv6(address) !== (family === 'ipv6')) return false
  const list = new BlockList()
  list.addSubnet(base, Number(prefix), family)
  return list.check(address, family)
}
