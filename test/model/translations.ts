import { contains, familyOf } from './address.ts'
import { Affinities } from './affinity.ts'
import type { Endpoint } from './cluster.ts'
import { quotedBy } from './errors.ts'
import type { Fragments } from './fragments.ts'
import { type Journey, type Tracked, trackedTuple } from './journey.ts'
import {
  beginsPair,
  hairpin,
  hasExchangeablePort,
  onward,
  type Pair,
  type PairSide,
  Pairs,
  portInRange,
} from './nat.ts'
import { hasPorts, protocols, reversed, type Tuple, withEnds } from './packet.ts'
import type { Place } from './place.ts'
import type { Reason } from './reasons.ts'
import { findService, type Side } from './services.ts'
import { endOf, isReset } from './tracking.ts'

/** Names that packets exchange at a node: a Service's for its backend's, a pod's for its node's, and back. */
export class Translations {
  readonly #place: Place
  readonly #fragments: Fragments
  readonly #pairs: Pairs
  readonly #affinities = new Affinities()

  constructor(place: Place, fragments: Fragments, entriesMax: number) {
    this.#place = place
    this.#fragments = fragments
    this.#pairs = new Pairs(entriesMax)
  }

  sweep(now: number): void {
    this.#pairs.sweep(now)
  }

  /**
   * A packet to a Service goes on to a backend; one of a connection that is translated already goes where that goes. A reason
   * where it ends here, `hairpin` and `out` where it needs nobody's leave; undefined: it goes on, changed or not.
   */
  serve(side: Side, journey: Journey): Reason | 'hairpin' | 'out' | undefined {
    const { packet, tuple, now, told } = journey
    const { destination } = packet
    if (this.#place.cluster.podCidrs.some((cidr) => contains(cidr, destination))) return undefined
    const isHairpin = destination === hairpin[familyOf(destination)]
    const isService = this.#place.cluster.serviceCidrs.some((cidr) => contains(cidr, destination))
    const isNode = [...this.#place.cluster.nodes.values()].some((n) => n.addresses.includes(destination))
    if (!isHairpin && !isService && !isNode && !this.#place.isNodes(destination)) return undefined
    // What goes under the node's address does so last of all.
    const isWanted = ({ pair, side: of }: PairSide): boolean =>
      side === 'outside' || pair.isHairpin || (of === 0 && pair.kind === 'service')
    const about = this.#translateError(journey, isWanted)
    if (about !== undefined) {
      if (side === 'outside' && about.pair.isHairpin) return this.#impostor(journey)
      if (about.pair.isHairpin && side === 'inside') return 'hairpin'
      return about.pair.isOut ? 'out' : undefined
    }
    const known = this.#find(journey)
    // What a pod answers is of its connection first, and gets its name after that.
    if (known !== undefined && isWanted(known)) {
      // What a pod says to itself nobody outside says.
      if (side === 'outside' && known.pair.isHairpin) return this.#impostor(journey)
      told.story.push(known.side === 0 ? 'of a translated connection' : 'an answer of a translated connection')
      if (known.side === 0) {
        journey.asked = tuple
        journey.translated = true
      }
      become(journey, onward(known))
      if (known.pair.isHairpin && side === 'inside') return 'hairpin'
      return known.pair.isOut ? 'out' : undefined
    }
    if (isHairpin) return 'no nat mapping'
    const port = hasPorts(tuple) ? tuple.destinationPort : undefined
    const asker = { side, source: packet.source, node: this.#place.name }
    const found = findService(this.#place.cluster, asker, destination, tuple.protocol, port)
    if (found.kind === 'none') return undefined
    const isPlace = found.kind === 'found' || found.service !== undefined
    // The middle of a connection that began elsewhere is nobody's.
    if (isPlace && !beginsPair(packet, tuple)) return 'no nat mapping'
    if (found.kind === 'refused') return found.reason
    const backend = this.#affinities.choose(found, tuple, now, journey.choose)
    // From outside comes nothing of this node's own.
    if (side === 'outside' && this.#place.isOwn(packet.source)) return this.#impostor(journey)
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
    const own = this.#place.node.addresses.find((a) => familyOf(a) === family) ?? ''
    const isHere =
      this.#place.local(backend.address) !== undefined || this.#place.node.addresses.includes(backend.address)
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
    become(journey, pair.to)
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
  #find({ packet, tuple, now, told }: Journey): PairSide | undefined {
    const known = packet.layer4.kind === 'error' ? undefined : this.#pairs.find(tuple, packet, now)
    if (known !== undefined && isReset(packet))
      told.marks.push(known.pair.reset ? 'translation reset' : 'translation not reset by a stranger')
    return known
  }

  /** An answer bears the name that was asked. */
  nameAnswer(
    journey: Journey,
    { side, translated, adopted, established = false }: Tracked,
  ): Reason | 'named' | undefined {
    // Also where the flow is gone and its last packets come again.
    if (translated ? side === 0 : !adopted || established) return undefined
    if (journey.packet.layer4.kind === 'error') {
      if (this.#translateError(journey) !== undefined) return 'named'
    } else {
      const known = this.#pairs.get(journey.tuple)
      if (known?.side === 1) {
        this.#pairs.find(journey.tuple, journey.packet, journey.now)
        become(journey, onward(known))
        return 'named'
      }
    }
    return translated ? 'no nat mapping' : undefined
  }

  /** What a pod says to the world it says under its node's address. */
  masquerade(journey: Journey, { side, adopted }: Tracked): Reason | undefined {
    const { packet, tuple, now, told } = journey
    const { destination } = packet
    const family = familyOf(destination)
    const own = this.#place.node.addresses.find((a) => familyOf(a) === family)
    const isInside =
      this.#place.cluster.podCidrs.some((cidr) => contains(cidr, destination)) ||
      [...this.#place.cluster.nodes.values()].some((n) => n.addresses.includes(destination)) ||
      [...this.#place.cluster.services.values()].some((s) => (s.ingressIPs ?? []).includes(destination))
    if (isInside || own === undefined) return undefined
    // Who was asked under the pod's own address answers under it.
    if (side === 1 && !adopted) return undefined
    // Of a Service that is no more: its packets must not begin something else under the same ports.
    const before = this.#pairs.get(tuple)?.pair
    if (before !== undefined && before.kind !== 'masquerade') return 'no nat mapping'
    // Who says that it has no hop left says so to the pod, about what the pod sent.
    if (packet.hops < 2) return undefined
    if (this.#translateError(journey, ({ pair }) => pair.kind === 'masquerade') !== undefined) return undefined
    const known = this.#find(journey)
    if (known !== undefined) {
      become(journey, onward(known))
      return undefined
    }
    // But for one that was there under another name, and begins again.
    if (side === 1 && before === undefined) return undefined
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
    become(journey, pair.to)
    return undefined
  }
}

function become(journey: Journey, to: Tuple): void {
  journey.packet = withEnds(journey.packet, to)
  journey.tuple = to
}
