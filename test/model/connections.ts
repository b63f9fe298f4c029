import { nameOf, type Pod } from './cluster.ts'
import { quotedBy } from './errors.ts'
import type { Fragments } from './fragments.ts'
import { isNeighbours } from './headers.ts'
import type { Hook, Identity, Journey, Tracked } from './journey.ts'
import { hasPorts, reversed, type Tuple } from './packet.ts'
import type { Place } from './place.ts'
import { type Asked, type Judgement, judgePolicy, type Party } from './policy.ts'
import type { Reason } from './reasons.ts'
import { isTold, resetOnward } from './refusal.ts'
import {
  beginsAnother,
  beginsFlow,
  type Claim,
  type Flow,
  Flows,
  flowOf,
  followEstablished,
  followUnanswered,
  isReset,
  type Limits,
  sameTuple,
} from './tracking.ts'

interface Verdict {
  readonly reason: Reason
  readonly rules: readonly string[]
  readonly story: readonly string[]
}

/** Policy and tracking together: of which connection a packet is, and whether that may be. */
export class Connections {
  readonly flows: Flows
  readonly #place: Place
  readonly #fragments: Fragments

  constructor(place: Place, fragments: Fragments, limits: Limits) {
    this.flows = new Flows(limits)
    this.#place = place
    this.#fragments = fragments
  }

  /** Whoever has the address has nothing to do with the flows of whoever had it before. */
  #isDisowned({ epoch, client }: Flow): boolean {
    return epoch < this.#place.since(client.source) || epoch < this.#place.since(client.destination)
  }

  /** A packet that nobody may have sent has come: what it would have been of is put away where that is over, or another pod's. */
  tidy({ packet, tuple, now }: Journey): void {
    if (packet.layer4.kind === 'error') return
    const flow = this.flows.lying(tuple)
    if (flow === undefined || flow.isLocal) return
    if (this.flows.find(tuple, now) === flow && this.#isDisowned(flow)) this.flows.remove(flow)
  }

  track(from: Hook['from'], journey: Journey): Tracked {
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
      if (flow.epoch === this.#place.epoch || judged.reason === 'forwarded') {
        flow.epoch = this.#place.epoch
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
    if (flow.epoch !== this.#place.epoch) {
      if (judged.reason !== 'forwarded') {
        told.marks.push(flow.established ? 'established flow cut' : 'unanswered flow cut')
        told.story.push('known, but the rules have changed', ...judged.story)
        this.flows.remove(flow)
        const waitsBehind = side === 1 && !flow.established && !flow.adopted ? flow.sent[0] : undefined
        // What is not known yet is no reason to end what has hardly begun: who asks will ask again.
        const reset = flow.established || isTold(judged.reason) ? resetOnward(packet, waitsBehind) : undefined
        if (reset === undefined) return { reason: judged.reason, rules: [], ...ends }
        told.story.push('both ends know')
        return { reason: judged.reason, rules: [], ...ends, reset }
      }
      flow.epoch = this.#place.epoch
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
    const counted = this.#place.local(client.source) ?? this.#place.local(client.destination)
    const countedTo = counted?.addresses[0]
    const isHere = (address: string): boolean => this.#place.local(address) !== undefined
    const isLocal = (fromHost || isHere(client.source)) && isHere(client.destination)
    const known = { adopted, fromHost, translated, isLocal, lastSeen: now, epoch: this.#place.epoch, countedTo, claim }
    this.flows.begin(flowOf(packet, client, side, known))
  }

  /** As it was judged; what has changed since asks who has the addresses. */
  #judgeFlow(flow: Flow): Verdict {
    if (flow.epoch !== this.#place.epoch) flow.claim = undefined
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
      claim?.address === address ? { pod: nameOf(claim.pod) } : this.#place.identityOf(address)
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
      pod: claim?.address === address ? { ...claim.pod, name: `like ${claim.pod.name}` } : this.#place.podOf(address),
    })
    const sides: [Pod | undefined, 'egress' | 'ingress', Party][] = [
      [fromHost ? undefined : this.#place.local(tuple.source), 'egress', party(tuple.destination)],
      [this.#place.local(tuple.destination), 'ingress', party(tuple.source)],
    ]
    for (const [pod, direction, peer] of sides) {
      if (pod === undefined) continue
      // The node that a pod runs on always reaches it (NetworkPolicy, "Traffic to and from the node").
      if (direction === 'ingress' && (fromHost || this.#place.identityOf(peer.address) === 'host')) continue
      const judgement = judgePolicy(this.#place.cluster, direction, pod, peer, asked)
      story.push(tell(judgement, direction, pod))
      if (!judgement.allowed) {
        const unknown = peer.pod === undefined && this.#place.identityOf(peer.address) === 'unknown pod'
        const reason = pod.unready === true ? 'host not ready' : unknown ? 'unknown sender' : 'policy denied'
        return { reason, rules: [], story }
      }
      rules.push(...judgement.rules)
    }
    return { reason: 'forwarded', rules, story }
  }
}

function tell(judgement: Judgement, direction: string, pod: Pod): string {
  if (!judgement.isolated) return `${nameOf(pod)} is open for ${direction}`
  if (judgement.allowed) return `${direction} of ${nameOf(pod)} by ${judgement.rules[0] ?? 'itself'}`
  return `${direction} of ${nameOf(pod)} is closed by ${judgement.policies.join(', ')}`
}

const askedOf = (tuple: Tuple): Asked => ({
  protocol: tuple.protocol,
  port: hasPorts(tuple) ? tuple.destinationPort : undefined,
})
