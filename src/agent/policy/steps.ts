import fc from 'fast-check'

/** For tests only: what may happen in a cluster of two namespaces, at random. */

const keys = ['app', 'tier'] as const
const labelsArb = fc.dictionary(fc.constantFrom(...keys), fc.constantFrom('a', 'b'), { maxKeys: 2 })
const selectorArb = fc.oneof(
  { weight: 3, arbitrary: labelsArb.map((matchLabels) => ({ matchLabels })) },
  fc
    .record({ key: fc.constantFrom(...keys), operator: fc.constantFrom('In', 'NotIn') })
    .map((e) => ({ matchExpressions: [{ ...e, values: ['a'] }] })),
  fc
    .record({ key: fc.constantFrom(...keys), operator: fc.constantFrom('Exists', 'DoesNotExist') })
    .map((e) => ({ matchExpressions: [e] })),
)
const blocks = [
  { cidr: '0.0.0.0/0' },
  { cidr: '0.0.0.0/0', except: ['10.0.0.0/16'] },
  { cidr: '10.0.0.0/16', except: ['10.0.1.0/24'] },
  { cidr: '10.0.0.0/24', except: ['10.0.0.2/32'] },
  { cidr: '10.0.0.2/32' },
  { cidr: '192.0.2.0/24', except: ['192.0.2.128/25'] },
  { cidr: '192.0.2.192/26' },
  { cidr: '::/0', except: ['fd00::/64'] },
  { cidr: 'fd00::/16' },
]
const peerArb = fc.oneof(
  fc.record({ podSelector: selectorArb }),
  fc.record({ namespaceSelector: selectorArb }),
  fc.record({ namespaceSelector: selectorArb, podSelector: selectorArb }),
  fc.constantFrom(...blocks).map((ipBlock) => ({ ipBlock })),
)
const protocolArb = fc.constantFrom('TCP', 'UDP', 'SCTP', undefined)
const portArb = fc.oneof(
  fc.record({ protocol: protocolArb }),
  fc.record({ protocol: protocolArb, port: fc.constantFrom(80, 53, 8080) }),
  fc.record({ protocol: protocolArb, port: fc.constantFrom('web', 'dns') }),
  fc.record({ protocol: protocolArb, port: fc.constant(70), endPort: fc.constantFrom(79, 80, 81, 9000) }),
)
const peersArb = fc.option(fc.array(peerArb, { maxLength: 2 }), { nil: undefined })
const portsArb = fc.option(fc.array(portArb, { maxLength: 2 }), { nil: undefined })
const specArb = fc.record(
  {
    podSelector: selectorArb,
    ingress: fc.array(fc.record({ from: peersArb, ports: portsArb }), { maxLength: 2 }),
    egress: fc.array(fc.record({ to: peersArb, ports: portsArb }), { maxLength: 2 }),
    policyTypes: fc.constantFrom(['Ingress'], ['Egress'], ['Ingress', 'Egress'], []),
  },
  { requiredKeys: ['podSelector'] },
)
/** Ports that pods have names for. */
export const portSets = [
  [],
  [{ name: 'web', number: 80, protocol: 'TCP' }],
  [
    { name: 'web', number: 8080, protocol: 'TCP' },
    { name: 'dns', number: 53, protocol: 'UDP' },
  ],
  [{ name: 'web', number: 80, protocol: 'UDP' }],
] as const
const namespaceArb = fc.constantFrom('x', 'y')
/** Policies, pods and namespaces come, change and go; the agent restarts or sweeps. A pod's slot is its name and its node. */
export const stepArb = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('policy' as const),
      namespace: namespaceArb,
      name: fc.constantFrom('p', 'q', 'r'),
      spec: fc.option(specArb, { nil: undefined, freq: 5 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('pod' as const),
      slot: fc.nat(4),
      namespace: namespaceArb,
      labels: labelsArb,
      ports: fc.constantFrom(...portSets),
      // As a control plane that numbers at its leisure, wrongly or not at all would: what a set says must not depend on it.
      identity: fc.constantFrom(undefined, 256, 257, 258),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('end' as const), slot: fc.nat(4) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('namespace' as const), namespace: namespaceArb, labels: labelsArb }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'sweep' as const }) },
)

/** The same, and labels of running pods. */
export const changeArb = fc.oneof(
  { weight: 3, arbitrary: stepArb },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('relabel' as const),
      slot: fc.nat(4),
      labels: labelsArb,
      identity: fc.constantFrom(undefined, 256, 257, 258),
    }),
  },
)
