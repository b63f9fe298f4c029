import fc from 'fast-check'
import type { ProtocolName, Service } from '../cluster.ts'
import { type Place, type Protocol, places } from './sockets-rules.ts'
import { own } from './sockets-world.ts'

/** Pods that may stand behind a Service: two on this node, two elsewhere, one on the node's network, and one that asks itself. */
export const pool: readonly { readonly node: string; readonly addresses: readonly string[] }[] = [
  { node: 'node-1', addresses: ['10.244.1.11', 'fd00:10:244:1::11'] },
  { node: 'node-1', addresses: ['10.244.1.12', 'fd00:10:244:1::12'] },
  { node: 'node-2', addresses: ['10.244.2.11', 'fd00:10:244:2::11'] },
  { node: 'node-2', addresses: ['10.244.2.12', 'fd00:10:244:2::12'] },
  { node: 'node-1', addresses: own },
  { node: 'node-1', addresses: ['10.244.1.2', 'fd00:10:244:1::2'] },
]
const serviceCount = 2

export interface Standing {
  readonly pod: number
  readonly target: number
  readonly state: 'ready' | 'going' | 'gone' | 'not ready'
  readonly zones: readonly string[]
}
export type Standings = readonly Standing[]

export interface Kind {
  readonly type: Service['type'] | 'headless'
  readonly families: readonly (4 | 6)[]
  readonly ports: readonly { readonly port: number; readonly protocol: ProtocolName }[]
  readonly externalLocal: boolean
  readonly internalLocal: boolean
  readonly hasAffinity: boolean
  readonly external: 'none' | 'guarded' | 'open'
  /** Protocols of one more node port, at which nobody listens: for sockets that would. */
  readonly taken: readonly Protocol[]
}

/** Where a socket wants to go, by the number of a Service whether it is there or not. */
export type Target =
  | { readonly to: 'cluster' | 'balancer' | 'external'; readonly service: number; readonly port: number }
  | {
      readonly to: 'own' | 'other' | 'loopback'
      readonly service: number
      readonly port: number
      readonly word: number
    }
  | { readonly to: 'host port'; readonly slot: number; readonly word: number }
  | { readonly to: 'pod'; readonly pod: number; readonly target: number }
  | { readonly to: 'nobody' }

export type Word = 'IPv4' | 'IPv6' | 'mapped'

export type Step =
  | { readonly do: 'apply'; readonly service: number; readonly kind: Kind; readonly standings: Standings }
  | { readonly do: 'endpoints'; readonly service: number; readonly standings: Standings }
  | { readonly do: 'delete'; readonly service: number }
  | { readonly do: 'host port'; readonly slot: number; readonly hostIP: string; readonly protocol: Protocol }
  | {
      readonly do: 'bind'
      readonly place: Place
      readonly service: number
      readonly at: string
      readonly protocol: Protocol
    }
  | { readonly do: 'TCP'; readonly place: Place; readonly word: Word; readonly target: Target }
  | {
      readonly do: 'UDP'
      readonly place: Place
      readonly word: Word
      /** `direct`: to whom it reached last, by the peer's own address. */
      readonly what: 'send' | 'direct' | 'connect' | 'again' | 'disconnect'
      readonly target: Target
    }

/** Mostly one, so that the same peer is met by several names. */
const targetPort = fc.constantFrom(8080, 8080, 8080, 9090)

const standings: fc.Arbitrary<Standings> = fc.uniqueArray(
  fc.record({
    pod: fc.nat({ max: pool.length - 1 }),
    target: targetPort,
    state: fc.constantFrom(
      'ready' as const,
      'ready' as const,
      'ready' as const,
      'going' as const,
      'gone' as const,
      'not ready' as const,
    ),
    zones: fc.constantFrom<string[]>([], ['a'], ['b'], ['a', 'b']),
  }),
  { selector: (s) => s.pod, maxLength: 4, size: 'max' },
)

/** Hints are heeded only where all have them. */
const standingsOfAll = fc
  .tuple(standings, fc.boolean())
  .map(([all, hasHints]) => (hasHints ? all : all.map((s) => ({ ...s, zones: [] }))))

const asks = (...texts: readonly `${number}/${Protocol}`[]): Kind['ports'] =>
  texts.map((text) => ({ port: Number(text.split('/')[0]), protocol: text.endsWith('TCP') ? 'TCP' : 'UDP' }))

const kind: fc.Arbitrary<Kind> = fc.record({
  type: fc.constantFrom(
    'ClusterIP' as const,
    'NodePort' as const,
    'NodePort' as const,
    'NodePort' as const,
    'LoadBalancer' as const,
    'LoadBalancer' as const,
    'headless' as const,
  ),
  families: fc.constantFrom<(4 | 6)[]>([4], [6], [4, 6], [4, 6], [6, 4], [6, 4]),
  ports: fc.constantFrom(
    asks('80/TCP'),
    asks('80/UDP', '443/TCP'),
    asks('80/TCP', '80/UDP'),
    asks('80/TCP', '443/TCP', '443/UDP'),
    asks('80/TCP', '80/UDP', '443/TCP', '443/UDP'),
    asks('80/TCP', '80/UDP', '443/TCP', '443/UDP'),
  ),
  externalLocal: fc.boolean(),
  internalLocal: fc.constantFrom(true, false, false),
  hasAffinity: fc.constantFrom(true, true, false),
  external: fc.constantFrom('none' as const, 'guarded' as const, 'open' as const),
  taken: fc.subarray<Protocol>(['TCP', 'UDP']),
})

const service = fc.nat({ max: serviceCount - 1 })
/** Of `ports.service`, and one that no Service has. */
const port = fc.constantFrom(0, 0, 0, 0, 1, 1, 2)
const word = fc.nat({ max: 2 })

const target: fc.Arbitrary<Target> = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.record({
      to: fc.constantFrom(
        'cluster' as const,
        'cluster' as const,
        'cluster' as const,
        'balancer' as const,
        'external' as const,
      ),
      service,
      port,
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      to: fc.constantFrom('own' as const, 'other' as const, 'loopback' as const, 'loopback' as const),
      service,
      port,
      word,
    }),
  },
  { weight: 3, arbitrary: fc.record({ to: fc.constant('host port' as const), slot: fc.nat({ max: 1 }), word }) },
  {
    weight: 4,
    arbitrary: fc.record({
      to: fc.constant('pod' as const),
      pod: fc.nat({ max: pool.length - 1 }),
      target: targetPort,
    }),
  },
  { weight: 1, arbitrary: fc.constant({ to: 'nobody' as const }) },
)

const place = fc.constantFrom(...places, 'node' as const)
const familyWord = fc.constantFrom('IPv4' as const, 'IPv6' as const, 'mapped' as const)

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ do: fc.constant('apply' as const), service, kind, standings: standingsOfAll }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('endpoints' as const), service, standings: standingsOfAll }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delete' as const), service }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('host port' as const),
      slot: fc.nat({ max: 1 }),
      hostIP: fc.constantFrom<string>('', '', '0.0.0.0', '::', '127.0.0.1', '::1', '172.30.0.11', 'none'),
      protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('bind' as const),
      place,
      service,
      at: fc.constantFrom('0.0.0.0', '::', '127.0.0.1', '::1', ...own),
      protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
    }),
  },
  { weight: 24, arbitrary: fc.record({ do: fc.constant('TCP' as const), place, word: familyWord, target }) },
  {
    weight: 26,
    arbitrary: fc.record({
      do: fc.constant('UDP' as const),
      place,
      word: familyWord,
      what: fc.constantFrom(
        'send' as const,
        'send' as const,
        'send' as const,
        'connect' as const,
        'connect' as const,
        'direct' as const,
        'again' as const,
        'disconnect' as const,
      ),
      target,
    }),
  },
)

export interface History {
  readonly services: readonly { readonly kind: Kind; readonly standings: Standings }[]
  readonly steps: readonly Step[]
}

export const historyArbitrary = (steps: number): fc.Arbitrary<History> =>
  fc.record({
    services: fc.array(fc.record({ kind, standings: standingsOfAll }), {
      minLength: serviceCount,
      maxLength: serviceCount,
    }),
    steps: fc.array(step, { minLength: 1, maxLength: steps, size: 'max' }),
  })
