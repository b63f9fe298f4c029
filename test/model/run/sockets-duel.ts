import { type Cluster, nameOf, type Service } from '../cluster.ts'
import { type History, type Kind, pool, type Standings, type Step } from './sockets-history.ts'
import { Socket } from './sockets-libc.ts'
import { endOf, familyFor, inWord, nodePortOf, serviceOf, takenPort } from './sockets-places.ts'
import {
  type Answer,
  among,
  type End,
  endText,
  type HostPort,
  isUnspecified,
  mayBind,
  nameFor,
  type Place,
  type Protocol,
  plain,
  SocketRules,
  v4Prefix,
} from './sockets-rules.ts'
import { nodes, own, placeAddresses, podCidrs, ports, type SocketWorld, serviceCidrs, zone } from './sockets-world.ts'

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
