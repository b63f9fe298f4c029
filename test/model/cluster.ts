/** A cluster as its API objects say it is: nothing compiled, nothing numbered. */

export type Labels = Readonly<Record<string, string>>

export interface Requirement {
  readonly key: string
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'
  readonly values?: readonly string[]
}

export interface Selector {
  readonly matchLabels?: Labels
  readonly matchExpressions?: readonly Requirement[]
}

export type ProtocolName = 'TCP' | 'UDP' | 'SCTP'
export const protocolNumbers = { TCP: 6, UDP: 17, SCTP: 132 } as const satisfies Record<ProtocolName, number>

export interface Namespace {
  readonly name: string
  readonly labels: Labels
}

export interface ContainerPort {
  readonly name: string
  readonly port: number
  readonly protocol: ProtocolName
}

export interface Pod {
  readonly namespace: string
  readonly name: string
  readonly labels: Labels
  readonly node: string
  /** One of each family at most. A pod on its node's network has its node's. */
  readonly addresses: readonly string[]
  readonly ports: readonly ContainerPort[]
  readonly hostNetwork?: boolean
  /** Its node does not know yet which policies guard it: nothing is allowed until it does. */
  readonly unready?: boolean
}

export interface Node {
  readonly name: string
  readonly addresses: readonly string[]
  readonly podCidrs: readonly string[]
}

/** networking.k8s.io/v1, as far as it says who may talk to whom. */
export interface PolicyPort {
  readonly protocol?: ProtocolName
  readonly port?: number | string
  readonly endPort?: number
}
export interface IpBlock {
  readonly cidr: string
  readonly except?: readonly string[]
}
export interface Peer {
  readonly podSelector?: Selector
  readonly namespaceSelector?: Selector
  readonly ipBlock?: IpBlock
}
export interface IngressRule {
  readonly from?: readonly Peer[]
  readonly ports?: readonly PolicyPort[]
}
export interface EgressRule {
  readonly to?: readonly Peer[]
  readonly ports?: readonly PolicyPort[]
}
export interface NetworkPolicy {
  readonly namespace: string
  readonly name: string
  readonly spec: {
    readonly podSelector: Selector
    readonly policyTypes?: readonly ('Ingress' | 'Egress')[]
    readonly ingress?: readonly IngressRule[]
    readonly egress?: readonly EgressRule[]
  }
}

export interface ServicePort {
  readonly port: number
  readonly protocol: ProtocolName
  readonly nodePort?: number
}

/** Where a Service's port is answered, as EndpointSlices say it. */
export interface Endpoint {
  readonly address: string
  readonly port: number
  readonly node: string
  readonly ready: boolean
  readonly serving: boolean
  readonly terminating: boolean
}

export interface Service {
  readonly namespace: string
  readonly name: string
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer'
  readonly clusterIPs: readonly string[]
  readonly externalIPs?: readonly string[]
  /** Nobody has given it these: pods that mean somebody else by them get past it (CVE-2020-8554). */
  readonly isExternalGuarded?: true
  /** Addresses of the load balancer. */
  readonly ingressIPs?: readonly string[]
  readonly ports: readonly ServicePort[]
  readonly externalTrafficPolicy?: 'Cluster' | 'Local'
  readonly internalTrafficPolicy?: 'Cluster' | 'Local'
  /** Session affinity by client address, for so many seconds without a packet. */
  readonly affinitySeconds?: number
  readonly sourceRanges?: readonly string[]
  /** By the Service's port; one of each family's endpoints or both. */
  readonly endpoints: Readonly<Record<number, readonly Endpoint[]>>
}

export interface Cluster {
  readonly namespaces: ReadonlyMap<string, Namespace>
  readonly nodes: ReadonlyMap<string, Node>
  /** By `namespace/name`. */
  readonly pods: ReadonlyMap<string, Pod>
  readonly policies: ReadonlyMap<string, NetworkPolicy>
  readonly services: ReadonlyMap<string, Service>
  readonly podCidrs: readonly string[]
  readonly serviceCidrs: readonly string[]
  /** Packets between nodes' pods are wrapped, each with its sender's identity. */
  readonly isTunnelled?: boolean
}

export const nameOf = (object: { readonly namespace: string; readonly name: string }): string =>
  `${object.namespace}/${object.name}`

export function selects(selector: Selector, labels: Labels): boolean {
  const { matchLabels = {}, matchExpressions = [] } = selector
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every((requirement) => meets(requirement, labels))
  )
}

/** A label that is not there is not in any set: NotIn holds (meta/v1 LabelSelectorRequirement). */
function meets({ key, operator, values = [] }: Requirement, labels: Labels): boolean {
  const value = labels[key]
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value)
    case 'NotIn':
      return value === undefined || !values.includes(value)
    case 'Exists':
      return value !== undefined
    case 'DoesNotExist':
      return value === undefined
    default:
      return operator satisfies never
  }
}
