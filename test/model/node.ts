import { contains, familyOf } from './address.ts'
import { Affinities } from './affinity.ts'
import { type Cluster, type Endpoint, type Node, nameOf, type Pod } from './cluster.ts'
import { quotedBy } from './errors.ts'
import { Fragments } from './fragments.ts'
import { etherBytes, frameLength } from './frame.ts'
import { isReadable, wrongHeader } from './headers.ts'
import {
  beginsPair,
  hairpin,
  hasExchangeablePort,
  natPorts,
  onward,
  type Pair,
  type PairSide,
  Pairs,
  portInRange,
} from './nat.ts'
import { type Packet, protocolOf, protocols, reversed, type Tuple, tupleOf, withEnds } from './packet.ts'
import { type Asked, type Judgement, judgePolicy, type Party } from './policy.ts'
import type { Reason } from './reasons.ts'
import { Refusals, refusalOf, resetOnward } from './refusal.ts'
import { findService, type Side } from './services.ts'
import {
  beginsAnother,
  beginsFlow,
  type Claim,
  endOf,
  type Flow,
  Flows,
  flowOf,
  followEstablished,
  followUnanswered,
  isReset,
  type Limits,
  sameTuple,
} from './tracking.ts'

/** Where a packet meets the node: leaving a pod, coming by the uplink, or from the node's own stack to a pod. */
export type Hook =
  | { readonly from: 'pod'; readonly pod: string }
  /** `early`: XDP sees it first. That makes no difference to what becomes of it. */
  | { readonly from: 'uplink'; readonly early?: true }
  | { readonly from: 'host'; readonly pod: string }
  /**
   * Out of the tunnel, from the node with that address; `as`: the pod whose identity is with it, `node`: whoever has the
   * source address, or a number that is nobody's.
   */
  | { readonly from: 'tunnel'; readonly node: string; readonly as: string }
  /** What the node's own stack sends into the tunnel. */
  | { readonly from: 'stack' }

/**
 * Where it goes: nowhere, to the node's own stack, into a pod of the node, out by the node's routes, wrapped to another node, or
 * back as a refusal.
 */
export type End = 'drop' | 'stack' | 'pod' | 'out' | 'tunnel' | 'refusal'

/** Who an address is, before any number is given to it. */
export type Identity = 'host' | 'remote node' | 'world' | 'unknown pod' | { readonly pod: string }

/** What is up to the kernel: the run gives its choice back, and it must be one of those that are right. */
export interface Chooser {
  /** One of the Service's endpoints. */
  backend(candidates: readonly Endpoint[], question: Tuple): Endpoint
  /** A source port; `isFree` says of which the answers could be told. `wanted` is taken where it is free. */
  port(wanted: number, isFree: (port: number) => boolean, question: Tuple): number | undefined
}

/** Takes the first that is right: for a model that runs alone. */
export const firstChoice: Chooser = {
  backend: (candidates) => candidates[0] as Endpoint,
  port: (wanted, isFree) => {
    if (isFree(wanted)) return wanted
    for (let port: number = natPorts.first; port < natPorts.first + natPorts.count; port++)
      if (isFree(port)) return port
    return undefined
  },
}

export interface Outcome {
  readonly end: End
  readonly reason: Reason
  /** Every rule that may be named for it; empty: none is. */
  readonly rules: readonly string[]
  /** As it leaves; absent where it was dropped or is the stack's as it came. */
  readonly packet?: Packet
  /** The pod that it is put into. */
  readonly pod?: string
  /** Wrapped: address of the other node, and whose identity goes with it. */
  readonly wrapped?: { readonly node: string; readonly as: Identity }
  readonly source?: Identity
  readonly destination?: Identity
  /** Chosen for a Service. */
  readonly backend?: Endpoint
  /** What was decided, step by step, for a reader. */
  readonly story: readonly string[]
  /** Rare things that a run wants to have met: `closing tuple reused`. */
  readonly marks: readonly string[]
}

interface Told {
  readonly story: string[]
  readonly marks: string[]
}
type Result = Omit<Outcome, keyof Told>

/** What tracking says: of whom the packet is, and whether it may. */
interface Tracked {
  readonly reason: Reason
  readonly rules: readonly string[]
  /** 1: an answer. */
  readonly side: 0 | 1
  /** Its flow has other names. */
  readonly translated: boolean
  /** Its beginning was not seen. */
  readonly adopted: boolean
  /** It was, before this packet. */
  readonly established?: boolean
  /** The connection is cut: its receiver gets this instead. */
  readonly reset?: Packet
  readonly source?: Identity
  readonly destination?: Identity
}

interface Verdict {
  readonly reason: Reason
  readonly rules: readonly string[]
  readonly story: readonly string[]
}

/** Reasons that the sender is told. */
const refused: readonly Reason[] = [
  'policy denied',
  'unknown sender',
  'invalid flow',
  'no service',
  'no backend',
  'no nat port',
  'no nat mapping',
]

/** A packet on its way through the node. */
interface Journey {
  /** As it is now. */
  packet: Packet
  tuple: Tuple
  readonly now: number
  readonly told: Told
  readonly choose: Chooser
  /** First address of the pod that it is from, or, from outside, to: whose refusals are counted. */
  device: string
  backend?: Endpoint
  /** Who sends it, as the node that it comes from says. */
  claim?: Claim
  /** It goes to a Service: its flow has another name for who asks. */
  translated: boolean
  /** Where it was sent to before that. */
  asked?: Tuple
}

export const addressesOf = (cluster: Cluster): Map<string, Pod> => {
  const found = new Map<string, Pod>()
  for (const pod of cluster.pods.values())
    if (pod.hostNetwork !== true) for (const address of pod.addresses) found.set(address, pod)
  return found
}

/** One node of a cluster: the rules are the cluster's, connections and translations are its own. */
export class NodeModel {
  readonly name: string
  readonly flows: Flows
  readonly #fragments = new Fragments()
  readonly #pairs: Pairs
  readonly #affinities = new Affinities()
  readonly #refusals = new Refusals()
  #cluster: Cluster
  #pods: Map<string, Pod>
  /** In which change an address became its pod's. */
  readonly #since = new Map<string, number>()
  #epoch = 0

  constructor(
    name: string,
    cluster: Cluster,
    limits: Limits = { flows: 1e6, share: 1e6, waiting: 1e5, translations: 1e6 },
  ) {
    this.name = name
    this.flows = new Flows(limits)
    this.#pairs = new Pairs(limits.translations)
    this.#cluster = cluster
    this.#pods = addressesOf(cluster)
  }

  get cluster(): Cluster {
    return this.#cluster
  }

  get node(): Node {
    const node = this.#cluster.nodes.get(this.name)
    if (node === undefined) throw new Error(`the cluster has no node ${this.name}`)
    return node
  }

  /** The cluster is now this. Flows are judged again at their next packet; an address that another pod has now begins afresh. */
  change(cluster: Cluster): void {
    const pods = addressesOf(cluster)
    // Of Services no policy asks.
    if (cluster.services === this.#cluster.services) this.#epoch++
    for (const [address, pod] of this.#pods) {
      if (pods.has(address)) continue
      this.#since.delete(address)
      if (pod.node === this.name) this.flows.forgetShare(address)
    }
    for (const [address, pod] of pods) {
      const last = this.#pods.get(address)
      if (last === undefined || nameOf(last) !== nameOf(pod)) this.#since.set(address, this.#epoch)
    }
    this.#cluster = cluster
    this.#pods = pods
  }

  /** Whoever has the address has nothing to do with the flows of whoever had it before. */
  #isDisowned({ epoch, client }: Flow): boolean {
    return epoch < (this.#since.get(client.source) ?? 0) || epoch < (this.#since.get(client.destination) ?? 0)
  }

  /** What is over goes, as it does every few seconds. */
  sweep(now: number): void {
    this.flows.sweep(now)
    this.#pairs.sweep(now)
  }

  identityOf(address: string): Identity {
    const pod = this.#pods.get(address)
    if (pod !== undefined) return { pod: nameOf(pod) }
    for (const node of this.#cluster.nodes.values())
      if (node.addresses.includes(address)) return node.name === this.name ? 'host' : 'remote node'
    return this.#cluster.podCidrs.some((cidr) => contains(cidr, address)) ? 'unknown pod' : 'world'
  }

  #local(address: string): Pod | undefined {
    const pod = this.#pods.get(address)
    return pod?.node === this.name ? pod : undefined
  }

  /** What becomes of the packet, and what the node remembers of it. */
  judge(hook: Hook, packet: Packet, now: number, choose: Chooser = firstChoice): Outcome {
    const told: Told = { story: [], marks: [] }
    const journey: Journey = { packet, tuple: trackedTuple(packet), now, told, choose, device: '', translated: false }
    const result = this.#go(hook, journey)
    return { ...result, ...(journey.backend === undefined ? {} : { backend: journey.backend }), ...told }
  }

  #go(hook: Hook, journey: Journey): Result {
    switch (hook.from) {
      case 'pod':
        return this.#fromPod(hook.pod, journey)
      case 'uplink':
        return this.#fromUplink(journey)
      case 'host':
        return this.#fromHost(journey)
      case 'tunnel':
        return this.#fromTunnel(hook, journey)
      case 'stack':
        return this.#intoTunnel(journey)
      default:
        return hook satisfies never
    }
  }

  #fromPod(name: string, journey: Journey): Result {
    const { packet, now, told } = journey
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) return drop(wrong)
    if (isLinkLocal(packet)) return drop('multicast')
    // A pod speaks for itself only.
    const own = this.#cluster.pods.get(name)?.addresses ?? []
    if (!own.includes(packet.source)) return drop('invalid source')
    journey.device = own[0] ?? ''
    const tuple = this.#fragments.tupleOf(packet, now)
    if (tuple === undefined) return drop('fragment without first')
    journey.tuple = tuple
    const served = this.#serve('inside', journey)
    if (served !== undefined) return this.#leave(journey, served)
    const tracked = this.#track('pod', journey)
    if (tracked.reset !== undefined) journey.packet = tracked.reset
    else if (tracked.reason !== 'forwarded') return this.#refuse(journey, tracked)
    // Names that are exchanged from here on do not change the way.
    const isHere = this.#local(journey.packet.destination) !== undefined
    const masked = this.#nameAnswer(journey, tracked) ?? this.#masquerade(journey, tracked)
    if (masked !== undefined && masked !== 'named') return this.#refuse(journey, { ...tracked, reason: masked })
    told.story.push(...nat(packet, journey.packet))
    const sender: Identity = { pod: name }
    const way = isHere ? this.#forward(journey.packet, packet) : this.#route(journey.packet, packet, sender)
    return { ...withoutSide(tracked), ...way }
  }

  /** Only nodes speak here, and each says whose packet it is. Otherwise it is like any that comes from others. */
  #fromTunnel({ node, as }: Hook & { readonly from: 'tunnel' }, journey: Journey): Result {
    const isNode = this.identityOf(node) === 'remote node'
    const pod = this.#cluster.pods.get(as)
    if (!isNode || (as !== 'node' && pod === undefined)) return drop('invalid identity')
    if (pod !== undefined) journey.claim = { address: journey.packet.source, pod }
    return this.#fromUplink(journey, 'tunnel')
  }

  #intoTunnel({ packet }: Journey): Result {
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) return drop(wrong)
    const to = this.#remoteNode(packet.destination)
    if (to === undefined) return drop('no tunnel')
    return { end: 'tunnel', reason: 'forwarded', rules: [], packet, wrapped: { node: to, as: 'remote node' } }
  }

  #fromUplink(journey: Journey, from: 'uplink' | 'tunnel' = 'uplink'): Result {
    const { packet, now } = journey
    const to = this.#local(packet.destination)
    const wrong = wrongHeader(packet)
    const tuple = wrong === undefined ? this.#fragments.tupleOf(packet, now) : undefined
    // What is for no pod, or cannot be read that far, is the node's own.
    if (wrong !== undefined && (to === undefined || !isReadable(packet))) return stack
    if (wrong !== undefined) return drop(wrong)
    if (tuple === undefined) return to === undefined ? stack : drop('fragment without first')
    journey.tuple = tuple
    if (to === undefined) {
      if (!this.#isNodes(packet.destination)) {
        const isService = this.#cluster.serviceCidrs.some((cidr) => contains(cidr, packet.destination))
        return isService ? this.#leave(journey, 'no service') : stack
      }
      const served = this.#serve('outside', journey)
      if (served !== undefined) return this.#leave(journey, served)
      if (this.#local(journey.packet.destination) === undefined) return { ...stack, packet: journey.packet }
    }
    if (isNeighbours(packet)) return drop('forbidden icmp')
    if (this.#isOwn(journey.packet.source)) {
      journey.told.marks.push('own address from outside')
      return drop('invalid identity')
    }
    journey.device = this.#local(journey.packet.destination)?.addresses[0] ?? ''
    const tracked = this.#track(from, journey)
    if (tracked.reset !== undefined) journey.packet = tracked.reset
    else if (tracked.reason !== 'forwarded') return this.#refuse(journey, tracked)
    const named = this.#nameAnswer(journey, tracked)
    if (named !== undefined && named !== 'named') return this.#refuse(journey, { ...tracked, reason: named })
    journey.told.story.push(...nat(packet, journey.packet))
    return { ...withoutSide(tracked), ...this.#forward(journey.packet, packet) }
  }

  #fromHost(journey: Journey): Result {
    const { packet, now } = journey
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) return drop(wrong)
    // The node and its pod are neighbours on that link.
    if (this.#local(packet.destination) === undefined || (isNeighbours(packet) && packet.hops === 255)) return stack
    const tuple = this.#fragments.tupleOf(packet, now)
    if (tuple === undefined) return drop('fragment without first')
    journey.tuple = tuple
    const tracked = this.#track('host', journey)
    if (tracked.reset !== undefined) journey.packet = tracked.reset
    else if (tracked.reason !== 'forwarded') return { end: 'drop', ...withoutSide(tracked), rules: [] }
    const named = this.#nameAnswer(journey, tracked)
    if (named !== undefined && named !== 'named')
      return { end: 'drop', ...withoutSide(tracked), reason: named, rules: [] }
    return { ...stack, ...withoutSide(tracked), packet: journey.packet }
  }

  /** This node's, or one of its pods'. */
  #isOwn(address: string): boolean {
    return this.identityOf(address) === 'host' || this.#local(address) !== undefined
  }

  /** Addresses that are neither pods' nor cluster addresses, and mean something to this node. */
  #isNodes(address: string): boolean {
    return (
      this.node.addresses.includes(address) ||
      [...this.#cluster.services.values()].some(
        (s) => (s.ingressIPs ?? []).includes(address) || (s.externalIPs ?? []).includes(address),
      )
    )
  }

  /**
   * A packet to a Service goes on to a backend; one of a connection that is translated already goes where that goes. A reason
   * where it ends here, `hairpin` and `out` where it needs nobody's leave; undefined: it goes on, changed or not.
   */
  #serve(side: Side, journey: Journey): Reason | 'hairpin' | 'out' | undefined {
    const { packet, tuple, now, told } = journey
    const { destination } = packet
    if (this.#cluster.podCidrs.some((cidr) => contains(cidr, destination))) return undefined
    const isHairpin = destination === hairpin[familyOf(destination)]
    const isService = this.#cluster.serviceCidrs.some((cidr) => contains(cidr, destination))
    const isNode = [...this.#cluster.nodes.values()].some((n) => n.addresses.includes(destination))
    if (!isHairpin && !isService && !isNode && !this.#isNodes(destination)) return undefined
    // What goes under the node's address does so last of all.
    const isWanted = ({ pair, side: of }: PairSide): boolean =>
      side === 'outside' || pair.isHairpin || (of === 0 && pair.kind === 'service')
    const about = this.#translateError(journey, isWanted)
    if (about !== undefined) {
      if (side === 'outside' && about.pair.isHairpin) return this.#impostor(journey)
      if (about.pair.isHairpin && side === 'inside') return 'hairpin'
      return about.pair.isOut ? 'out' : undefined
    }
    const known = this.#findPair(journey)
    // What a pod answers is of its connection first, and gets its name after that.
    if (known !== undefined && isWanted(known)) {
      // What a pod says to itself nobody outside says.
      if (side === 'outside' && known.pair.isHairpin) return this.#impostor(journey)
      told.story.push(known.side === 0 ? 'of a translated connection' : 'an answer of a translated connection')
      if (known.side === 0) {
        journey.asked = tuple
        journey.translated = true
      }
      this.#become(journey, onward(known))
      if (known.pair.isHairpin && side === 'inside') return 'hairpin'
      return known.pair.isOut ? 'out' : undefined
    }
    if (isHairpin) return 'no nat mapping'
    const port = hasPorts(tuple) ? tuple.destinationPort : undefined
    const asker = { side, source: packet.source, node: this.name }
    const found = findService(this.#cluster, asker, destination, tuple.protocol, port)
    if (found.kind === 'none') return undefined
    const isPlace = found.kind === 'found' || found.service !== undefined
    // The middle of a connection that began elsewhere is nobody's.
    if (isPlace && !beginsPair(packet, tuple)) return 'no nat mapping'
    if (found.kind === 'refused') return found.reason
    const backend = this.#affinities.choose(found, tuple, now, journey.choose)
    // From outside comes nothing of this node's own.
    if (side === 'outside' && this.#isOwn(packet.source)) return this.#impostor(journey)
    journey.backend = backend
    told.story.push(`${found.service.namespace}/${found.service.name} by ${backend.address}:${backend.port}`)
    return this.#beginService(side, journey, backend)
  }

  #impostor({ told }: Journey): Reason {
    told.marks.push('own address from outside')
    return 'invalid identity'
  }

  #beginService(side: Side, journey: Journey, backend: Endpoint): Reason | 'hairpin' | 'out' | undefined {
    const { packet, tuple, now, told } = journey
    const to: Tuple = { ...tuple, destination: backend.address, destinationPort: backend.port }
    const family = familyOf(packet.source)
    const isHairpin = side === 'inside' && backend.address === packet.source
    const own = this.node.addresses.find((a) => familyOf(a) === family) ?? ''
    const isHere = this.#local(backend.address) !== undefined || this.node.addresses.includes(backend.address)
    const isOut = side === 'outside' && !isHere
    const source = isHairpin ? hairpin[family] : isOut ? own : tuple.source
    const wanted = isOut && hasExchangeablePort(tuple) ? portInRange(tuple.sourcePort) : tuple.sourcePort
    const port = this.#choosePort(journey, { ...to, source }, wanted)
    if (typeof port === 'string') return port
    if (isHairpin) told.marks.push('hairpin')
    if (isOut) told.marks.push('sent on to another node')
    const pair: Pair = {
      question: tuple,
      to: { ...to, source, sourcePort: port },
      kind: 'service',
      isOut,
      isHairpin,
      sent: [packet.layer4.kind === 'tcp' ? endOf(packet) : undefined, undefined],
      fin: [false, false],
      reset: false,
      answered: false,
      lastSeen: now,
    }
    // What was outside until now is a Service's: another connection.
    const old = side === 'inside' ? this.#pairs.get(tuple)?.pair : undefined
    if (old?.kind === 'masquerade') this.#pairs.remove(old)
    this.#pairs.add(pair)
    journey.asked = tuple
    journey.translated = true
    this.#become(journey, pair.to)
    return isHairpin ? 'hairpin' : isOut ? 'out' : undefined
  }

  /** The source port of a new pair, or why there is none. */
  #choosePort(journey: Journey, to: Tuple, wanted: number): number | Reason {
    const { tuple, told } = journey
    const isFree = (sourcePort: number): boolean => this.#pairs.isFree(tuple, { ...to, sourcePort })
    if (!isFree(wanted) && !hasExchangeablePort(tuple)) return 'no nat port'
    if (this.#pairs.isFull) return 'map write failed'
    const port = journey.choose.port(wanted, isFree, tuple)
    if (port !== undefined && port !== wanted) told.marks.push('another port was taken')
    return port ?? 'no nat port'
  }

  /**
   * An error about a packet of a translated connection: to whom it was really meant, and about the packet as that one knows it
   * (RFC 5508, REQ-4). Undefined: it is about no such.
   */
  #translateError(journey: Journey, isWanted: (one: PairSide) => boolean = () => true): PairSide | undefined {
    const { packet, told } = journey
    const { layer4 } = packet
    if (layer4.kind !== 'error') return undefined
    const quoted = quotedBy(packet, layer4, (later) => this.#fragments.peek(later))
    if (quoted === 'lost' || quoted.kind !== 'quoted') return undefined
    const back = reversed(quoted.tuple)
    const known = this.#pairs.get(back)
    if (known === undefined || !isWanted(known)) return undefined
    const to = onward(known)
    told.marks.push('error translated')
    told.story.push('about a translated connection')
    journey.packet = {
      ...packet,
      source: packet.source === back.source ? to.source : packet.source,
      destination: to.destination,
      layer4: { ...layer4, inner: withEnds(layer4.inner, reversed(to)), summedAs: layer4.summedAs ?? layer4.inner },
    }
    journey.tuple = trackedTuple(journey.packet)
    return known
  }

  /** The pair of the packet as it is now, and the packet noted there. */
  #findPair({ packet, tuple, now, told }: Journey): PairSide | undefined {
    const known = packet.layer4.kind === 'error' ? undefined : this.#pairs.find(tuple, packet, now)
    if (known !== undefined && isReset(packet))
      told.marks.push(known.pair.reset ? 'translation reset' : 'translation not reset by a stranger')
    return known
  }

  #become(journey: Journey, to: Tuple): void {
    journey.packet = withEnds(journey.packet, to)
    journey.tuple = to
  }

  #leave(journey: Journey, served: Reason | 'hairpin' | 'out'): Result {
    const { packet } = journey
    // What a pod says to itself nobody else is asked about; what only passes through is asked about where it arrives.
    const passes = { reason: 'forwarded', rules: [] } as const
    if (served === 'hairpin') return { ...passes, ...this.#forward(packet, undefined) }
    const sender = journey.claim === undefined ? 'remote node' : { pod: nameOf(journey.claim.pod) }
    if (served === 'out') return { ...passes, ...this.#route(packet, undefined, sender) }
    return this.#refuse(journey, { reason: served, rules: [], side: 0, translated: false, adopted: false })
  }

  /** An answer bears the name that was asked. */
  #nameAnswer(
    journey: Journey,
    { side, translated, adopted, established = false }: Tracked,
  ): Reason | 'named' | undefined {
    // Also where the flow is gone and its last packets come again.
    if (translated ? side === 0 : !adopted || established) return undefined
    if (journey.packet.layer4.kind === 'error') {
      if (this.#translateError(journey) !== undefined) return 'named'
    } else {
      const known = this.#pairs.find(journey.tuple, journey.packet, journey.now)
      if (known?.side === 1) {
        this.#become(journey, onward(known))
        return 'named'
      }
    }
    return translated ? 'no nat mapping' : undefined
  }

  /** What a pod says to the world it says under its node's address. */
  #masquerade(journey: Journey, { side, adopted }: Tracked): Reason | undefined {
    const { packet, tuple, now, told } = journey
    const { destination } = packet
    const family = familyOf(destination)
    const own = this.node.addresses.find((a) => familyOf(a) === family)
    const isInside =
      this.#cluster.podCidrs.some((cidr) => contains(cidr, destination)) ||
      [...this.#cluster.nodes.values()].some((n) => n.addresses.includes(destination)) ||
      [...this.#cluster.services.values()].some((s) => (s.ingressIPs ?? []).includes(destination))
    if (isInside || own === undefined) return undefined
    // Who was asked under the pod's own address answers under it.
    if (side === 1 && !adopted) return undefined
    // Of a Service that is no more: its packets must not begin something else under the same ports.
    if ((this.#pairs.get(tuple)?.pair.kind ?? 'masquerade') !== 'masquerade') return 'no nat mapping'
    if (this.#translateError(journey, ({ pair }) => pair.kind === 'masquerade') !== undefined) return undefined
    const known = this.#findPair(journey)
    if (known !== undefined) {
      this.#become(journey, onward(known))
      return undefined
    }
    if (side === 1) return undefined
    if (packet.layer4.kind === 'error') return 'no nat mapping'
    const isIcmp = tuple.protocol === protocols.icmp || tuple.protocol === protocols.icmp6
    if (isIcmp && tuple.sourcePort === 0) return 'unsupported nat protocol'
    if (!beginsPair(packet, tuple)) return 'no nat mapping'
    const wanted = hasExchangeablePort(tuple) ? portInRange(tuple.sourcePort) : tuple.sourcePort
    const to: Tuple = { ...tuple, source: own }
    const port = this.#choosePort(journey, to, wanted)
    if (typeof port === 'string') return port
    told.marks.push('masqueraded')
    const pair: Pair = {
      question: tuple,
      to: { ...to, sourcePort: port },
      kind: 'masquerade',
      isOut: false,
      isHairpin: false,
      sent: [packet.layer4.kind === 'tcp' ? endOf(packet) : undefined, undefined],
      fin: [false, false],
      reset: false,
      answered: false,
      lastSeen: now,
    }
    this.#pairs.add(pair)
    this.#become(journey, pair.to)
    return undefined
  }

  #refuse(journey: Journey, tracked: Tracked): Result {
    const { packet, asked } = journey
    // From whom the sender thinks to hear.
    const seen = asked === undefined ? packet : withEnds(packet, asked)
    const answer = refused.includes(tracked.reason) ? refusalOf(seen, tracked.reason) : undefined
    if (answer === undefined) return { end: 'drop', ...withoutSide(tracked), rules: [] }
    // To each pod so many a second, then silence.
    if (!this.#refusals.allow(journey.device, journey.now))
      return { end: 'drop', ...withoutSide(tracked), reason: 'rate limited', rules: [] }
    return { end: 'refusal', ...withoutSide(tracked), rules: [], packet: answer }
  }

  #track(from: Hook['from'], journey: Journey): Tracked {
    const { layer4 } = journey.packet
    if (layer4.kind === 'error' || isNeighbours(journey.packet)) return this.#relate(from, journey)
    const flow = this.flows.find(journey.tuple, journey.now)
    if (flow?.isLocal === true && (from === 'uplink' || from === 'tunnel')) {
      journey.told.marks.push('own address from outside')
      return { reason: 'invalid identity', rules: [], side: 0, translated: false, adopted: false }
    }
    if (flow !== undefined) {
      const { established } = flow
      const known = this.#continue(flow, journey)
      if (known !== undefined) return { ...known, translated: flow.translated, adopted: flow.adopted, established }
    }
    return this.#begin(from, journey)
  }

  /** An error is of the connection of the packet that it quotes. It changes nothing there. */
  #relate(from: Hook['from'], { packet, now, told }: Journey): Tracked {
    const pass = { reason: 'forwarded', rules: [], side: 0, translated: false, adopted: false } as const
    const { layer4 } = packet
    if (layer4.kind !== 'error') return { ...pass, reason: 'forbidden icmp' }
    const quoted = quotedBy(packet, layer4, (later) => this.#fragments.peek(later))
    if (quoted === 'lost') return { ...pass, reason: 'fragment without first' }
    if (quoted.kind === 'short') return { ...pass, reason: 'truncated header' }
    // To whoever sent what it quotes; and a pod is nobody's router: it speaks of what was sent to itself.
    if (
      quoted.kind === 'forbidden' ||
      quoted.tuple.source !== packet.destination ||
      (from === 'pod' && quoted.tuple.destination !== packet.source)
    )
      return { ...pass, reason: 'forbidden icmp' }
    const flow = this.flows.find(quoted.tuple, now)
    if (flow !== undefined && !this.#isDisowned(flow)) {
      const judged = this.#judgeFlow(flow)
      if (flow.epoch === this.#epoch || judged.reason === 'forwarded') {
        flow.epoch = this.#epoch
        const side = sameTuple(quoted.tuple, flow.client) ? 1 : 0
        told.marks.push('error of a known connection')
        told.story.push('about a known connection')
        return {
          ...pass,
          rules: judged.rules,
          ...this.#ends(flow.client, flow.fromHost, side, flow.claim),
          side,
          translated: flow.translated,
          adopted: flow.adopted,
          established: flow.established,
        }
      }
    }
    const either = [quoted.tuple, reversed(quoted.tuple)].some((t) => this.#judgeTuple(t, false).reason === 'forwarded')
    if (either) {
      told.marks.push('error of an allowed connection')
      return pass
    }
    return { ...pass, reason: 'forbidden icmp', ...this.#ends(quoted.tuple, false, 1, undefined) }
  }

  /** Undefined: the flow that was found does not count, the packet begins another. */
  #continue(flow: Flow, { packet, tuple, now, told }: Journey): Omit<Tracked, 'translated' | 'adopted'> | undefined {
    if (this.#isDisowned(flow)) {
      told.marks.push('address of another pod before')
      this.flows.remove(flow)
      return undefined
    }
    const side = sameTuple(tuple, flow.client) ? 0 : 1
    const judged = this.#judgeFlow(flow)
    const ends = { ...this.#ends(flow.client, flow.fromHost, side, flow.claim), side } as const
    if (flow.epoch !== this.#epoch) {
      if (judged.reason !== 'forwarded') {
        told.marks.push(flow.established ? 'established flow cut' : 'unanswered flow cut')
        told.story.push('known, but the rules have changed', ...judged.story)
        this.flows.remove(flow)
        const reset = flow.established ? resetOnward(packet) : undefined
        return { reason: judged.reason, rules: [], ...ends, ...(reset === undefined ? {} : { reset }) }
      }
      flow.epoch = this.#epoch
    }
    if (!flow.established) {
      told.story.push(side === 0 ? 'not answered yet' : 'an answer')
      const full = followUnanswered(this.flows, flow, packet, side, now)
      if (flow.established) told.marks.push('answered')
      return { reason: full ?? 'forwarded', rules: full === undefined ? judged.rules : [], ...ends }
    }
    if (beginsAnother(flow, packet)) {
      told.marks.push('closing tuple reused')
      told.story.push('a beginning on a connection that is closing')
      this.flows.remove(flow)
      return undefined
    }
    told.story.push(side === 0 ? 'established' : 'an answer, established')
    const wasClosing = flow.closing
    followEstablished(this.flows, flow, packet, side, now)
    if (isReset(packet)) told.marks.push(this.flows.has(flow) ? 'reset outside the window' : 'reset')
    else if (flow.closing && !wasClosing) told.marks.push('closed both ways')
    return { reason: 'forwarded', rules: judged.rules, ...ends }
  }

  #begin(from: Hook['from'], journey: Journey): Tracked {
    const { packet, tuple, told, translated } = journey
    const fromHost = from === 'host'
    const { claim } = journey
    const judged = this.#judgeTuple(tuple, fromHost, claim)
    const begins = beginsFlow(packet, tuple)
    const ends = this.#ends(tuple, fromHost, 0, claim)
    if (judged.reason === 'forwarded') {
      told.story.push(...judged.story)
      if (!begins) told.marks.push('adopted')
      this.#remember(journey, tuple, 0, !begins, fromHost)
      return { reason: 'forwarded', rules: judged.rules, ...ends, side: 0, translated, adopted: !begins }
    }
    if (begins) {
      told.story.push(...judged.story)
      return { reason: judged.reason, rules: [], ...ends, side: 0, translated, adopted: false }
    }
    const client = reversed(tuple)
    const answer = this.#judgeTuple(client, false, claim)
    // What a Service was just asked is no answer.
    if (translated || answer.reason !== 'forwarded')
      return { reason: 'invalid flow', rules: [], ...ends, side: 0, translated, adopted: false }
    told.marks.push('adopted as an answer')
    told.story.push('no beginning was seen: it may be an answer', ...answer.story)
    this.#remember(journey, client, 1, true, false)
    return {
      reason: 'forwarded',
      rules: answer.rules,
      ...this.#ends(client, false, 1, claim),
      side: 1,
      translated,
      adopted: true,
    }
  }

  #remember(
    { packet, now, translated, claim }: Journey,
    client: Tuple,
    side: 0 | 1,
    adopted: boolean,
    fromHost: boolean,
  ): void {
    // The end of what is not known leaves nothing behind.
    if (isReset(packet)) return
    const counted = this.#local(client.source) ?? this.#local(client.destination)
    const countedTo = counted?.addresses[0]
    const isHere = (address: string): boolean => this.#local(address) !== undefined
    const isLocal = (fromHost || isHere(client.source)) && isHere(client.destination)
    const known = { adopted, fromHost, translated, isLocal, lastSeen: now, epoch: this.#epoch, countedTo, claim }
    this.flows.begin(flowOf(packet, client, side, known))
  }

  /** As it was judged; what has changed since asks who has the addresses. */
  #judgeFlow(flow: Flow): Verdict {
    if (flow.epoch !== this.#epoch) flow.claim = undefined
    return this.#judgeTuple(flow.client, flow.fromHost, flow.claim)
  }

  /** Who the packet is from and to; `side` 1: it is the server's. */
  #ends(
    client: Tuple,
    fromHost: boolean,
    side: 0 | 1,
    claim: Claim | undefined,
  ): { readonly source: Identity; readonly destination: Identity } {
    const who = (address: string): Identity =>
      claim?.address === address ? { pod: nameOf(claim.pod) } : this.identityOf(address)
    const asks = fromHost ? 'host' : who(client.source)
    const answers = who(client.destination)
    return side === 0 ? { source: asks, destination: answers } : { source: answers, destination: asks }
  }

  /** Egress of the source where it is a pod of this node, ingress of the destination where that is. */
  #judgeTuple(tuple: Tuple, fromHost: boolean, claim?: Claim): Verdict {
    const asked = askedOf(tuple)
    const rules: string[] = []
    const story: string[] = []
    const party = (address: string): Party => ({
      address,
      // An identity is of all pods with these labels: it makes nobody the pod itself.
      pod: claim?.address === address ? { ...claim.pod, name: `like ${claim.pod.name}` } : this.#pods.get(address),
    })
    const sides: [Pod | undefined, 'egress' | 'ingress', Party][] = [
      [fromHost ? undefined : this.#local(tuple.source), 'egress', party(tuple.destination)],
      [this.#local(tuple.destination), 'ingress', party(tuple.source)],
    ]
    for (const [pod, direction, peer] of sides) {
      if (pod === undefined) continue
      // The node that a pod runs on always reaches it (NetworkPolicy, "Traffic to and from the node").
      if (direction === 'ingress' && (fromHost || this.identityOf(peer.address) === 'host')) continue
      const judgement = judgePolicy(this.#cluster, direction, pod, peer, asked)
      story.push(tell(judgement, direction, pod))
      if (!judgement.allowed) {
        const unknown = peer.pod === undefined && this.identityOf(peer.address) === 'unknown pod'
        const reason = pod.unready === true ? 'host not ready' : unknown ? 'unknown sender' : 'policy denied'
        return { reason, rules: [], story }
      }
      rules.push(...judgement.rules)
    }
    return { reason: 'forwarded', rules, story }
  }

  #forward(packet: Packet, came: Packet | undefined): Way {
    const to = this.#local(packet.destination)
    if (to === undefined || packet.hops < 2) return packet === came ? { end: 'stack' } : { end: 'stack', packet }
    return { end: 'pod', packet: { ...packet, hops: packet.hops - 1 }, pod: nameOf(to) }
  }

  /** By the node's routes: what is its own, and what needs an ICMP error, is the stack's. `sender`: who it is to be wrapped as. */
  #route(packet: Packet, came: Packet | undefined, sender: Identity): Way {
    const { addresses, podCidrs } = this.node
    const toStack: Way = packet === came ? { end: 'stack' } : { end: 'stack', packet }
    const bytes = frameLength(packet) - etherBytes
    const onward = { ...packet, hops: packet.hops - 1 }
    const node = this.#cluster.isTunnelled === true ? this.#remoteNode(packet.destination) : undefined
    if (node !== undefined) {
      if (packet.hops < 2 || bytes > mtu - tunnelBytes) return toStack
      return { end: 'tunnel', packet: onward, wrapped: { node, as: sender } }
    }
    // Nobody knows where that is.
    const isStranger = this.#cluster.isTunnelled === true && this.identityOf(packet.destination) === 'unknown pod'
    if (isStranger) return { end: 'drop', reason: 'no tunnel' }
    const isOwn = addresses.includes(packet.destination) || podCidrs.some((c) => contains(c, packet.destination))
    if (isOwn || packet.hops < 2 || bytes > mtu) return toStack
    return { end: 'out', packet: onward }
  }

  /** IPv4 address of the other node that the address is on, or is itself; undefined: of none that is known. */
  #remoteNode(address: string): string | undefined {
    const name = this.#pods.get(address)?.node
    for (const node of this.#cluster.nodes.values())
      if (node.name !== this.name && (node.name === name || node.addresses.includes(address))) return node.addresses[0]
    return undefined
  }
}

/** Of every device; and what is put around a packet in the tunnel (RFC 7348: Ethernet, IPv4, UDP and VXLAN headers). */
export const mtu = 1_500
const tunnelBytes = 14 + 20 + 8 + 8

type Way = Pick<Outcome, 'end' | 'packet' | 'pod' | 'wrapped'> & { readonly reason?: Reason }

const stack = { end: 'stack', reason: 'forwarded', rules: [] } as const
const drop = (reason: Reason): Result => ({ end: 'drop', reason, rules: [] })

/** What of tracking is told outside. */
function withoutSide({ reason, rules, source, destination }: Tracked): Omit<Result, 'end'> {
  return {
    reason,
    rules,
    ...(source === undefined ? {} : { source }),
    ...(destination === undefined ? {} : { destination }),
  }
}

/** Names that were exchanged, for a reader. */
function nat(came: Packet, goes: Packet): string[] {
  if (came === goes) return []
  const of = ({ source, destination, sourcePort, destinationPort }: Tuple): string =>
    `${source}:${sourcePort} > ${destination}:${destinationPort}`
  return [`as ${of(trackedTuple(goes))}`]
}

const hasPorts = ({ protocol }: Tuple): boolean =>
  protocol === protocols.tcp || protocol === protocols.udp || protocol === protocols.sctp

function tell(judgement: Judgement, direction: string, pod: Pod): string {
  if (!judgement.isolated) return `${nameOf(pod)} is open for ${direction}`
  if (judgement.allowed) return `${direction} of ${nameOf(pod)} by ${judgement.rules[0] ?? 'itself'}`
  return `${direction} of ${nameOf(pod)} is closed by ${judgement.policies.join(', ')}`
}

const askedOf = ({ protocol, destinationPort }: Tuple): Asked => ({
  protocol,
  port:
    protocol === protocols.tcp || protocol === protocols.udp || protocol === protocols.sctp
      ? destinationPort
      : undefined,
})

/** Neighbour discovery is the link's own affair (RFC 4861): it is never between pods. */
const isNeighbours = ({ source, layer4 }: Packet): boolean =>
  familyOf(source) === 6 && layer4.kind === 'message' && layer4.type >= 133 && layer4.type <= 137

/** A pod has no use for others' multicast, and its link is nobody else's. */
function isLinkLocal({ source, destination }: Packet): boolean {
  if (familyOf(destination) === 4) return contains('224.0.0.0/4', destination)
  return contains('ff00::/8', destination) || contains('fe80::/10', destination) || contains('fe80::/10', source)
}

/** Ports, or 0 for what has none: such a packet is known by its addresses and protocol. */
export function trackedTuple(packet: Packet): Tuple {
  const { source, destination } = packet
  return tupleOf(packet) ?? { source, destination, sourcePort: 0, destinationPort: 0, protocol: protocolOf(packet) }
}
