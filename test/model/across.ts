import { contains } from './address.ts'
import type { Cluster } from './cluster.ts'
import type { Chooser, Hook, Outcome } from './journey.ts'
import { beginMs, tellOutcome, tickMs } from './narrate.ts'
import { NodeModel } from './node.ts'
import type { Packet } from './packet.ts'
import { type Change, changed, emptyCluster, formatStep, parseScenario, type Scenario, type Step } from './scenario.ts'
import type { Limits } from './tracking.ts'

/**
 * Several nodes of a cluster: what leaves one comes to another, through the tunnel or bare, and what that one says goes back
 * the same way. Each has its own connections and translations, and for a while may know less of the cluster than the others.
 */

/** A step, and where: the node that hears of a change later than the others do, or that a packet comes to which is no pod's. */
export type AcrossStep =
  | { readonly step: Step; readonly at?: string }
  | { readonly late: Change; readonly node: string }
  /** The node hears of everything that it has not heard of yet. */
  | { readonly told: string }

/** One node on a packet's way. */
export interface Hop {
  readonly node: string
  readonly hook: Hook
  readonly packet: Packet
}

/** A packet that goes to and fro has lost its hops by then. */
export const hopsMax = 8

/** Where the packet is next, if at one of these nodes. */
export function nextHopOf(cluster: Cluster, { node, hook }: Hop, outcome: Outcome): Hop | undefined {
  const { end, packet, wrapped } = outcome
  if (packet === undefined) return undefined
  if (end === 'refusal' && hook.from === 'pod') return undefined
  // What the node itself says in the tunnel its own stack's program wraps.
  if (end === 'refusal' && hook.from === 'tunnel') return { node, hook: { from: 'stack' }, packet }
  if (end === 'tunnel' && wrapped !== undefined) {
    const to = [...cluster.nodes.values()].find((other) => other.addresses[0] === wrapped.node)
    const from = cluster.nodes.get(node)?.addresses[0]
    if (to === undefined || from === undefined) return undefined
    const as = typeof wrapped.as === 'object' ? wrapped.as.pod : 'node'
    return { node: to.name, hook: { from: 'tunnel', node: from, as }, packet }
  }
  if (end !== 'out' && end !== 'refusal') return undefined
  const { destination } = packet
  const to = [...cluster.nodes.values()].find(
    ({ addresses, podCidrs }) =>
      addresses.includes(destination) || podCidrs.some((cidr) => contains(cidr, destination)),
  )
  return to === undefined || to.name === node ? undefined : { node: to.name, hook: { from: 'uplink' }, packet }
}

/** Where a step's packet begins: at its pod's node, or at the one that is named. */
export function placeOf(cluster: Cluster, hook: Hook, at: string | undefined): string | undefined {
  if (hook.from === 'pod' || hook.from === 'host') return cluster.pods.get(hook.pod)?.node
  return at
}

/** What each node knows of the cluster; changes come in their order. */
export class Hearsay {
  readonly #late = new Map<string, Change[]>()
  readonly nodes: readonly string[]

  constructor(nodes: readonly string[]) {
    this.nodes = nodes
  }

  /** Somebody knows less than the others. */
  get isLate(): boolean {
    return this.#late.size > 0
  }

  /** Who hears of what now. */
  *hear(one: AcrossStep): Generator<readonly [node: string, change: Change]> {
    if ('told' in one) {
      for (const change of this.#late.get(one.told) ?? []) yield [one.told, change]
      this.#late.delete(one.told)
      return
    }
    if ('late' in one) {
      for (const node of this.nodes) if (node !== one.node) yield [node, one.late]
      this.#late.set(one.node, [...(this.#late.get(one.node) ?? []), one.late])
      return
    }
    const { step } = one
    if (step.do === 'wait' || step.do === 'send') return
    // Of pods and nodes everybody hears at once: their numbers are known before their first packet. Of the rest, in its order.
    const mayWait = step.do === 'policy' || step.do === 'service' || (step.do === 'remove' && step.kind !== 'pod')
    for (const node of this.nodes) {
      const waiting = this.#late.get(node)
      if (mayWait && waiting !== undefined) waiting.push(step)
      else yield [node, step]
    }
  }
}

/** The model alone, across nodes. */
export class Nodes {
  readonly models: ReadonlyMap<string, NodeModel>
  readonly #hearsay: Hearsay

  constructor(names: readonly string[], limits?: Limits) {
    this.models = new Map(names.map((name) => [name, new NodeModel(name, emptyCluster, limits)]))
    this.#hearsay = new Hearsay(names)
  }

  change(one: AcrossStep): void {
    for (const [node, change] of this.#hearsay.hear(one)) {
      const model = this.models.get(node)
      model?.change(changed(model.cluster, change))
    }
  }

  /** Every node that the packet meets, with what that says of it. */
  *send(hook: Hook, packet: Packet, at: string | undefined, now: number, choose?: Chooser): Generator<[Hop, Outcome]> {
    const [first] = this.models.values()
    const node = first === undefined ? undefined : placeOf(first.cluster, hook, at)
    let hop: Hop | undefined = node === undefined ? undefined : { node, hook, packet }
    for (let i = 0; i < hopsMax && hop !== undefined; i++) {
      const model = this.models.get(hop.node)
      if (model === undefined) return
      const outcome = model.judge(hop.hook, hop.packet, now, choose)
      yield [hop, outcome]
      hop = nextHopOf(model.cluster, hop, outcome)
    }
  }
}

export function formatAcross(one: AcrossStep): string {
  if ('told' in one) return `told ${one.told}`
  if ('late' in one) return `late ${one.node} ${formatStep(one.late)}`
  return one.at === undefined ? formatStep(one.step) : `at ${one.at} ${formatStep(one.step)}`
}

/** Throws a SyntaxError for what is no step. Undefined: the line is for the reader. */
export function parseAcross(line: string): AcrossStep | undefined {
  const found = /^(at|late|told) (\S+) ?(.*)$/.exec(line.trim())
  const [, word, node = '', rest = ''] = found ?? []
  if (word === 'told') return { told: node }
  const [step] = parseScenario(word === undefined ? line : rest).steps
  if (step === undefined) return undefined
  if (word !== 'late') return { step, ...(word === 'at' ? { at: node } : {}) }
  if (step.do === 'wait' || step.do === 'send') throw new SyntaxError(`nobody hears late of ${rest}`)
  return { late: step, node }
}

/** Nodes that are played, in these scenarios and in the run. */
export const playedNodes = ['node-1', 'node-2'] as const

/** As `narrate`, with an answer for each node that the packet meets. */
export function narrateAcross(text: string): string {
  const nodes = new Nodes(playedNodes)
  let now = beginMs
  return text
    .split('\n')
    .filter((line) => !line.startsWith('=>'))
    .flatMap((line) => {
      const one = parseAcross(line)
      if (one === undefined) return [line]
      if (!('step' in one) || (one.step.do !== 'wait' && one.step.do !== 'send')) {
        nodes.change(one)
        return [line]
      }
      if (one.step.do === 'wait') {
        now += one.step.ms
        for (const model of nodes.models.values()) model.sweep(now)
        return [line]
      }
      now += tickMs
      const { hook, packet } = one.step
      return [line, ...[...nodes.send(hook, packet, one.at, now)].map(tellHop)]
    })
    .join('\n')
}

const tellHop = ([{ node }, outcome]: [Hop, Outcome]): string => `=> ${node}: ${tellOutcome(outcome).slice(3)}`

/** A scenario's steps; its title is the first comment. */
export function parseAcrossScenario(text: string): { readonly title: string; readonly steps: readonly AcrossStep[] } {
  const lines = text.split('\n').filter((line) => !line.startsWith('=>'))
  const title: Scenario['title'] = (lines.find((line) => line.startsWith('#')) ?? '').replace(/^#\s*/, '')
  return { title, steps: lines.flatMap((line) => parseAcross(line) ?? []) }
}
