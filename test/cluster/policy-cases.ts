import type { NetworkPolicySpec } from '#api/gen/networking-v1.ts'
import type { Protocol } from './probers.ts'

/** The world of the matrix: namespaces x, y and z, pods a, b and c in each, three ports of each protocol. */
export const namespaceNames = ['x', 'y', 'z'] as const
export const podNames = ['a', 'b', 'c'] as const
export const ports = [80, 81, 8080] as const
export const protocols = ['tcp', 'udp', 'sctp'] as const

export interface Ask {
  /** `x/a`. */
  readonly from: string
  readonly to: string
  readonly protocol: Protocol
  readonly port: number
  readonly family: 4 | 6
}

export interface Case {
  readonly title: string
  readonly policies: readonly { readonly namespace: string; readonly spec: NetworkPolicySpec }[]
  /** What is to be allowed, said of each ask by itself. */
  readonly allowed: (ask: Ask) => boolean
}

/** Addresses are known only once the pods are there. */
export type AddressOf = (pod: string, family: 4 | 6) => string

type Ingress = NonNullable<NetworkPolicySpec['ingress']>
type Egress = NonNullable<NetworkPolicySpec['egress']>
const one = (namespace: string, spec: NetworkPolicySpec) => [{ namespace, spec }]
const pod = (name: string) => ({ matchLabels: { pod: name } })
const ns = (name: string) => ({ matchLabels: { ns: name } })
const all = {}
const ingress = (podSelector: object, rules: Ingress): NetworkPolicySpec => ({
  podSelector,
  policyTypes: ['Ingress'],
  ingress: rules,
})
const egress = (podSelector: object, rules: Egress): NetworkPolicySpec => ({
  podSelector,
  policyTypes: ['Egress'],
  egress: rules,
})
const namespaceOf = (name: string): string => name.slice(0, 1)
const podOf = (name: string): string => name.slice(2)
const upper = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' } as const

/** Everything may, but what `to` or `from` is isolated from. */
const into = (isIsolated: (name: string) => boolean, allow: (ask: Ask) => boolean) => (ask: Ask) =>
  !isIsolated(ask.to) || allow(ask)
const outOf = (isIsolated: (name: string) => boolean, allow: (ask: Ask) => boolean) => (ask: Ask) =>
  !isIsolated(ask.from) || allow(ask)
const in_ = (namespace: string) => (name: string) => namespaceOf(name) === namespace
const is = (name: string) => (other: string) => other === name
const never = () => false
const always = () => true

function sections(): Case[] {
  return namespaceNames.flatMap((n): Case[] => [
    {
      title: `${n}: default deny in`,
      policies: one(n, { podSelector: all, policyTypes: ['Ingress'] }),
      allowed: into(in_(n), never),
    },
    {
      title: `${n}: default deny out`,
      policies: one(n, { podSelector: all, policyTypes: ['Egress'] }),
      allowed: outOf(in_(n), never),
    },
    {
      title: `${n}: default deny both ways`,
      policies: one(n, { podSelector: all, policyTypes: ['Ingress', 'Egress'] }),
      allowed: ({ from, to }) => namespaceOf(from) !== n && namespaceOf(to) !== n,
    },
    {
      title: `${n}: P15 no policyTypes, no sections: isolated in only`,
      policies: one(n, { podSelector: all }),
      allowed: into(in_(n), never),
    },
    {
      title: `${n}: P15 no policyTypes but egress: isolated both ways`,
      policies: one(n, { podSelector: all, egress: [{}] }),
      allowed: into(in_(n), never),
    },
    { title: `${n}: P15 an empty rule allows everyone in`, policies: one(n, ingress(all, [{}])), allowed: always },
    { title: `${n}: P15 an empty rule allows everything out`, policies: one(n, egress(all, [{}])), allowed: always },
    {
      title: `${n}: P15 from: [] and ports: [] are as if missing`,
      policies: one(n, ingress(all, [{ from: [], ports: [] }])),
      allowed: always,
    },
    { title: `${n}: P15 ingress: [] allows nobody`, policies: one(n, ingress(all, [])), allowed: into(in_(n), never) },
    {
      title: `${n}: P15 egress rules under policyTypes Ingress say nothing`,
      policies: one(n, { podSelector: all, policyTypes: ['Ingress'], egress: [], ingress: [{}] }),
      allowed: always,
    },
  ])
}

function selectors(): Case[] {
  const byPod = podNames.flatMap((target) =>
    podNames.map(
      (source): Case => ({
        title: `x/${target}: from pods ${source} of its own namespace`,
        policies: one('x', ingress(pod(target), [{ from: [{ podSelector: pod(source) }] }])),
        allowed: into(is(`x/${target}`), ({ from }) => from === `x/${source}`),
      }),
    ),
  )
  const toPod = podNames.map(
    (target): Case => ({
      title: `x: out to pods ${target} of its own namespace`,
      policies: one('x', egress(all, [{ to: [{ podSelector: pod(target) }] }])),
      allowed: outOf(in_('x'), ({ to }) => to === `x/${target}`),
    }),
  )
  const byNamespace = namespaceNames.flatMap((source): Case[] => [
    {
      title: `x/a: from namespace ${source}`,
      policies: one('x', ingress(pod('a'), [{ from: [{ namespaceSelector: ns(source) }] }])),
      allowed: into(is('x/a'), ({ from }) => namespaceOf(from) === source),
    },
    {
      title: `x/a: from namespace ${source} by its name's own label`,
      policies: one(
        'x',
        ingress(pod('a'), [
          { from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': source } } }] },
        ]),
      ),
      allowed: into(is('x/a'), ({ from }) => namespaceOf(from) === source),
    },
    {
      title: `x/a: out to namespace ${source}`,
      policies: one('x', egress(pod('a'), [{ to: [{ namespaceSelector: ns(source) }] }])),
      allowed: outOf(is('x/a'), ({ to }) => namespaceOf(to) === source),
    },
    {
      title: `x/a: P16 from pods b in namespace ${source} (both in one element)`,
      policies: one('x', ingress(pod('a'), [{ from: [{ namespaceSelector: ns(source), podSelector: pod('b') }] }])),
      allowed: into(is('x/a'), ({ from }) => from === `${source}/b`),
    },
    {
      title: `x/a: P16 from namespace ${source} or pods b of its own (two elements)`,
      policies: one('x', ingress(pod('a'), [{ from: [{ namespaceSelector: ns(source) }, { podSelector: pod('b') }] }])),
      allowed: into(is('x/a'), ({ from }) => namespaceOf(from) === source || from === 'x/b'),
    },
  ])
  const expressions: readonly [string, object, (value: string) => boolean][] = [
    ['In', { key: 'K', operator: 'In', values: ['1', '2'] }, (v) => v === '1' || v === '2'],
    ['NotIn', { key: 'K', operator: 'NotIn', values: ['1'] }, (v) => v !== '1'],
    ['Exists', { key: 'K', operator: 'Exists' }, always],
    ['DoesNotExist', { key: 'K', operator: 'DoesNotExist' }, never],
  ]
  const value = (name: string, list: readonly string[]): string => String(list.indexOf(name) + 1)
  const byExpression = expressions.flatMap(([word, expression, holds]): Case[] => {
    const at = (key: string) => ({ matchExpressions: [{ ...expression, key }] }) as object
    return [
      {
        title: `y/b: from pods by ${word}`,
        policies: one('y', ingress(pod('b'), [{ from: [{ namespaceSelector: all, podSelector: at('index') }] }])),
        allowed: into(is('y/b'), ({ from }) => holds(value(podOf(from), podNames))),
      },
      {
        title: `y/b: from namespaces by ${word}`,
        policies: one('y', ingress(pod('b'), [{ from: [{ namespaceSelector: at('index') }] }])),
        allowed: into(is('y/b'), ({ from }) => holds(value(namespaceOf(from), namespaceNames))),
      },
      {
        title: `y: which pods it is for, by ${word}`,
        policies: one('y', ingress(at('index'), [])),
        allowed: into((name) => namespaceOf(name) === 'y' && holds(value(podOf(name), podNames)), never),
      },
    ]
  })
  return [
    ...byPod,
    ...toPod,
    ...byNamespace,
    ...byExpression,
    {
      title: 'x/a: podSelector {} is its own namespace',
      policies: one('x', ingress(pod('a'), [{ from: [{ podSelector: all }] }])),
      allowed: into(is('x/a'), ({ from }) => namespaceOf(from) === 'x'),
    },
    {
      title: 'x/a: namespaceSelector {} is every pod',
      policies: one('x', ingress(pod('a'), [{ from: [{ namespaceSelector: all }] }])),
      allowed: always,
    },
  ]
}

function portCases(): Case[] {
  return protocols.flatMap((protocol): Case[] => [
    ...ports.flatMap((port): Case[] => [
      {
        title: `x/a: in on ${port}/${protocol}`,
        policies: one('x', ingress(pod('a'), [{ ports: [{ protocol: upper[protocol], port }] }])),
        allowed: into(is('x/a'), (ask) => ask.protocol === protocol && ask.port === port),
      },
      {
        title: `x/a: P9 in on the port named p-${port}-${protocol}`,
        policies: one(
          'x',
          ingress(pod('a'), [{ ports: [{ protocol: upper[protocol], port: `p-${port}-${protocol}` }] }]),
        ),
        allowed: into(is('x/a'), (ask) => ask.protocol === protocol && ask.port === port),
      },
      {
        title: `x/a: P9 out to the port named p-${port}-${protocol}`,
        policies: one(
          'x',
          egress(pod('a'), [{ ports: [{ protocol: upper[protocol], port: `p-${port}-${protocol}` }] }]),
        ),
        allowed: outOf(is('x/a'), (ask) => ask.protocol === protocol && ask.port === port),
      },
      {
        title: `x/a: out to ${port}/${protocol} in namespace y`,
        policies: one(
          'x',
          egress(pod('a'), [{ to: [{ namespaceSelector: ns('y') }], ports: [{ protocol: upper[protocol], port }] }]),
        ),
        allowed: outOf(
          is('x/a'),
          (ask) => namespaceOf(ask.to) === 'y' && ask.protocol === protocol && ask.port === port,
        ),
      },
    ]),
    {
      title: `x/a: every port of ${protocol}`,
      policies: one('x', ingress(pod('a'), [{ ports: [{ protocol: upper[protocol] }] }])),
      allowed: into(is('x/a'), (ask) => ask.protocol === protocol),
    },
    {
      title: `x/a: P10 ports 80 to 8079 of ${protocol}`,
      policies: one('x', ingress(pod('a'), [{ ports: [{ protocol: upper[protocol], port: 80, endPort: 8079 }] }])),
      allowed: into(is('x/a'), (ask) => ask.protocol === protocol && ask.port < 8080),
    },
    {
      title: `x/a: P10 out to ports 81 to 65535 of ${protocol}`,
      policies: one('x', egress(pod('a'), [{ ports: [{ protocol: upper[protocol], port: 81, endPort: 65535 }] }])),
      allowed: outOf(is('x/a'), (ask) => ask.protocol === protocol && ask.port >= 81),
    },
    {
      title: `x/a: P9 a name under another protocol than ${protocol} leads nowhere`,
      policies: one(
        'x',
        ingress(pod('a'), [{ ports: [{ protocol: protocol === 'tcp' ? 'UDP' : 'TCP', port: `p-80-${protocol}` }] }]),
      ),
      allowed: into(is('x/a'), never),
    },
  ])
}

function blocks(addressOf: AddressOf): Case[] {
  const cidr = (name: string, family: 4 | 6): string => `${addressOf(name, family)}/${family === 4 ? 32 : 128}`
  const families: readonly [4 | 6, string, string][] = [
    [4, '0.0.0.0/0', '10.244.0.0/16'],
    [6, '::/0', 'fd00:10:244::/56'],
  ]
  return families.flatMap(([family, everything, podNetwork]): Case[] => {
    const block = (ipBlock: { cidr: string; except?: string[] }): Ingress => [{ from: [{ ipBlock }] }]
    const outBlock = (ipBlock: { cidr: string; except?: string[] }): Egress => [{ to: [{ ipBlock }] }]
    return [
      {
        title: `x/a: P6 ipBlock matches a pod by its address, IPv${family}`,
        policies: one('x', ingress(pod('a'), block({ cidr: cidr('y/b', family) }))),
        allowed: into(is('x/a'), (ask) => ask.family === family && ask.from === 'y/b'),
      },
      {
        title: `x/a: P6 out to an ipBlock that is a pod, IPv${family}`,
        policies: one('x', egress(pod('a'), outBlock({ cidr: cidr('y/b', family) }))),
        allowed: outOf(is('x/a'), (ask) => ask.family === family && ask.to === 'y/b'),
      },
      {
        title: `x/a: P7 ${everything} opens IPv${family} only`,
        policies: one('x', ingress(pod('a'), block({ cidr: everything }))),
        allowed: into(is('x/a'), (ask) => ask.family === family),
      },
      {
        title: `x/a: P7 ${everything} but ${podNetwork}`,
        policies: one('x', ingress(pod('a'), block({ cidr: everything, except: [podNetwork] }))),
        allowed: into(is('x/a'), never),
      },
      {
        title: `x/a: P7 an exception is its rule's own: another may allow it, IPv${family}`,
        policies: one(
          'x',
          ingress(pod('a'), [
            ...block({ cidr: podNetwork, except: [cidr('y/b', family), cidr('z/c', family)] }),
            ...block({ cidr: cidr('z/c', family) }),
          ]),
        ),
        allowed: into(is('x/a'), (ask) => ask.family === family && ask.from !== 'y/b'),
      },
      {
        title: `x/a: out to ${podNetwork} but x/b, IPv${family}`,
        policies: one('x', egress(pod('a'), outBlock({ cidr: podNetwork, except: [cidr('x/b', family)] }))),
        allowed: outOf(is('x/a'), (ask) => ask.family === family && ask.to !== 'x/b'),
      },
    ]
  })
}

function together(): Case[] {
  const denyIn: Case['policies'][number] = { namespace: 'x', spec: { podSelector: all, policyTypes: ['Ingress'] } }
  return [
    {
      title: 'policies of one pod add up',
      policies: [
        { namespace: 'x', spec: ingress(pod('a'), [{ from: [{ podSelector: pod('b') }] }]) },
        {
          namespace: 'x',
          spec: ingress(pod('a'), [{ from: [{ namespaceSelector: ns('y') }], ports: [{ protocol: 'TCP', port: 80 }] }]),
        },
      ],
      allowed: into(
        is('x/a'),
        ({ from, protocol, port }) =>
          from === 'x/b' || (namespaceOf(from) === 'y' && protocol === 'tcp' && port === 80),
      ),
    },
    {
      title: 'peers and ports of one rule go together, those of two do not mix',
      policies: one(
        'x',
        ingress(pod('a'), [
          { from: [{ podSelector: pod('b') }], ports: [{ protocol: 'TCP', port: 80 }] },
          { from: [{ podSelector: pod('c') }], ports: [{ protocol: 'UDP', port: 81 }] },
        ]),
      ),
      allowed: into(is('x/a'), ({ from, protocol, port }) =>
        from === 'x/b' ? protocol === 'tcp' && port === 80 : from === 'x/c' && protocol === 'udp' && port === 81,
      ),
    },
    {
      title: 'both ends must agree: out of x/a to y, into y from z only',
      policies: [
        { namespace: 'x', spec: egress(pod('a'), [{ to: [{ namespaceSelector: ns('y') }] }]) },
        { namespace: 'y', spec: ingress(all, [{ from: [{ namespaceSelector: ns('z') }] }]) },
      ],
      allowed: ({ from, to }) =>
        (from !== 'x/a' || namespaceOf(to) === 'y') && (namespaceOf(to) !== 'y' || namespaceOf(from) === 'z'),
    },
    {
      title: 'deny all in, then one is let in',
      policies: [denyIn, { namespace: 'x', spec: ingress(pod('b'), [{ from: [{ podSelector: pod('a') }] }]) }],
      allowed: into(in_('x'), ({ from, to }) => from === 'x/a' && to === 'x/b'),
    },
    {
      title: 'deny all in of every namespace',
      policies: namespaceNames.map((namespace) => ({
        namespace,
        spec: { podSelector: all, policyTypes: ['Ingress' as const] },
      })),
      allowed: never,
    },
    {
      title: 'P4 a policy that selects no pod isolates none',
      policies: one('x', ingress({ matchLabels: { pod: 'nobody' } }, [])),
      allowed: always,
    },
    { title: 'no policy', policies: [], allowed: always },
  ]
}

export const casesOf = (addressOf: AddressOf): readonly Case[] => [
  ...sections(),
  ...selectors(),
  ...portCases(),
  ...blocks(addressOf),
  ...together(),
]
