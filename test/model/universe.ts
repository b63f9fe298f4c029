import fc from 'fast-check'
import type {
  EgressRule,
  IngressRule,
  IpBlock,
  Namespace,
  NetworkPolicy,
  Node,
  Peer,
  Pod,
  PolicyPort,
  ProtocolName,
  Selector,
  Service,
} from './cluster.ts'

/**
 * Small worlds, so that things meet: three nodes, three namespaces, a dozen pods, few labels and ports. Random objects of
 * a large world hardly ever have to do with each other.
 */

export const nodes: readonly Node[] = [1, 2, 3].map((i) => ({
  name: `node-${i}`,
  addresses: [`172.30.0.${10 + i}`, `fd00:172:30::${10 + i}`],
  podCidrs: [`10.244.${i}.0/24`, `fd00:10:244:${i}::/64`],
}))
export const ownNode = 'node-1'

export const namespaces: readonly Namespace[] = [
  { name: 'red', labels: { team: 'a', env: 'test' } },
  { name: 'green', labels: { team: 'b', env: 'test' } },
  { name: 'blue', labels: { team: 'a' } },
]

/** Addresses that no object of the cluster has. */
export const outside: Readonly<Record<4 | 6, readonly string[]>> = {
  4: ['172.30.0.1', '198.51.100.7', '203.0.113.9', '203.0.113.200'],
  6: ['fd00:172:30::1', '2001:db8::7', '2001:db8:1::9', '2001:db8:1::200'],
}
/** In the pods' networks, and no pod's: on this node, on another, on none. */
export const strangers: Readonly<Record<4 | 6, readonly string[]>> = {
  4: ['10.244.1.200', '10.244.2.99', '10.244.77.3'],
  6: ['fd00:10:244:1::200', 'fd00:10:244:2::99', 'fd00:10:244:77::3'],
}

/** Ports of containers, of rules and next to them. */
export const ports = [53, 80, 81, 443, 1023, 1024, 8079, 8080, 8081, 8088, 9000, 65535] as const

/** How many pods there may be on each node: the address is the slot's, so that an address is soon another pod's. */
export const slots: readonly { readonly node: string; readonly addresses: readonly [string, string] }[] = [
  ...[2, 3, 4, 5, 6].map((n) => slot(1, n)),
  ...[2, 3, 4].map((n) => slot(2, n)),
  slot(3, 2),
]

function slot(node: number, n: number): { readonly node: string; readonly addresses: readonly [string, string] } {
  return { node: `node-${node}`, addresses: [`10.244.${node}.${n}`, `fd00:10:244:${node}::${n}`] }
}

const appValues = ['web', 'db', 'api'] as const
const tierValues = ['front', 'back'] as const
const protocolNames: readonly ProtocolName[] = ['TCP', 'UDP', 'SCTP']

const labelsArbitrary = fc
  .record({ app: fc.constantFrom(...appValues), tier: fc.option(fc.constantFrom(...tierValues), { nil: undefined }) })
  .map(({ app, tier }) => ({ app, ...(tier === undefined ? {} : { tier }) }))

/** The name is the same, the port and protocol differ from pod to pod: what a named port is about. */
const containerPorts = fc.subarray(
  [
    { name: 'http', port: 80, protocol: 'TCP' },
    { name: 'http-alt', port: 8080, protocol: 'TCP' },
    { name: 'dns', port: 53, protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, protocol: 'TCP' },
    { name: 'signal', port: 9000, protocol: 'SCTP' },
  ] as const,
  { minLength: 0 },
)
const otherPorts = fc.subarray(
  [
    { name: 'http', port: 8080, protocol: 'TCP' },
    { name: 'dns', port: 8088, protocol: 'UDP' },
    { name: 'signal', port: 9000, protocol: 'TCP' },
  ] as const,
  { minLength: 1 },
)

/** What a pod is, but for its place. */
export const podArbitrary: fc.Arbitrary<Pick<Pod, 'namespace' | 'labels' | 'ports'>> = fc.record({
  namespace: fc.constantFrom(...namespaces.map((n) => n.name)),
  labels: labelsArbitrary,
  ports: fc.oneof({ weight: 3, arbitrary: containerPorts }, { weight: 1, arbitrary: otherPorts }),
})

const requirement = fc.oneof(
  fc.record({
    key: fc.constant('app'),
    operator: fc.constantFrom('In' as const, 'NotIn' as const),
    values: fc.subarray([...appValues], { minLength: 1 }),
  }),
  fc.record({
    key: fc.constantFrom('tier', 'app'),
    operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const),
  }),
)
const podSelector: fc.Arbitrary<Selector> = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  { weight: 3, arbitrary: fc.constantFrom(...appValues).map((app) => ({ matchLabels: { app } })) },
  { weight: 1, arbitrary: fc.constantFrom(...tierValues).map((tier) => ({ matchLabels: { tier } })) },
  {
    weight: 2,
    arbitrary: fc.array(requirement, { minLength: 1, maxLength: 2 }).map((matchExpressions) => ({ matchExpressions })),
  },
)
const namespaceSelector: fc.Arbitrary<Selector> = fc.constantFrom<Selector>(
  {},
  { matchLabels: { team: 'a' } },
  { matchLabels: { team: 'b' } },
  { matchExpressions: [{ key: 'env', operator: 'Exists' }] },
  { matchExpressions: [{ key: 'env', operator: 'NotIn', values: ['test'] }] },
)

/** Blocks whose edges lie between addresses of this world, pods' among them, with exceptions nested and overlapping. */
const blocks: readonly IpBlock[] = [
  { cidr: '0.0.0.0/0' },
  { cidr: '::/0' },
  { cidr: '203.0.113.0/24' },
  { cidr: '203.0.113.0/24', except: ['203.0.113.128/25'] },
  { cidr: '203.0.113.200/32' },
  { cidr: '0.0.0.0/0', except: ['10.244.0.0/16', '203.0.113.9/32'] },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/8', '172.16.0.0/12'] },
  { cidr: '10.244.1.0/29', except: ['10.244.1.4/31'] },
  { cidr: '10.244.2.0/24' },
  { cidr: '172.30.0.12/32' },
  { cidr: '172.30.0.0/24', except: ['172.30.0.1/32'] },
  { cidr: '2001:db8::/32', except: ['2001:db8:1::/48'] },
  { cidr: '::/0', except: ['fd00:10:244:1::/64'] },
  { cidr: 'fd00:10:244:2::/64' },
  { cidr: '2001:db8:1::200/128' },
]

const peerArbitrary: fc.Arbitrary<Peer> = fc.oneof(
  { weight: 3, arbitrary: podSelector.map((s) => ({ podSelector: s })) },
  { weight: 2, arbitrary: namespaceSelector.map((s) => ({ namespaceSelector: s })) },
  { weight: 2, arbitrary: fc.record({ podSelector, namespaceSelector }) },
  { weight: 3, arbitrary: fc.constantFrom(...blocks).map((ipBlock) => ({ ipBlock })) },
)

const portArbitrary: fc.Arbitrary<PolicyPort> = fc.oneof(
  { weight: 1, arbitrary: fc.constant({}) },
  { weight: 1, arbitrary: fc.constantFrom(...protocolNames).map((protocol) => ({ protocol })) },
  {
    weight: 4,
    arbitrary: fc.record({ protocol: fc.constantFrom(...protocolNames), port: fc.constantFrom(...ports) }),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        protocol: fc.constantFrom(...protocolNames),
        port: fc.constantFrom(1, 80, 1023, 8079, 8080, 32768),
        more: fc.constantFrom(0, 1, 2, 9, 944, 32767),
      })
      .map(({ protocol, port, more }) => ({ protocol, port, endPort: port + more })),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      protocol: fc.constantFrom(...protocolNames),
      port: fc.constantFrom('http', 'dns', 'signal', 'no-such'),
    }),
  },
)

/** A Service but for its endpoints, which are whatever pods there are when it is applied. Its number makes its addresses. */
export type ServiceKind = Omit<Service, 'endpoints' | 'name' | 'clusterIPs' | 'ingressIPs' | 'externalIPs'> & {
  readonly hasIngress: boolean
  readonly hasExternal: boolean
  readonly targets: readonly number[]
}

export const serviceArbitrary: fc.Arbitrary<ServiceKind> = fc
  .record({
    namespace: fc.constantFrom(...namespaces.map((n) => n.name)),
    type: fc.constantFrom('ClusterIP' as const, 'NodePort' as const, 'LoadBalancer' as const),
    externalLocal: fc.constantFrom(true, false, false),
    hasExternal: fc.constantFrom(true, false, false),
    isGuarded: fc.boolean(),
    internalLocal: fc.constantFrom(true, false, false, false),
    affinitySeconds: fc.constantFrom(undefined, 60),
    sourceRanges: fc.constantFrom(undefined, undefined, ['203.0.113.0/25', '2001:db8:1::/48'], ['172.30.0.0/24']),
    protocols: fc.subarray<ProtocolName>(['TCP', 'UDP', 'SCTP'], { minLength: 1 }),
    ports: fc.subarray([53, 80, 443], { minLength: 1, maxLength: 2 }),
    targets: fc.tuple(fc.constantFrom(53, 80, 8080, 9000), fc.constantFrom(80, 8080)),
  })
  .map(
    ({
      namespace,
      protocols,
      ports: list,
      affinitySeconds,
      sourceRanges,
      targets,
      type,
      hasExternal,
      isGuarded,
      ...local
    }) => ({
      hasExternal,
      ...(hasExternal && isGuarded ? { isExternalGuarded: true as const } : {}),
      namespace,
      type,
      ...(local.externalLocal && type !== 'ClusterIP' ? { externalTrafficPolicy: 'Local' as const } : {}),
      ...(local.internalLocal ? { internalTrafficPolicy: 'Local' as const } : {}),
      ...(affinitySeconds === undefined ? {} : { affinitySeconds }),
      ...(sourceRanges === undefined || type !== 'LoadBalancer' ? {} : { sourceRanges }),
      ports: list.map((port, i) => ({ port, protocol: protocols[i % protocols.length] ?? 'TCP' })),
      hasIngress: type === 'LoadBalancer',
      targets,
    }),
  )

const sections = <T>(of: fc.Arbitrary<T>, lengthMax: number): fc.Arbitrary<readonly T[] | undefined> =>
  fc.option(fc.array(of, { maxLength: lengthMax }), { nil: undefined, freq: 4 })

const ruleArbitrary = fc.record({ peers: sections(peerArbitrary, 2), ports: sections(portArbitrary, 2) })

/** Every shape that a section may have: missing, empty, with an empty element. */
export const policyArbitrary: fc.Arbitrary<Omit<NetworkPolicy, 'name'>> = fc
  .record({
    namespace: fc.constantFrom(...namespaces.map((n) => n.name)),
    podSelector,
    types: fc.constantFrom<readonly ('Ingress' | 'Egress')[] | undefined>(
      undefined,
      ['Ingress'],
      ['Egress'],
      ['Ingress', 'Egress'],
    ),
    ingress: sections(ruleArbitrary, 3),
    egress: sections(ruleArbitrary, 3),
  })
  .map(({ namespace, podSelector: selector, types, ingress, egress }) => ({
    namespace,
    spec: {
      podSelector: selector,
      ...(types === undefined ? {} : { policyTypes: types }),
      ...(ingress === undefined ? {} : { ingress: ingress.map((r) => ({ ...rest(r.peers, 'from'), ...portsOf(r) })) }),
      ...(egress === undefined ? {} : { egress: egress.map((r) => ({ ...rest(r.peers, 'to'), ...portsOf(r) })) }),
    },
  }))

type Peers = readonly Peer[] | undefined
function rest(peers: Peers, key: 'from'): IngressRule
function rest(peers: Peers, key: 'to'): EgressRule
function rest(peers: Peers, key: 'from' | 'to'): IngressRule | EgressRule {
  return peers === undefined ? {} : { [key]: peers }
}
const portsOf = ({ ports: list }: { readonly ports: readonly PolicyPort[] | undefined }) =>
  list === undefined ? {} : { ports: list }
