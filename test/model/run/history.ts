import { nameOf, type Pod } from '../cluster.ts'
import { etherBytes, frameLength } from '../frame.ts'
import type { Chooser, Hook, Outcome } from '../journey.ts'
import { tellOutcome } from '../narrate.ts'
import { NodeModel } from '../node.ts'
import type { Packet } from '../packet.ts'
import type { Materials } from '../player.ts'
import { Player } from '../player.ts'
import { type Change, changed, emptyCluster, formatStep, type Scenario, type Step } from '../scenario.ts'
import { namespaces, nodes, slots } from '../universe.ts'
import { mtu } from '../way.ts'
import { chosenBy } from './chance.ts'
import { differences, earlyDifference } from './compare.ts'
import type { Coverage } from './coverage.ts'
import type { KernelNode } from './kernel-node.ts'
import { limits } from './programs.ts'
import { type Found, shortest } from './shrink.ts'

/** What fast-check draws: objects, and a number for each step. */
export interface History {
  readonly isTunnelled: boolean
  readonly materials: Materials
  readonly steps: readonly number[]
}

/** Steps that every history begins with. */
export function* opening(player: Player, { materials, isTunnelled }: History): Generator<Step> {
  if (isTunnelled) yield { do: 'tunnel' }
  for (const node of nodes) yield { do: 'node', node }
  for (const namespace of namespaces) yield { do: 'namespace', namespace }
  for (const [i, slot] of slots.entries()) yield player.podFor(slot, i)
  for (const [i, policy] of materials.policies.slice(0, 2).entries())
    yield { do: 'policy', policy: { ...policy, name: `n${i}` } }
}

/** Time between two packets: enough that no two are at the same moment. */
const tickMs = 1

/** Programs and model, side by side, one step after the other. */
export class Duel {
  readonly model: NodeModel
  readonly #kernel: KernelNode
  readonly #coverage: Coverage | undefined
  packets = 0
  /** ms; far enough from 0 that everything may lie in the past. */
  #now = 10_000_000

  readonly #chooser: Chooser

  constructor(kernel: KernelNode, coverage?: Coverage) {
    kernel.maps.reset()
    this.model = new NodeModel(kernel.world.node, emptyCluster, limits)
    this.#kernel = kernel
    this.#chooser = chosenBy(kernel.maps, (endpoint) => kernel.isChosen(endpoint))
    this.#coverage = coverage
  }

  /** `came`: as another node has sent it, with the number that went with it. */
  send(hook: Hook, packet: Packet, came?: Came): Played {
    const kernel = this.#kernel
    if (!kernel.canRun(hook) || !isRunnable(packet)) return {}
    this.packets++
    const length = came === undefined ? kernel.write(hook, packet) : kernel.receive(hook, came.frame)
    const early = hook.from === 'uplink' && hook.early === true ? kernel.runEarly(length, this.#now) : undefined
    const answer = early === undefined || early === 'left' ? kernel.run(hook, length, this.#now, came?.key) : undefined
    const outcome = this.model.judge(hook, packet, this.#now, this.#chooser)
    this.#coverage?.count(hook, outcome)
    if (early !== undefined) this.#coverage?.countEarly(early)
    const difference =
      (early === undefined ? undefined : earlyDifference(kernel, this.model, packet, outcome, early)) ??
      (answer === undefined ? undefined : differences(kernel, this.model, hook, outcome, answer, length))
    return difference === undefined ? { outcome } : { outcome, difference }
  }

  wait(ms: number): void {
    this.#now += ms
    this.#kernel.maps.sweep(this.#now)
    this.model.sweep(this.#now)
  }

  /** The next packet is not at the same moment. */
  tick(): void {
    this.#now += tickMs
  }

  change(change: Change): void {
    if (change.do === 'pod') mustBeFree(this.model, change.pod)
    const cluster = changed(this.model.cluster, change)
    this.#kernel.maps.change(change, cluster)
    this.model.change(cluster)
  }

  /** What was different; undefined: nothing. */
  play(step: Step): Played {
    if (step.do === 'wait') this.wait(step.ms)
    else if (step.do !== 'send') this.change(step)
    else {
      this.tick()
      let last: Played = {}
      for (let i = 0; i < (step.times ?? 1) && last.difference === undefined; i++)
        last = this.send(step.hook, step.packet)
      return last
    }
    return {}
  }
}

/** A frame as it left another node's programs, and in the tunnel its key. */
export interface Came {
  readonly frame: Buffer
  readonly key: number | undefined
}

export interface Played {
  readonly outcome?: Outcome
  readonly difference?: string
}

/** A scenario that was cut too short may give one address to two pods. */
function mustBeFree({ cluster }: NodeModel, pod: Pod): void {
  for (const other of cluster.pods.values())
    if (nameOf(other) !== nameOf(pod) && other.addresses.some((address) => pod.addresses.includes(address)))
      throw new Error(`${nameOf(other)} has the address of ${nameOf(pod)}`)
}

/**
 * The kernel refuses to test-run what is shorter than its first header; and of what is up to four bytes too long (a VLAN tag's)
 * it does not say the same in every place.
 */
function isRunnable(packet: Packet): boolean {
  const length = frameLength(packet)
  const spare = length - etherBytes - mtu
  if (spare > 0 && spare <= 4) return false
  return Math.min(length, packet.cut ?? Number.POSITIVE_INFINITY) >= (packet.source.includes(':') ? 54 : 34)
}

/** Plays a drawn history. Throws a `Difference` with the steps up to where kernel and model disagree. Returns the number of packets. */
export function playHistory(kernel: KernelNode, history: History, coverage: Coverage): number {
  const duel = new Duel(kernel, coverage)
  const player = new Player(history.materials)
  const steps: Step[] = []
  const play = (step: Step): void => {
    steps.push(step)
    const { outcome, difference } = duel.play(step)
    if (outcome !== undefined && step.do === 'send') player.saw(step.hook, step.packet, outcome)
    if (difference !== undefined) throw new Difference(difference, steps, duel.packets)
  }
  for (const step of opening(player, history)) play(step)
  for (const number of history.steps) {
    const step = player.step(duel.model.cluster, number)
    if (step !== undefined) play(step)
  }
  return duel.packets
}

export class Difference<T = Step> extends Error {
  readonly steps: readonly T[]
  /** That were sent until it showed. */
  readonly packets: number
  constructor(what: string, steps: readonly T[], packets: number) {
    super(what)
    this.steps = steps
    this.packets = packets
  }
}

/** The kernel chooses backends by chance: what shows only with one of them is looked for so often. */
const triesMax = 4

/** The first difference of a scenario, with its step; undefined: kernel and model agree. */
function firstDifference(kernel: KernelNode, steps: readonly Step[]): Found | undefined {
  const hasChance = steps.some((step) => step.do === 'service')
  for (let i = 0; i < (hasChance ? triesMax : 1); i++) {
    const duel = new Duel(kernel)
    for (const [at, step] of steps.entries()) {
      const { difference } = duel.play(step)
      if (difference !== undefined) return { at, what: difference }
    }
  }
  return undefined
}

/** The shortest scenario that it finds on which kernel and model still disagree. */
export function shrink(kernel: KernelNode, difference: Difference): Scenario {
  // The world's devices and routes are those of all nodes.
  const fixed = difference.steps.filter(isOfTheWorld)
  const rest = difference.steps.filter((step) => !isOfTheWorld(step))
  const { steps, what } = shortest(fixed, rest, (steps) => firstDifference(kernel, steps))
  return { title: what ?? difference.message, steps: [...fixed, ...steps] }
}

const isOfTheWorld = (step: Step): boolean => step.do === 'node' || step.do === 'namespace' || step.do === 'tunnel'

/** What a person gets to see of a disagreement. */
export function report(kernel: KernelNode, difference: Difference, seed: number): string {
  const scenario = shrink(kernel, difference)
  const stories: string[] = []
  for (let i = 0; i < triesMax * 4 && !stories.some((line) => line.includes('=> KERNEL')); i++) {
    const duel = new Duel(kernel)
    stories.length = 0
    for (const step of scenario.steps) {
      const { outcome, difference: what } = duel.play(step)
      stories.push(formatStep(step))
      if (outcome !== undefined) stories.push(tellOutcome(outcome))
      if (what !== undefined) stories.push(`=> KERNEL: ${what}`)
    }
  }
  return `Kernel and model disagree (seed ${seed}), first as: ${difference.message}. Replay: save this as test/model/scenarios/NAME.txt\n# ${scenario.title}\n${stories.join('\n')}\n`
}
