import { type Cluster, type NetworkPolicy, nameOf, type Pod, type Service } from './cluster.ts'
import { Draw } from './draw.ts'
import { deceptive, packetTo } from './drawn-packets.ts'
import { destination, isMulticast, ownAddresses, serviceAddress, stranger, uplink, wayOf } from './drawn-places.ts'
import { anew, answer, errorAbout, next, rest } from './drawn-replies.ts'
import type { Hook, Outcome } from './journey.ts'
import { type Packet, protocols } from './packet.ts'
import type { Step } from './scenario.ts'
import { outside, ownNode, type ServiceKind, slots, strangers } from './universe.ts'

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
  readonly #own: string
  readonly #recent: Exchange[] = []
  #at = 0
  #podNumber = 0
  /** Address of the pod that went last. */
  #left: string | undefined

  /** `own`: the node that it plays at. */
  constructor(materials: Materials, own: string = ownNode) {
    this.#materials = materials
    this.#own = own
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
    if (one.hook.from === 'pod' && draw.oneIn(25))
      return send(wayOf(cluster, one.packet.source, draw, this.#own), one.packet)
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
    const local = [...cluster.pods.values()].filter((p) => p.node === this.#own && p.hostNetwork !== true)
    const others = [...cluster.pods.values()].filter((p) => p.node !== this.#own)
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
      const to = destination(cluster, local, others, family, draw, this.#own)
      const strange = [...strangers[family], ...outside[family], draw.of(local).addresses[index] ?? '']
      return send({ from: 'pod', pod: nameOf(pod) }, packetTo(draw.oneIn(40) ? draw.of(strange) : own, to, draw))
    }
    if (place < 19) {
      const from = stranger(cluster, others, family, draw, this.#own)
      const service = draw.oneIn(2) ? serviceAddress(cluster, family, draw, true, this.#own) : undefined
      if (service !== undefined) {
        const packet = packetTo(from, service, draw)
        return send(wayOf(cluster, from, draw, this.#own), draw.oneIn(8) ? deceptive(packet, draw) : packet)
      }
      const to = draw.oneIn(12) ? draw.of([...strangers[family], ...ownAddresses(cluster, family, this.#own)]) : own
      return send(wayOf(cluster, from, draw, this.#own), packetTo(from, { address: to }, draw))
    }
    if (cluster.isTunnelled === true && draw.oneIn(2)) {
      const to = destination(cluster, local, others, family, draw, this.#own)
      const host = draw.of(ownAddresses(cluster, family, this.#own))
      if (!isMulticast(to.address)) return send({ from: 'stack' }, packetTo(host, to, draw))
    }
    const host = draw.of(ownAddresses(cluster, family, this.#own))
    return send({ from: 'host', pod: nameOf(pod) }, packetTo(host, { address: own }, draw))
  }
}

const send = (hook: Hook, packet: Packet): Step => ({ do: 'send', hook, packet })
