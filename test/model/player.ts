import { familyOf } from './address.ts'
import { type Cluster, type NetworkPolicy, nameOf, type Pod, type ProtocolName, type Service } from './cluster.ts'
import { frameLength } from './frame.ts'
import type { Hook, Outcome } from './node.ts'
import {
  chunks,
  type Extension,
  errors,
  flag,
  type Layer4,
  type Packet,
  protocolOf,
  protocols,
  type Tcp,
} from './packet.ts'
import type { Step } from './scenario.ts'
import { outside, ownNode, ports, type ServiceKind, slots, strangers } from './universe.ts'

/**
 * Turns numbers into steps that fit what has happened so far: answers to what went through, resets of connections that
 * there are, errors about packets that were sent. Whoever draws packets blindly sees nothing but denials.
 */

/** What a history has at hand; drawn by fast-check. */
export interface Materials {
  readonly pods: readonly Pick<Pod, 'namespace' | 'labels' | 'ports'>[]
  readonly policies: readonly Omit<NetworkPolicy, 'name'>[]
  readonly services: readonly ServiceKind[]
}

interface Exchange {
  readonly hook: Hook
  readonly packet: Packet
  /** As it left; undefined: it did not. */
  readonly left: Packet | undefined
  readonly leftTo: Hook | undefined
  readonly refused: boolean
}

/** So many packets back something can be answered. */
const rememberedMax = 24

const endpointStates = [
  { ready: true, serving: true, terminating: false },
  { ready: true, serving: true, terminating: false },
  { ready: true, serving: true, terminating: false },
  { ready: false, serving: true, terminating: true },
  { ready: false, serving: false, terminating: false },
] as const

/** A small generator of numbers (Weyl sequence and mixing): one seed a step, so that steps do not depend on each other. */
class Draw {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 … n - 1. */
  next(n: number): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0
    let z = this.#state
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) % n
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.next(n) === 0
  }

  of<T>(list: readonly [T, ...T[]] | readonly T[]): T {
    return list[this.next(list.length)] as T
  }
}

function hookNow(cluster: Cluster, hook: Hook, address: string): Hook {
  if (hook.from === 'tunnel' && Number.isNaN(Number(hook.as)) && !cluster.pods.has(hook.as))
    return { ...hook, as: 'node' }
  if (hook.from !== 'pod' || cluster.pods.has(hook.pod)) return hook
  const next = [...cluster.pods.values()].find((pod) => pod.addresses.includes(address))
  return next === undefined ? hook : { from: 'pod', pod: nameOf(next) }
}

/** Where its answer would come from. */
function leftTo({ end, pod, wrapped, destination }: Outcome): Hook | undefined {
  switch (end) {
    case 'pod':
      return pod === undefined ? undefined : { from: 'pod', pod }
    case 'out':
      return { from: 'uplink' }
    case 'tunnel': {
      const as = typeof destination === 'object' ? destination.pod : 'node'
      return wrapped === undefined ? undefined : { from: 'tunnel', node: wrapped.node, as }
    }
    case 'drop':
    case 'stack':
    case 'refusal':
      return undefined
    default:
      return end satisfies never
  }
}

/** As somebody who meets it on the wire would describe it: he does not know what it once was. */
function plain(packet: Packet): Packet {
  const { layer4 } = packet
  if (layer4.kind !== 'error' || layer4.summedAs === undefined) return packet
  const { summedAs: _, ...rest } = layer4
  return { ...packet, layer4: rest }
}

export class Player {
  readonly #materials: Materials
  readonly #recent: Exchange[] = []
  #at = 0
  #podNumber = 0
  /** Address of the pod that went last. */
  #left: string | undefined

  constructor(materials: Materials) {
    this.#materials = materials
  }

  /** What has become of a packet, so that later ones can refer to it. */
  saw(hook: Hook, packet: Packet, outcome: Outcome): void {
    const { end, packet: left } = outcome
    this.#recent[this.#at++ % rememberedMax] = {
      hook,
      packet,
      left: left === undefined ? undefined : plain(left),
      leftTo: leftTo(outcome),
      refused: end === 'refusal',
    }
  }

  /** The next step, or undefined where the number asks for something that there is not now. */
  step(cluster: Cluster, number: number): Step | undefined {
    const draw = new Draw(number)
    const kind = draw.next(100)
    if (kind < 3) return this.#change(cluster, draw)
    if (kind === 3 && draw.oneIn(30)) return this.#flood(draw)
    if (kind === 4 && this.#left !== undefined) {
      const slot = slots.find((s) => s.addresses[0] === this.#left)
      this.#left = undefined
      const isFree = ![...cluster.pods.values()].some((p) => p.addresses[0] === slot?.addresses[0])
      if (slot !== undefined && isFree) return this.podFor(slot, draw.next(1_000))
    }
    if (kind < 5) return { do: 'wait', ms: draw.of([500, 5_000, 11_000, 30_000, 61_000, 181_000, 400_000, 8_100_000]) }
    if (kind < 60) return this.#goOn(cluster, draw) ?? this.#begin(cluster, draw)
    return this.#begin(cluster, draw)
  }

  /** A pod for the slot, with a name of its own: the next one in the same slot is another. */
  podFor(slot: (typeof slots)[number], draw: number): Step {
    const { pods } = this.#materials
    const kind = pods[draw % pods.length]
    if (kind === undefined) throw new RangeError('a history needs a pod to draw from')
    const name = `p${++this.#podNumber}`
    return { do: 'pod', pod: { ...kind, name, node: slot.node, addresses: slot.addresses } }
  }

  /** The Service with endpoints among the pods that there are now; each ready, going, or gone from it. */
  serviceFor(cluster: Cluster, kind: ServiceKind, number: number, seed: number): Service {
    const draw = new Draw(seed)
    const { hasIngress, hasExternal, targets, ports: list, ...service } = kind
    const pods = [...cluster.pods.values()].filter((p) => p.hostNetwork !== true)
    const chosen = pods.filter(() => draw.oneIn(2)).slice(0, draw.next(4))
    const states = chosen.map(() => draw.of(endpointStates))
    const isNode = service.type !== 'ClusterIP'
    return {
      ...service,
      name: `s${number}`,
      clusterIPs: [`10.96.0.${10 + number}`, `fd00:10:96::${10 + number}`],
      ...(hasIngress ? { ingressIPs: [`172.30.0.${200 + number}`, `fd00:172:30::${200 + number}`] } : {}),
      ...(hasExternal ? { externalIPs: [`198.51.100.${50 + number}`, `2001:db8::${50 + number}`] } : {}),
      ports: list.map((port, i) => ({ ...port, ...(isNode ? { nodePort: 30_000 + 10 * number + i } : {}) })),
      endpoints: Object.fromEntries(
        list.map(({ port, protocol }, i) => [
          port,
          chosen.flatMap((pod, n) =>
            pod.addresses.map((address) => ({
              address,
              // A port of SCTP cannot be exchanged: half of those stay what they are.
              port: protocol === 'SCTP' && n % 2 === 0 ? port : (targets[i] ?? port),
              node: pod.node,
              ...(states[n] ?? endpointStates[0]),
            })),
          ),
        ]),
      ),
    }
  }

  #change(cluster: Cluster, draw: Draw): Step | undefined {
    const pods = [...cluster.pods.values()].filter((p) => p.hostNetwork !== true)
    switch (draw.next(14)) {
      case 0: {
        // In a place that was somebody's a moment ago, where there is one.
        const taken = new Set(pods.map((p) => p.addresses[0]))
        const free = slots.filter((s) => !taken.has(s.addresses[0]))
        const last = free.find((s) => s.addresses[0] === this.#left)
        return free.length === 0 ? undefined : this.podFor(last ?? draw.of(free), draw.next(1000))
      }
      case 1:
      case 12:
      case 13: {
        if (pods.length < 4) return undefined
        const pod = draw.of(pods)
        this.#left = pod.addresses[0]
        return { do: 'remove', kind: 'pod', name: nameOf(pod) }
      }
      case 2: {
        // The labels of a running pod change.
        const pod = draw.of(pods)
        const { labels } = draw.of(this.#materials.pods)
        const { unready, ...ready } = pod
        return { do: 'pod', pod: { ...ready, labels, ...(unready !== true && draw.oneIn(6) ? { unready: true } : {}) } }
      }
      case 3: {
        const name = draw.of([...cluster.policies.keys()])
        return name === undefined ? undefined : { do: 'remove', kind: 'policy', name }
      }
      case 4:
      case 5:
      case 6:
      case 7: {
        const { services } = this.#materials
        const number = draw.next(Math.max(1, services.length))
        const kind = services[number]
        if (kind === undefined) return undefined
        const name = `${kind.namespace}/s${number}`
        if (cluster.services.has(name) && draw.oneIn(4)) return { do: 'remove', kind: 'service', name }
        return { do: 'service', service: this.serviceFor(cluster, kind, number, draw.next(2 ** 31)) }
      }
      default: {
        const policy = draw.of(this.#materials.policies)
        return policy === undefined ? undefined : { do: 'policy', policy: { ...policy, name: `n${draw.next(4)}` } }
      }
    }
  }

  /** What was refused is sent again, more often than anybody is told so. */
  #flood(draw: Draw): Step | undefined {
    const one = draw.of(this.#recent.filter((e) => e.refused))
    return one === undefined ? undefined : { do: 'send', hook: one.hook, packet: one.packet, times: 1_020 }
  }

  /** Something about a packet that was sent before. */
  #goOn(cluster: Cluster, draw: Draw): Step | undefined {
    const found = draw.of(this.#recent)
    if (found === undefined) return undefined
    // Whoever has the address now goes on where another left off.
    const one = { ...found, hook: hookNow(cluster, found.hook, found.packet.source) }
    const { left } = one
    const back = found.leftTo?.from === 'uplink' ? uplink(draw) : found.leftTo
    const leftTo = back === undefined ? undefined : hookNow(cluster, back, left?.destination ?? '')
    // The rest of a datagram, or of another one between the same two.
    if (one.packet.fragment?.more === true && draw.oneIn(2)) return send(one.hook, rest(one.packet, draw))
    // Somebody outside has seen it, and says the same.
    if (one.hook.from === 'pod' && draw.oneIn(25)) return send(this.#way(cluster, one.packet.source, draw), one.packet)
    // The same is asked once more, from another port.
    if (draw.oneIn(8)) return send(one.hook, { ...one.packet, layer4: anew(one.packet.layer4, draw) })
    if (left === undefined || leftTo === undefined || draw.oneIn(6)) {
      // The sender goes on, whatever became of it.
      return send(one.hook, { ...one.packet, hops: 64, layer4: next(one.packet.layer4, draw) })
    }
    if (draw.oneIn(8)) return send(leftTo, errorAbout(left, draw))
    return send(leftTo, answer(left, draw))
  }

  #begin(cluster: Cluster, draw: Draw): Step | undefined {
    const family = draw.oneIn(3) ? 6 : 4
    const index = family === 4 ? 0 : 1
    const local = [...cluster.pods.values()].filter((p) => p.node === ownNode && p.hostNetwork !== true)
    const others = [...cluster.pods.values()].filter((p) => p.node !== ownNode)
    if (local.length === 0) return undefined
    const pod = draw.of(local)
    const own = pod.addresses[index] ?? ''
    // What has no ports can be told apart by nothing else: only one pod at a time can say it to the same place.
    if (draw.oneIn(50)) {
      const layer4 = { kind: 'opaque', protocol: protocols.gre, payload: 24 } as const
      const destination = outside[family][0] ?? ''
      return send({ from: 'pod', pod: nameOf(pod) }, { source: own, destination, hops: 64, layer4 })
    }
    const place = draw.next(20)
    if (place < 12) {
      const to = this.#destination(cluster, local, others, family, draw)
      const strange = [...strangers[family], ...outside[family], draw.of(local).addresses[index] ?? '']
      return send({ from: 'pod', pod: nameOf(pod) }, packetTo(draw.oneIn(40) ? draw.of(strange) : own, to, draw))
    }
    if (place < 19) {
      const from = this.#stranger(cluster, others, family, draw)
      const service = draw.oneIn(2) ? serviceAddress(cluster, family, draw, true) : undefined
      if (service !== undefined) {
        const packet = packetTo(from, service, draw)
        return send(this.#way(cluster, from, draw), draw.oneIn(8) ? deceptive(packet, draw) : packet)
      }
      const to = draw.oneIn(12) ? draw.of([...strangers[family], ...ownAddresses(cluster, family)]) : own
      return send(this.#way(cluster, from, draw), packetTo(from, { address: to }, draw))
    }
    if (cluster.isTunnelled === true && draw.oneIn(2)) {
      const to = this.#destination(cluster, local, others, family, draw)
      const host = draw.of(ownAddresses(cluster, family))
      if (!isMulticast(to.address)) return send({ from: 'stack' }, packetTo(host, to, draw))
    }
    const host = draw.of(ownAddresses(cluster, family))
    return send({ from: 'host', pod: nameOf(pod) }, packetTo(host, { address: own }, draw))
  }

  /** What other nodes send comes by the tunnel where there is one, mostly as whose it is. */
  #way(cluster: Cluster, source: string, draw: Draw): Hook {
    const pod = [...cluster.pods.values()].find((p) => p.addresses.includes(source))
    const node = [...cluster.nodes.values()].find((n) => n.name === pod?.node || n.addresses.includes(source))
    const isNobody = pod === undefined && node === undefined
    if (cluster.isTunnelled !== true || draw.oneIn(isNobody ? 2 : 3)) return uplink(draw)
    const others = [...cluster.nodes.values()].filter((n) => n.name !== ownNode)
    const from = node === undefined || node.name === ownNode ? draw.of(others) : node
    if (draw.oneIn(20))
      return { from: 'tunnel', node: draw.of(['172.30.0.99', '172.30.0.11', '10.244.2.2']), as: 'node' }
    if (draw.oneIn(20))
      return { from: 'tunnel', node: from.addresses[0] ?? '', as: draw.of(['0', '1', '2', '4', '255']) }
    const claims = pod === undefined || draw.oneIn(8) ? draw.of([...cluster.pods.values()]) : pod
    const as = (pod === undefined && !draw.oneIn(8)) || draw.oneIn(8) ? 'node' : nameOf(claims)
    return { from: 'tunnel', node: from.addresses[0] ?? '', as }
  }

  /** Somebody whose packets come by the uplink; now and then one who says that he is one of ours. */
  #stranger(cluster: Cluster, others: readonly Pod[], family: 4 | 6, draw: Draw): string {
    const index = family === 4 ? 0 : 1
    if (draw.oneIn(25)) return draw.of([...ownAddresses(cluster, family), slots[0]?.addresses[index] ?? ''])
    const node = family === 4 ? '172.30.0.12' : 'fd00:172:30::12'
    if (draw.oneIn(2)) return draw.of([...outside[family], strangers[family][1] ?? '', node])
    return draw.of(others)?.addresses[index] ?? draw.of(outside[family])
  }

  #destination(
    cluster: Cluster,
    local: readonly Pod[],
    others: readonly Pod[],
    family: 4 | 6,
    draw: Draw,
  ): Destination {
    const index = family === 4 ? 0 : 1
    const kind = draw.next(24)
    if (kind < 6) {
      const service = serviceAddress(cluster, family, draw, false)
      if (service !== undefined) return service
    }
    if (kind < 13) return { address: draw.of(local).addresses[index] ?? '' }
    if (kind < 17) return { address: draw.of(others)?.addresses[index] ?? draw.of(outside[family]) }
    if (kind < 20) return { address: draw.of(outside[family]) }
    if (kind < 21) return { address: draw.of(strangers[family]) }
    if (kind < 22)
      return {
        address: draw.of(
          family === 4
            ? ['10.96.0.1', '10.96.255.254', '169.254.42.1']
            : ['fd00:10:96::1', 'fd00:10:96::fffe', 'fd00:169:254:42::1'],
        ),
      }
    if (kind < 23)
      return { address: draw.of([...cluster.nodes.values()].flatMap((n) => n.addresses.slice(index, index + 1))) }
    return { address: draw.of(family === 4 ? ['224.0.0.251', '239.1.2.3'] : ['ff02::fb', 'fe80::5', 'ff05::2']) }
  }
}

interface Destination {
  readonly address: string
  /** What a Service is asked for there. */
  readonly protocol?: ProtocolName
  readonly port?: number
}

/** One of the addresses and ports of a Service; now and then a port that it has not. */
function serviceAddress(cluster: Cluster, family: 4 | 6, draw: Draw, isOutside: boolean): Destination | undefined {
  const service = draw.of([...cluster.services.values()])
  if (service === undefined) return undefined
  const { port, protocol, nodePort } = draw.of(service.ports)
  const own = (list: readonly string[] | undefined): string[] => (list ?? []).filter((a) => familyOf(a) === family)
  const nodes =
    nodePort === undefined
      ? []
      : isOutside
        ? ownAddresses(cluster, family)
        : own([...cluster.nodes.values()].flatMap((n) => n.addresses))
  const choices: Destination[] = [
    ...(isOutside && !draw.oneIn(10) ? [] : own(service.clusterIPs)).map((address) => ({ address, protocol, port })),
    ...own(service.ingressIPs).map((address) => ({ address, protocol, port })),
    ...own(service.externalIPs).map((address) => ({ address, protocol, port })),
    ...nodes.map((address) => ({ address, protocol, port: nodePort ?? 0 })),
  ]
  const choice = draw.of(choices)
  if (choice === undefined || !draw.oneIn(15)) return choice
  return { address: choice.address }
}

/** Around what devices carry. */
const largePayload = (draw: Draw): number => (draw.oneIn(2) ? 1_350 + draw.next(100) : 1_490 + draw.next(80))

function packetTo(source: string, { address, protocol, port }: Destination, draw: Draw): Packet {
  const hops = draw.oneIn(12) ? draw.of([1, 2, 255]) : 64
  const layer4 = layer4To(familyOf(source), draw, protocol, port)
  const packet: Packet = { source, destination: address, hops, layer4 }
  return draw.oneIn(8) ? odd(packet, draw) : packet
}

function layer4To(family: 4 | 6, draw: Draw, protocol: ProtocolName | undefined, port: number | undefined): Layer4 {
  const destinationPort = port ?? (draw.oneIn(15) ? draw.next(65536) : draw.of(ports))
  // Few source ports: tuples are met again.
  const sourcePort = draw.oneIn(10) ? draw.of(ports) : 40_000 + draw.next(6)
  const kind = protocol === undefined ? draw.next(20) : kindOf[protocol]
  if (kind < 10) {
    const flags = draw.oneIn(3)
      ? draw.of([flag.ack, flag.syn | flag.ack, flag.rst, flag.fin | flag.ack, flag.ack | flag.push])
      : flag.syn
    return tcp(sourcePort, destinationPort, flags, draw.next(1 << 16) * 65_537, 0, draw.next(4) * 7)
  }
  if (kind < 15)
    return {
      kind: 'udp',
      sourcePort,
      destinationPort,
      payload: draw.oneIn(30) ? largePayload(draw) : draw.next(5) * 5,
      ...(family === 4 && draw.oneIn(4) ? { unsummed: true } : {}),
    }
  if (kind < 17) {
    const tag = draw.oneIn(3) ? 1 + draw.next(2) : 0
    const chunk = tag === 0 ? chunks.init : draw.of([chunks.data, chunks.abort, chunks.initAck])
    return { kind: 'sctp', sourcePort, destinationPort, chunk, tag, initiate: 1 + draw.next(3) }
  }
  if (kind < 19)
    return { kind: 'echo', reply: draw.oneIn(4), identifier: 1 + draw.next(4), sequence: draw.next(9), payload: 8 }
  if (draw.oneIn(4))
    return { kind: 'message', type: family === 4 ? draw.of([13, 14, 17]) : draw.of([133, 139, 140]), code: 0 }
  return {
    kind: 'opaque',
    protocol: draw.of([protocols.gre, 50, 4, 99, family === 4 ? protocols.icmp6 : protocols.icmp]),
    payload: 24,
  }
}

/** Where a protocol lies in the draw of kinds. */
const kindOf = { TCP: 0, UDP: 10, SCTP: 15 } as const

const isMulticast = (address: string): boolean => /^(ff|22[4-9]|23)/.test(address)

const ownAddresses = (cluster: Cluster, family: 4 | 6): string[] =>
  (cluster.nodes.get(ownNode)?.addresses ?? []).filter((a) => familyOf(a) === family)

/** By the uplink, whose first program is there or not. */
const uplink = (draw: Draw): Hook => ({ from: 'uplink', ...(draw.oneIn(2) ? { early: true } : {}) })

const send = (hook: Hook, packet: Packet): Step => ({ do: 'send', hook, packet })

const tcp = (
  sourcePort: number,
  destinationPort: number,
  flags: number,
  sequence: number,
  acks: number,
  payload: number,
): Tcp => ({
  kind: 'tcp',
  sourcePort,
  destinationPort,
  flags,
  sequence: sequence >>> 0,
  acknowledgement: (flags & flag.ack) === 0 ? 0 : acks >>> 0,
  window: 1024,
  payload,
})

/** How far a segment moves the sequence: its data, and one each for SYN and FIN (RFC 9293, 3.4). */
const length = ({ flags, payload }: Tcp): number =>
  payload + ((flags & flag.syn) === 0 ? 0 : 1) + ((flags & flag.fin) === 0 ? 0 : 1)

function next(layer4: Layer4, draw: Draw): Layer4 {
  if (layer4.kind !== 'tcp') return layer4
  const { sourcePort, destinationPort, sequence, acknowledgement } = layer4
  const flags = draw.of([
    flag.syn,
    flag.syn,
    flag.ack,
    flag.ack | flag.push,
    flag.fin | flag.ack,
    flag.rst,
    flag.rst | flag.ack,
  ])
  // In the window, at its edges, and far from it.
  const step = draw.of([length(layer4), length(layer4), 0, 0xffff, 0x10000, 0x7fffffff, 0x80000000, -1])
  return tcp(sourcePort, destinationPort, flags, sequence + step, acknowledgement, draw.next(3) * 10)
}

function rest(packet: Packet, draw: Draw): Packet {
  const id = draw.oneIn(3) ? 1 + draw.next(3) : (packet.fragment?.id ?? 1)
  const fragment = { id, offset: 8 * (2 + draw.next(4)), more: draw.oneIn(2) }
  return { ...packet, fragment, layer4: { kind: 'opaque', protocol: protocolOf(packet), payload: 24 } }
}

function anew(layer4: Layer4, draw: Draw): Layer4 {
  const sourcePort = 40_000 + draw.next(6)
  switch (layer4.kind) {
    case 'tcp':
      return tcp(sourcePort, layer4.destinationPort, flag.syn, draw.next(1 << 16) * 65_537, 0, 0)
    case 'udp':
    case 'sctp':
      return { ...layer4, sourcePort }
    case 'echo':
    case 'error':
    case 'message':
    case 'opaque':
      return layer4
    default:
      return layer4 satisfies never
  }
}

/** What whoever got this packet would send back, more or less. */
function answer(packet: Packet, draw: Draw): Packet {
  const { source, destination, layer4, fragment } = packet
  const turned = { source: destination, destination: source, hops: 64 }
  // What has no header of its own is not answered by something else.
  if (fragment !== undefined && fragment.offset > 0) return { ...turned, fragment, layer4 }
  return { ...turned, layer4: answerLayer4(layer4, draw) }
}

function answerLayer4(layer4: Layer4, draw: Draw): Layer4 {
  switch (layer4.kind) {
    case 'tcp': {
      const { sourcePort, destinationPort, flags, sequence, acknowledgement } = layer4
      const acks = sequence + length(layer4)
      const fitting =
        (flags & (flag.syn | flag.ack)) === flag.syn
          ? draw.of([flag.syn | flag.ack, flag.syn | flag.ack, flag.syn | flag.ack, flag.rst | flag.ack, flag.syn])
          : draw.of([
              flag.ack,
              flag.ack,
              flag.ack | flag.push,
              flag.fin | flag.ack,
              flag.fin | flag.ack,
              flag.rst,
              flag.rst | flag.ack,
              flag.syn,
            ])
      const base = acknowledgement === 0 ? 5_000_000 : acknowledgement
      const drift = (fitting & flag.rst) === 0 ? 0 : draw.of([0, 0, 1, 0xffff, 0x10000, 0x10001, -1, 0x7fff0000])
      return tcp(destinationPort, sourcePort, fitting, base + drift, acks, draw.next(3) * 10)
    }
    case 'udp':
      return { ...layer4, sourcePort: layer4.destinationPort, destinationPort: layer4.sourcePort }
    case 'sctp': {
      const asked = layer4.chunk === chunks.init || layer4.chunk === chunks.initAck
      return {
        ...layer4,
        sourcePort: layer4.destinationPort,
        destinationPort: layer4.sourcePort,
        chunk:
          layer4.chunk === chunks.init
            ? draw.of([chunks.initAck, chunks.initAck, chunks.initAck, chunks.init, chunks.abort])
            : draw.of([chunks.data, chunks.data, chunks.abort, chunks.shutdownComplete, chunks.init]),
        tag: asked && !draw.oneIn(6) ? layer4.initiate : 1 + draw.next(3),
        initiate: 1 + draw.next(3),
      }
    }
    case 'echo':
      return draw.oneIn(5) ? layer4 : { ...layer4, reply: !layer4.reply }
    case 'error':
    case 'message':
    case 'opaque':
      return layer4
    default:
      return layer4 satisfies never
  }
}

/** A router or the receiver complains: now and then about something that was never sent. */
function errorAbout(packet: Packet, draw: Draw): Packet {
  const inner: Packet = draw.oneIn(6) ? { ...packet, destination: packet.source, source: packet.destination } : packet
  const headers = 14 + (packet.source.includes(':') ? 40 : 20)
  const full = frameLength(inner) - 14
  const quoted = Math.min(full, draw.of([headers - 14 + 8, full, headers - 14 + 8, headers - 14 + 4]))
  const from = draw.oneIn(2) ? packet.destination : draw.of(outside[familyOf(packet.source)])
  return {
    source: from,
    destination: packet.source,
    hops: 64,
    layer4: { kind: 'error', error: draw.of(errors), code: draw.next(4), mtu: 0, inner, quoted },
  }
}

/** A packet that says something else of itself than it is. */
function deceptive(packet: Packet, draw: Draw): Packet {
  const six = familyOf(packet.source) === 6
  // An address that stands for IPv4 must never be on the wire.
  if (six && draw.oneIn(2)) return { ...packet, source: '::ffff:102:304' }
  if (draw.oneIn(3)) return { ...packet, lie: draw.of(['offset', 'far-offset']) }
  return { ...packet, cut: frameLength(packet) - 1 - draw.next(3) }
}

/** Everything that a parser may trip over. */
function odd(packet: Packet, draw: Draw): Packet {
  const six = familyOf(packet.source) === 6
  const l4Start = 14 + (six ? 40 : 20)
  switch (draw.next(8)) {
    case 0: {
      if (draw.oneIn(3)) return { ...packet, cut: Math.max(l4Start, l4Start + draw.next(24)) }
      if (draw.oneIn(4)) return { ...packet, lie: draw.of(['offset', 'far-offset']) }
      return { ...packet, short: draw.next(22) }
    }
    case 1:
      return { ...packet, lie: draw.of(six ? ['version', 'ethertype'] : ['version', 'header', 'ethertype']) }
    case 2:
    case 3:
      return { ...packet, fragment: { id: 1 + draw.next(3), offset: 0, more: true } }
    case 4:
      return {
        ...packet,
        fragment: { id: 1 + draw.next(3), offset: 8 * (1 + draw.next(4)), more: draw.oneIn(2) },
        layer4: { kind: 'opaque', protocol: draw.of([6, 17, 17]), payload: 24 },
      }
    case 5:
      return six ? { ...packet, source: '::ffff:102:304' } : { ...packet, options: 4 * (1 + draw.next(10)) }
    default: {
      if (!six) return { ...packet, options: 4 * (1 + draw.next(10)) }
      const all: readonly Extension[] = ['hop-by-hop', 'destination', 'routing', 'authentication']
      const length = draw.oneIn(4) ? 6 + draw.next(4) : 1 + draw.next(4)
      const segments = draw.oneIn(6) ? { lie: 'segments' as const } : {}
      const first = length > 4 ? 'destination' : draw.of(all)
      return {
        ...packet,
        ...segments,
        extensions: [first, ...Array.from({ length: length - 1 }, () => draw.of(all.slice(1)))],
      }
    }
  }
}
