import { contains } from './address.ts'
import { type Cluster, nameOf } from './cluster.ts'
import { Connections } from './connections.ts'
import { Fragments } from './fragments.ts'
import { isLinkLocal, isNeighbours, isReadable, wrongHeader } from './headers.ts'
import {
  type Chooser,
  drop,
  firstChoice,
  type Hook,
  type Identity,
  type Journey,
  type Outcome,
  type Result,
  type Told,
  type Tracked,
  trackedTuple,
} from './journey.ts'
import { type Packet, type Tuple, withEnds } from './packet.ts'
import { Place } from './place.ts'
import type { Reason } from './reasons.ts'
import { isTold, Refusals, refusalOf } from './refusal.ts'
import type { Limits } from './tracking.ts'
import { Translations } from './translations.ts'
import { forward, route } from './way.ts'

/** One node of a cluster: the rules are the cluster's, connections and translations are its own. */
export class NodeModel {
  readonly #place: Place
  readonly #fragments = new Fragments()
  readonly #connections: Connections
  readonly #translations: Translations
  readonly #refusals = new Refusals()

  constructor(
    name: string,
    cluster: Cluster,
    limits: Limits = { flows: 1e6, share: 1e6, waiting: 1e5, translations: 1e6 },
  ) {
    this.#place = new Place(name, cluster)
    this.#connections = new Connections(this.#place, this.#fragments, limits)
    this.#translations = new Translations(this.#place, this.#fragments, limits.translations)
  }

  get cluster(): Cluster {
    return this.#place.cluster
  }

  /** The cluster is now this. Flows are judged again at their next packet; an address that another pod has now begins afresh. */
  change(cluster: Cluster): void {
    for (const address of this.#place.change(cluster)) this.#connections.flows.forgetShare(address)
  }

  /** What is over goes, as it does every few seconds. */
  sweep(now: number): void {
    this.#connections.flows.sweep(now)
    this.#translations.sweep(now)
  }

  /** What becomes of the packet, and what the node remembers of it. */
  judge(hook: Hook, packet: Packet, now: number, choose: Chooser = firstChoice): Outcome {
    const told: Told = { story: [], marks: [] }
    const journey: Journey = { packet, tuple: trackedTuple(packet), now, told, choose, device: '', translated: false }
    const result = this.#go(hook, journey)
    const { backend, back } = journey
    return {
      ...result,
      ...(backend === undefined ? {} : { backend }),
      ...(back === undefined ? {} : { back }),
      ...told,
    }
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
    const own = this.#place.cluster.pods.get(name)?.addresses ?? []
    if (!own.includes(packet.source)) return drop('invalid source')
    journey.device = own[0] ?? ''
    const tuple = this.#fragments.tupleOf(packet, now)
    if (tuple === undefined) return drop('fragment without first')
    journey.tuple = tuple
    const served = this.#translations.serve('inside', journey)
    if (served !== undefined) return this.#leave(journey, served)
    const tracked = this.#connections.track('pod', journey)
    if (tracked.reset !== undefined) cut(journey, tracked.reset)
    else if (tracked.reason !== 'forwarded') return this.#refuse(journey, tracked)
    // Names that are exchanged from here on do not change the way.
    const isHere = this.#place.local(journey.packet.destination) !== undefined
    const masked = this.#translations.nameAnswer(journey, tracked) ?? this.#translations.masquerade(journey, tracked)
    if (masked !== undefined && masked !== 'named') return this.#refuse(journey, { ...tracked, reason: masked })
    told.story.push(...nat(packet, journey.packet))
    const sender: Identity = { pod: name }
    const way = isHere
      ? forward(this.#place, journey.packet, packet)
      : route(this.#place, journey.packet, packet, sender)
    return { ...withoutSide(tracked), ...way }
  }

  /** Only nodes speak here, and each says whose packet it is. Otherwise it is like any that comes from others. */
  #fromTunnel({ node, as }: Hook & { readonly from: 'tunnel' }, journey: Journey): Result {
    const isNode = this.#place.identityOf(node) === 'remote node'
    const pod = this.#place.cluster.pods.get(as)
    if (!isNode || (as !== 'node' && pod === undefined)) return drop('invalid identity')
    if (pod !== undefined) journey.claim = { address: journey.packet.source, pod }
    return this.#fromUplink(journey, 'tunnel')
  }

  #intoTunnel({ packet }: Journey): Result {
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) return drop(wrong)
    const to = this.#place.remoteNode(packet.destination)
    if (to === undefined) return drop('no tunnel')
    return { end: 'tunnel', reason: 'forwarded', rules: [], packet, wrapped: { node: to, as: 'remote node' } }
  }

  #fromUplink(journey: Journey, from: 'uplink' | 'tunnel' = 'uplink'): Result {
    const { packet, now } = journey
    const to = this.#place.local(packet.destination)
    const wrong = wrongHeader(packet)
    const tuple = wrong === undefined ? this.#fragments.tupleOf(packet, now) : undefined
    // What is for no pod, or cannot be read that far, is the node's own.
    if (wrong !== undefined && (to === undefined || !isReadable(packet))) return stack
    if (wrong !== undefined) return drop(wrong)
    if (tuple === undefined) return to === undefined ? stack : drop('fragment without first')
    journey.tuple = tuple
    if (to === undefined) {
      if (!this.#place.isNodes(packet.destination)) {
        const isService = this.#place.cluster.serviceCidrs.some((cidr) => contains(cidr, packet.destination))
        return isService ? this.#leave(journey, 'no service') : stack
      }
      const served = this.#translations.serve('outside', journey)
      if (served !== undefined) return this.#leave(journey, served)
      if (this.#place.local(journey.packet.destination) === undefined) return { ...stack, packet: journey.packet }
    }
    if (isNeighbours(packet)) return drop('forbidden icmp')
    if (this.#place.isOwn(journey.packet.source)) {
      journey.told.marks.push('own address from outside')
      this.#connections.tidy(journey)
      return drop('invalid identity')
    }
    journey.device = this.#place.local(journey.packet.destination)?.addresses[0] ?? ''
    const tracked = this.#connections.track(from, journey)
    if (tracked.reset !== undefined) cut(journey, tracked.reset)
    else if (tracked.reason !== 'forwarded') return this.#refuse(journey, tracked)
    const named = this.#translations.nameAnswer(journey, tracked)
    if (named !== undefined && named !== 'named') return this.#refuse(journey, { ...tracked, reason: named })
    journey.told.story.push(...nat(packet, journey.packet))
    return { ...withoutSide(tracked), ...forward(this.#place, journey.packet, packet) }
  }

  #fromHost(journey: Journey): Result {
    const { packet, now } = journey
    const wrong = wrongHeader(packet)
    if (wrong !== undefined) return drop(wrong)
    // The node and its pod are neighbours on that link.
    if (this.#place.local(packet.destination) === undefined || (isNeighbours(packet) && packet.hops === 255))
      return stack
    const tuple = this.#fragments.tupleOf(packet, now)
    if (tuple === undefined) return drop('fragment without first')
    journey.tuple = tuple
    const tracked = this.#connections.track('host', journey)
    if (tracked.reset !== undefined) cut(journey, tracked.reset)
    else if (tracked.reason !== 'forwarded') return { end: 'drop', ...withoutSide(tracked), rules: [] }
    const named = this.#translations.nameAnswer(journey, tracked)
    if (named !== undefined && named !== 'named')
      return { end: 'drop', ...withoutSide(tracked), reason: named, rules: [] }
    return { ...stack, ...withoutSide(tracked), packet: journey.packet }
  }

  #leave(journey: Journey, served: Reason | 'hairpin' | 'out'): Result {
    const { packet } = journey
    // What a pod says to itself nobody else is asked about; what only passes through is asked about where it arrives.
    const passes = { reason: 'forwarded', rules: [] } as const
    if (served === 'hairpin') return { ...passes, ...forward(this.#place, packet, undefined) }
    const sender = journey.claim === undefined ? 'remote node' : { pod: nameOf(journey.claim.pod) }
    if (served === 'out') return { ...passes, ...route(this.#place, packet, undefined, sender) }
    return this.#refuse(journey, { reason: served, rules: [], side: 0, translated: false, adopted: false })
  }

  #refuse(journey: Journey, tracked: Tracked): Result {
    const { packet, asked } = journey
    // From whom the sender thinks to hear.
    const seen = asked === undefined ? packet : withEnds(packet, asked)
    const answer = isTold(tracked.reason) ? refusalOf(seen, tracked.reason) : undefined
    if (answer === undefined) return { end: 'drop', ...withoutSide(tracked), rules: [] }
    // To each pod so many a second, then silence.
    if (!this.#refusals.allow(journey.device, journey.now))
      return { end: 'drop', ...withoutSide(tracked), reason: 'rate limited', rules: [] }
    return { end: 'refusal', ...withoutSide(tracked), rules: [], packet: answer }
  }
}

/** The packet goes on as `reset`, and its sender, too, is told: by whom it thinks to be heard. Who sends a reset knows. */
function cut(journey: Journey, reset: Packet): void {
  const { packet, asked } = journey
  journey.back = refusalOf(asked === undefined ? packet : withEnds(packet, asked))
  journey.packet = reset
}

const stack = { end: 'stack', reason: 'forwarded', rules: [] } as const

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
