import fc from 'fast-check'
import { type Cluster, nameOf, type ProtocolName, type Service } from '../cluster.ts'
import { Socket, type SocketFamily } from './sockets-libc.ts'
import {
  type Answer,
  among,
  type End,
  endText,
  type HintedEndpoint,
  type HostPort,
  isUnspecified,
  mayBind,
  nameFor,
  type Place,
  type Protocol,
  places,
  plain,
  SocketRules,
  v4Prefix,
} from './sockets-rules.ts'
import { nodes, own, placeAddresses, podCidrs, ports, type SocketWorld, serviceCidrs, zone } from './sockets-world.ts'

/** Pods that may stand behind a Service: two on this node, two elsewhere, one on the node's network, and one that asks itself. */
const pool: readonly { readonly node: string; readonly addresses: readonly string[] }[] = [
  { node: 'node-1', addresses: ['10.244.1.11', 'fd00:10:244:1::11'] },
  { node: 'node-1', addresses: ['10.244.1.12', 'fd00:10:244:1::12'] },
  { node: 'node-2', addresses: ['10.244.2.11', 'fd00:10:244:2::11'] },
  { node: 'node-2', addresses: ['10.244.2.12', 'fd00:10:244:2::12'] },
  { node: 'node-1', addresses: own },
  { node: 'node-1', addresses: ['10.244.1.2', 'fd00:10:244:1::2'] },
]
const serviceCount = 2

interface Standing {
  readonly pod: number
  readonly target: number
  readonly state: 'ready' | 'going' | 'gone' | 'not ready'
  readonly zones: readonly string[]
}
type Standings = readonly Standing[]

interface Kind {
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
type Target =
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

type Word = 'IPv4' | 'IPv6' | 'mapped'

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

/** Kernel and rules disagree. */
export class Disagreement extends Error {}

/** A datagram socket that is kept, and what it should know. */
interface Kept {
  readonly socket: Socket
  /** Connected: to whom really, and by what name. */
  connected: { readonly backend: End; readonly name: End } | undefined
  /** Whom it reached last. */
  last: End | undefined
  /** By which name it last sent to a peer, by the peer's text. */
  readonly names: Map<string, End>
}

/** What one history has met, for the report of a run that met too little. */
export type Met = Map<string, number>

let histories = 0

/** Plays one history on the hooks and on the rules. Throws a `Disagreement` with the history as text. */
export class SocketDuel {
  /** Questions asked of the kernel. */
  asked = 0
  readonly #world: SocketWorld
  readonly #met: Met
  readonly #rules = new SocketRules()
  readonly #kept = new Map<string, Kept>()
  readonly #told: string[] = []
  readonly #services = new Map<string, Service>()
  readonly #kinds = new Map<number, Kind>()
  readonly #hostPorts = new Map<number, HostPort>()
  /** No history has a Service of another's name: the hooks remember clients by it. */
  readonly #number = ++histories

  constructor(world: SocketWorld, met: Met) {
    this.#world = world
    this.#met = met
  }

  play({ services, steps }: History): void {
    try {
      this.#world.write(this.#cluster, [])
      for (const [slot, protocol] of (['TCP', 'UDP'] as const).entries())
        this.#hostPort({ do: 'host port', slot, hostIP: '', protocol })
      for (const [i, { kind, standings: all }] of services.entries())
        this.#step({ do: 'apply', service: i, kind, standings: all })
      for (const one of steps) this.#step(one)
    } finally {
      for (const { socket } of this.#kept.values()) socket[Symbol.dispose]()
    }
  }

  get #cluster(): Cluster {
    return {
      namespaces: new Map(),
      nodes: new Map(nodes.map((n) => [n.name, n])),
      pods: new Map(),
      policies: new Map(),
      services: this.#services,
      podCidrs,
      serviceCidrs,
    }
  }

  #ask(at: Place, end: End, protocol: Protocol, took: End | undefined): Answer {
    const world = { cluster: this.#cluster, node: 'node-1', zone, own, hostPorts: [...this.#hostPorts.values()] }
    const none = { address: '', port: 0 }
    return this.#rules.ask(world, at, end, protocol, (right) => took ?? right[0] ?? none)
  }

  #meet(...keys: readonly string[]): void {
    for (const key of keys) this.#met.set(key, (this.#met.get(key) ?? 0) + 1)
  }

  #fail(what: string): never {
    throw new Disagreement(`${this.#told.join('\n')}\n  ${what}`)
  }

  #step(one: Step): void {
    if (one.do === 'TCP') this.#connect(one)
    else if (one.do === 'UDP') this.#datagram(one)
    else if (one.do === 'bind') this.#bind(one)
    else if (one.do === 'host port') this.#hostPort(one)
    else {
      if (one.do === 'apply') this.#kinds.set(one.service, one.kind)
      if (one.do === 'delete') this.#kinds.delete(one.service)
      this.#apply(one.service, one.do === 'delete' ? [] : one.standings)
    }
  }

  #apply(i: number, all: Standings): void {
    const found = this.#kinds.get(i)
    if (found === undefined && !this.#services.has(`shop/s${i}-${this.#number}`)) return
    const next = found === undefined ? undefined : serviceOf(`s${i}-${this.#number}`, i, found, all)
    const name = `shop/s${i}-${this.#number}`
    if (next === undefined) this.#services.delete(name)
    else this.#services.set(nameOf(next), next)
    this.#told.push(next === undefined ? `delete s${i}` : `apply ${JSON.stringify(next)}`)
    this.#write()
  }

  #hostPort({ slot, hostIP, protocol }: Step & { do: 'host port' }): void {
    if (hostIP === 'none') this.#hostPorts.delete(slot)
    else {
      const addresses = pool[slot]?.addresses ?? []
      this.#hostPorts.set(slot, {
        port: ports.host[slot] ?? 0,
        protocol,
        hostIP,
        pod: { addresses, port: ports.target[0] ?? 0 },
      })
    }
    this.#told.push(`host port ${ports.host[slot]}/${protocol} at ${hostIP === '' ? 'all addresses' : hostIP}`)
    this.#write()
  }

  #write(): void {
    this.#world.write(this.#cluster, [...this.#hostPorts.values()])
  }

  #bind({ place: at, service: i, at: address, protocol }: Step & { do: 'bind' }): void {
    // A pod has not the node's addresses.
    if (at !== 'node' && own.includes(address)) return
    const end = { address, port: nodePortOf(i, takenPort) }
    this.#told.push(`${at} binds ${endText(end)}/${protocol}`)
    const world = { cluster: this.#cluster, node: 'node-1', zone, own, hostPorts: [] }
    const expected = mayBind(world, at, end, protocol) ? undefined : 'EADDRINUSE'
    using socket = Socket.open(this.#world.at(at).namespace, { family: address.includes(':') ? 6 : 4, protocol })
    const got = socket.bind(end)
    this.asked++
    this.#meet(`bind: ${expected ?? 'taken'}`)
    if (got !== expected) this.#fail(`kernel: ${got ?? 'taken'}; rules: ${expected ?? 'taken'}`)
  }

  #connect({ place: at, word: w, target: to }: Step & { do: 'TCP' }): void {
    const end = endOf(to, w)
    this.#told.push(`${at} TCP ${endText(end)}`)
    const answering = this.#world.at(at)
    const socket = Socket.open(answering.namespace, { family: familyFor(w), protocol: 'TCP' })
    try {
      const error = socket.connect(end)
      const arrived = error === undefined ? answering.arrived('TCP') : undefined
      const answer = this.#judge(at, end, 'TCP', error, arrived)
      this.#meet(`TCP: ${answer.kind}`)
      if (arrived !== undefined) this.#compareName('getpeername', socket.peer, this.#nameOf(answer, end, arrived))
    } finally {
      socket.reset()
    }
  }

  #datagram({ place: at, word: w, what, target: to }: Step & { do: 'UDP' }): void {
    const key = `${at} ${w}`
    const answering = this.#world.at(at)
    const kept: Kept = this.#kept.get(key) ?? {
      socket: Socket.open(answering.namespace, { family: familyFor(w), protocol: 'UDP' }),
      connected: undefined,
      last: undefined,
      names: new Map(),
    }
    this.#kept.set(key, kept)
    const { socket, connected } = kept
    const end = what === 'direct' && kept.last !== undefined ? inWord(kept.last, w) : endOf(to, w)
    if (what === 'disconnect' || (what === 'again' && connected === undefined)) {
      this.#told.push(`${key} UDP disconnects`)
      if (connected !== undefined) this.#meet('UDP disconnect')
      this.#disconnect(key, kept)
      return
    }
    if (what === 'again') {
      this.#told.push(`${key} UDP sends again`)
      this.#sendConnected(at, kept)
      return
    }
    this.#told.push(`${key} UDP ${what} ${endText(end)}`)
    if (what === 'connect') {
      const error = socket.connect(end)
      kept.connected = undefined
      if (error !== undefined) {
        this.#judge(at, end, 'UDP', error, undefined)
        this.#meet('UDP connect: refused')
        // What the kernel leaves of the old peer is its affair.
        this.#disconnect(key, kept)
        return
      }
      const sent = socket.send()
      if (sent !== undefined) this.#fail(`kernel: connected, but ${sent} at sending`)
      const arrived = answering.arrived('UDP')
      const answer = this.#judge(at, end, 'UDP', undefined, arrived)
      const name = this.#nameOf(answer, end, arrived)
      kept.connected = { backend: arrived, name }
      kept.last = arrived
      this.#meet(`UDP connect: ${answer.kind}`)
      this.#compareName('recvmsg', socket.receive(), name)
      this.#compareName('getpeername', socket.peer, name)
      return
    }
    const error = socket.send(end)
    if (
      w === 'mapped' &&
      connected !== undefined &&
      endText(connected.backend) === endText({ ...end, address: plain(end.address) })
    ) {
      // To Linux that is the same as to send without an address: to the peer that it has.
      const arrived = error === undefined ? answering.arrived('UDP') : undefined
      this.asked++
      this.#meet('UDP to the peer by its own name')
      if (arrived === undefined || endText(arrived) !== endText(connected.backend))
        this.#fail(`kernel: ${error ?? endText(arrived ?? end)}; rules: ${endText(connected.backend)}, as before`)
      this.#compareName('recvmsg', socket.receive(), connected.name)
      return
    }
    // A connected socket hears its peer alone.
    const arrived = error === undefined ? answering.arrived('UDP', connected === undefined) : undefined
    const answer = this.#judge(at, end, 'UDP', error, arrived)
    this.#meet(`UDP send: ${answer.kind}`)
    if (arrived === undefined) return
    const name = this.#nameOf(answer, end, arrived)
    kept.last = arrived
    const old = kept.names.get(endText(arrived))
    if (old !== undefined && endText(old) !== endText(name)) this.#meet('another name for the same peer')
    kept.names.set(endText(arrived), name)
    if (connected === undefined) this.#compareName('recvmsg', socket.receive(), name)
    else this.#compareName('getpeername of a connected socket', socket.peer, connected.name)
  }

  /** An IPv6 socket goes on hearing nobody but its old peer (Linux does not forget sk_v6_daddr): that one is of no more use. */
  #disconnect(key: string, kept: Kept): void {
    kept.connected = undefined
    kept.socket.disconnect()
    if (kept.socket.family === 4) return
    kept.socket[Symbol.dispose]()
    this.#kept.delete(key)
  }

  /** To the peer that it has: whatever has become of the Service. */
  #sendConnected(at: Place, { socket, connected }: Kept): void {
    if (connected === undefined) return
    const error = socket.send()
    if (error !== undefined) this.#fail(`kernel: ${error} at sending to the peer it has`)
    const arrived = this.#world.at(at).arrived('UDP')
    this.asked++
    if (endText(arrived) !== endText(connected.backend))
      this.#fail(`kernel: ${endText(arrived)}; rules: ${endText(connected.backend)}, as before`)
    this.#meet('UDP again')
    this.#compareName('recvmsg', socket.receive(), connected.name)
    this.#compareName('getpeername', socket.peer, connected.name)
  }

  #judge(at: Place, end: End, protocol: Protocol, error: string | undefined, arrived: End | undefined): Answer {
    this.asked++
    const answer = this.#ask(at, end, protocol, arrived)
    this.#meet(...answer.marks)
    const kernel = error ?? (arrived === undefined ? 'nothing' : `to ${endText(arrived)}`)
    const direct = this.#direct(at, end)
    const isRight =
      answer.kind === 'refused'
        ? error === 'ECONNREFUSED'
        : arrived !== undefined && among(answer.kind === 'led' ? answer.backends : direct, arrived)
    if (isRight) return answer
    const rules = answer.kind === 'led' ? `to one of ${answer.backends.map(endText).join(', ')}` : answer.kind
    return this.#fail(`kernel: ${kernel}; rules: ${rules} (${answer.marks.join(', ')})`)
  }

  /** Where it goes by itself. This host is the socket's own address where it has one already, and the loopback else. */
  #direct(at: Place, end: End): readonly End[] {
    const { address, port } = nameFor(end)
    const hosts = isUnspecified(plain(end.address)) ? placeAddresses[at] : []
    return [plain(address), ...hosts].map((a) => ({ address: a, port }))
  }

  /** By what it should know its peer: the name that it used. */
  #nameOf({ kind: what }: Answer, end: End, arrived: End): End {
    if (what === 'led' || !isUnspecified(plain(end.address))) return nameFor(end)
    return { ...arrived, address: end.address.startsWith(v4Prefix) ? v4Prefix + arrived.address : arrived.address }
  }

  #compareName(call: string, got: End | string, expected: End): void {
    if (typeof got === 'string') this.#fail(`${call}: kernel: ${got}; rules: ${endText(expected)}`)
    if (endText(got) !== endText(expected)) this.#fail(`${call}: kernel: ${endText(got)}; rules: ${endText(expected)}`)
  }
}

/** A Service's port whose node port nobody listens on, so that only a hook refuses to bind it. */
const takenPort = 8443

const familyFor = (w: Word): SocketFamily => (w === 'IPv4' ? 4 : 6)

function serviceOf(name: string, i: number, found: Kind, all: Standings): Service {
  const { type, families, externalLocal, internalLocal, hasAffinity, external } = found
  const cluster = families.map((f) => (f === 4 ? `10.96.0.${10 + i}` : `fd00:10:96::${10 + i}`))
  const hasNodePort = type === 'NodePort' || type === 'LoadBalancer'
  const endpoints: HintedEndpoint[] = all.flatMap(({ pod, target: at, state, zones }) =>
    (pool[pod]?.addresses ?? []).map((address) => ({
      address,
      port: at,
      node: pool[pod]?.node ?? '',
      ready: state === 'ready',
      serving: state === 'ready' || state === 'going',
      terminating: state === 'going' || state === 'gone',
      zones,
    })),
  )
  const asked = [...found.ports, ...found.taken.map((protocol) => ({ port: takenPort, protocol }))]
  const numbers = [...new Set(asked.map((p) => p.port))]
  return {
    namespace: 'shop',
    name,
    type: type === 'headless' ? 'ClusterIP' : type,
    clusterIPs: type === 'headless' ? ['None'] : cluster,
    ports: asked.map((p) => (hasNodePort ? { ...p, nodePort: nodePortOf(i, p.port) } : p)),
    endpoints: Object.fromEntries(numbers.map((number) => [number, endpoints])),
    ...(hasNodePort && externalLocal ? { externalTrafficPolicy: 'Local' as const } : {}),
    ...(internalLocal ? { internalTrafficPolicy: 'Local' as const } : {}),
    ...(hasAffinity ? { affinitySeconds: 10_800 } : {}),
    ...(type === 'LoadBalancer' ? { ingressIPs: families.map((f) => balancerOf(i, f)) } : {}),
    ...(external === 'none' || type === 'headless' ? {} : { externalIPs: families.map((f) => externalOf(i, f)) }),
    ...(external === 'guarded' && type !== 'headless' ? { isExternalGuarded: true as const } : {}),
  }
}

const nodePortOf = (i: number, p: number): number =>
  p === takenPort ? ports.node + 100 + i : ports.node + 2 * i + ports.service.indexOf(p)
const balancerOf = (i: number, f: number): string => (f === 4 ? `172.30.0.${200 + i}` : `fd00:172:30::${200 + i}`)
const externalOf = (i: number, f: number): string => (f === 4 ? `198.51.100.${1 + i}` : `2001:db8::${1 + i}`)

const loopbacks = { 4: ['127.0.0.1', '127.9.8.7', '0.0.0.0'], 6: ['::1', '::1', '::'] } as const

function endOf(to: Target, w: Word): End {
  const f = w === 'IPv6' ? 6 : 4
  return inWord(bareEnd(to, f), w)
}

const inWord = ({ address, port: p }: End, w: Word): End => ({
  address: w === 'mapped' ? `${v4Prefix}${address}` : address,
  port: p,
})

function bareEnd(to: Target, f: 4 | 6): End {
  const mine = own[f === 4 ? 0 : 1] ?? ''
  switch (to.to) {
    case 'cluster':
      return {
        address: f === 4 ? `10.96.0.${10 + to.service}` : `fd00:10:96::${10 + to.service}`,
        port: portAt(to.port),
      }
    case 'balancer':
      return { address: balancerOf(to.service, f), port: portAt(to.port) }
    case 'external':
      return { address: externalOf(to.service, f), port: portAt(to.port) }
    case 'own':
    case 'other':
    case 'loopback': {
      const other = nodes[1]?.addresses[f === 4 ? 0 : 1] ?? ''
      const address = to.to === 'own' ? mine : to.to === 'other' ? other : (loopbacks[f][to.word] ?? '')
      const number = ports.service[to.port]
      return { address, port: number === undefined ? ports.nobodys : nodePortOf(to.service, number) }
    }
    case 'host port':
      return { address: [mine, ...loopbacks[f]][to.word] ?? '', port: ports.host[to.slot] ?? 0 }
    case 'pod':
      return { address: pool[to.pod]?.addresses[f === 4 ? 0 : 1] ?? '', port: to.target }
    case 'nobody':
      return { address: f === 4 ? '10.96.0.99' : 'fd00:10:96::99', port: 80 }
    default:
      return to satisfies never
  }
}

const portAt = (i: number): number => ports.service[i] ?? ports.nobodys
