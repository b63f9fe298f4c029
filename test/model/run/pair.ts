import {
  type AcrossStep,
  formatAcross,
  Hearsay,
  type Hop,
  hopsMax,
  nextHopOf,
  placeOf,
  playedNodes,
} from '../across.ts'
import type { Hook, Outcome } from '../journey.ts'
import { tellOutcome } from '../narrate.ts'
import type { Packet } from '../packet.ts'
import { Player } from '../player.ts'
import type { Change, Step } from '../scenario.ts'
import { IdentityNumbers } from './cluster-maps.ts'
import type { Coverage } from './coverage.ts'
import { type Came, Difference, Duel, type History, opening } from './history.ts'
import { KernelNode } from './kernel-node.ts'
import { type compileWithFault, Programs } from './programs.ts'
import { type Found, shortest } from './shrink.ts'
import { World } from './world.ts'

/** The worlds of two nodes. */
export class Worlds implements AsyncDisposable {
  readonly all: readonly World[]

  private constructor(all: readonly World[]) {
    this.all = all
  }

  static async create(label: string): Promise<Worlds> {
    return new Worlds(await Promise.all(playedNodes.map((node, i) => World.create(`${label}${i + 1}-`, { node }))))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const world of this.all) await world[Symbol.asyncDispose]()
  }
}

/** The programs of two nodes, with the maps of each. Numbers of identities are the cluster's. */
export class Pair implements Disposable {
  readonly kernels: ReadonlyMap<string, KernelNode>
  readonly #programs: readonly Programs[]

  constructor({ all }: Worlds, objects: Awaited<ReturnType<typeof compileWithFault>>) {
    const numbers = new IdentityNumbers()
    this.#programs = all.map((world) => Programs.load(world, objects))
    this.kernels = new Map(
      all.map((world, i) => [world.node, new KernelNode(world, this.#programs[i] as Programs, numbers)]),
    )
  }

  [Symbol.dispose](): void {
    for (const programs of this.#programs) programs[Symbol.dispose]()
  }
}

interface Played {
  readonly hops: readonly (readonly [Hop, Outcome])[]
  readonly difference?: string
}

/** Two nodes' programs and their models: what came out of one's programs is put into the other's. */
export class PairDuel {
  readonly #pair: Pair
  readonly #duels: ReadonlyMap<string, Duel>
  readonly #coverage: Coverage | undefined
  readonly #hearsay = new Hearsay(playedNodes)
  #crossings = 0

  constructor(pair: Pair, coverage?: Coverage) {
    this.#pair = pair
    this.#coverage = coverage
    this.#duels = new Map([...pair.kernels].map(([node, kernel]) => [node, new Duel(kernel, coverage)]))
  }

  get packets(): number {
    return [...this.#duels.values()].reduce((sum, { packets }) => sum + packets, 0)
  }

  duel(node: string): Duel {
    const duel = this.#duels.get(node)
    if (duel === undefined) throw new RangeError(`${node} is not played`)
    return duel
  }

  play(one: AcrossStep): Played {
    if ('step' in one && one.step.do === 'wait') {
      for (const duel of this.#duels.values()) duel.wait(one.step.ms)
      return { hops: [] }
    }
    if ('step' in one && one.step.do === 'send') {
      for (const duel of this.#duels.values()) duel.tick()
      return this.#send(one.step, one.at)
    }
    for (const [node, change] of this.#hearsay.hear(one)) this.duel(node).change(change)
    return { hops: [] }
  }

  #at(node: string, hook: Hook, packet: Packet, came?: Came): ReturnType<Duel['send']> {
    const kernel = this.#pair.kernels.get(node)
    if (kernel === undefined) return {}
    // It asks this node's routes.
    return kernel.world.namespace.within(() => this.duel(node).send(hook, packet, came))
  }

  #send({ hook, packet, times = 1 }: Step & { readonly do: 'send' }, at: string | undefined): Played {
    const node = placeOf(this.duel(playedNodes[0]).model.cluster, hook, at ?? playedNodes[0])
    const hops: [Hop, Outcome][] = []
    if (node === undefined || !this.#duels.has(node)) return { hops }
    // Of many at once only the last is followed.
    for (let i = 1; i < times; i++) {
      const { difference } = this.#at(node, hook, packet)
      if (difference !== undefined) return { hops, difference: `${node}: ${difference}` }
    }
    let hop: Hop | undefined = { node, hook, packet }
    let came: Came | undefined
    for (let i = 0; i < hopsMax && hop !== undefined && this.#duels.has(hop.node); i++) {
      const { outcome, difference } = this.#at(hop.node, hop.hook, hop.packet, came)
      if (outcome === undefined) break
      hops.push([hop, outcome])
      if (difference !== undefined) return { hops, difference: `${hop.node}: ${difference}` }
      const next = nextHopOf(this.duel(hop.node).model.cluster, hop, outcome)
      came = next === undefined ? undefined : this.#out(hop.node, next)
      // XDP meets every second one of them first.
      const isEarly = next?.hook.from === 'uplink' && ++this.#crossings % 2 === 0
      hop = isEarly && next !== undefined ? { ...next, hook: { from: 'uplink', early: true } } : next
    }
    this.#count(hops)
    return { hops }
  }

  /** What the node's programs have made of the last packet. */
  #out(node: string, { hook }: Hop): Came | undefined {
    const kernel = this.#pair.kernels.get(node)
    if (kernel === undefined) return undefined
    const { out, outLength } = kernel.bench
    const key = hook.from === 'tunnel' ? kernel.answer.wrappedAs : undefined
    return { frame: Buffer.from(out.subarray(0, outLength)), key }
  }

  #count(hops: readonly (readonly [Hop, Outcome])[]): void {
    const coverage = this.#coverage
    if (coverage === undefined) return
    for (const [i, [{ node, hook, packet }, outcome]] of hops.entries()) {
      const before = hops[i - 1]
      if (before === undefined || before[0].node === node) continue
      const { end, marks, story } = outcome
      coverage.mark(`across: ${hook.from}: ${end}`)
      const isRefusal = hops.slice(0, i).some(([, o]) => o.end === 'refusal')
      if (isRefusal) coverage.mark(`across: a refusal goes back ${hook.from === 'tunnel' ? 'by the tunnel' : 'bare'}`)
      if (isRefusal && end === 'pod') coverage.mark('across: a refusal arrives')
      if (!isRefusal && end === 'pod' && packet.layer4.kind === 'error') coverage.mark('across: an error arrives')
      if (end === 'pod' && story.some((line) => line.startsWith('an answer')))
        coverage.mark('across: an answer arrives')
      if (before[1].marks.includes('sent on to another node')) coverage.mark('across: a node port on the way')
      if (marks.some((mark) => mark.endsWith('flow cut'))) coverage.mark('across: cut at the far end')
      if (this.#hearsay.isLate) coverage.mark('across: one knows less')
    }
  }
}

/** As `playHistory`, across nodes: packets begin at either, each hears of a change now or some packets later. */
export function playAcross(pair: Pair, history: History, coverage: Coverage): number {
  const duel = new PairDuel(pair, coverage)
  const players = new Map(playedNodes.map((node) => [node as string, new Player(history.materials, node)]))
  const [first, second] = playedNodes
  const steps: AcrossStep[] = []
  const play = (one: AcrossStep): void => {
    steps.push(one)
    const { hops, difference } = duel.play(one)
    // What went on to another node is answered there.
    for (const [i, [{ node, hook, packet }, outcome]] of hops.entries())
      players.get(node)?.saw(hook, packet, hops[i + 1] === undefined ? outcome : { ...outcome, end: 'stack' })
    if (difference !== undefined) throw new Difference(difference, steps, duel.packets)
  }
  const player = players.get(first)
  if (player === undefined) return 0
  for (const step of opening(player, history)) play({ step })
  let late: string | undefined
  for (const number of history.steps) {
    const at = (number >>> 5) % 5 < 2 ? second : first
    const step = players.get(at)?.step(duel.duel(at).model.cluster, number)
    // The cluster's objects are the first player's.
    if (step === undefined || (at === second && step.do !== 'send')) continue
    if (late !== undefined && (number >>> 8) % 6 === 0) {
      play({ told: late })
      late = undefined
    }
    if (late === undefined && isHearsay(step) && (number >>> 8) % 2 === 0) {
      late = (number >>> 12) % 2 === 0 ? second : first
      play({ late: step, node: late })
    } else play({ step, at })
  }
  return duel.packets
}

const isHearsay = (step: Step): step is Change =>
  step.do === 'policy' || step.do === 'service' || (step.do === 'remove' && step.kind !== 'pod')

/** The first difference of a scenario across nodes; undefined: programs and models agree. */
export function firstAcross(pair: Pair, steps: readonly AcrossStep[]): Found | undefined {
  // Backends are chosen by chance.
  for (let i = 0; i < 4; i++) {
    const duel = new PairDuel(pair)
    for (const [at, one] of steps.entries()) {
      const { difference } = duel.play(one)
      if (difference !== undefined) return { at, what: difference }
    }
  }
  return undefined
}

const isOfTheWorld = (one: AcrossStep): boolean =>
  'step' in one && (one.step.do === 'node' || one.step.do === 'namespace' || one.step.do === 'tunnel')

/** What a person gets to see of a disagreement. */
export function reportAcross(pair: Pair, difference: Difference<AcrossStep>, seed: number): string {
  const fixed = difference.steps.filter(isOfTheWorld)
  const rest = difference.steps.filter((one) => !isOfTheWorld(one))
  const { steps, what = difference.message } = shortest(fixed, rest, (some) => firstAcross(pair, some))
  const lines: string[] = []
  const duel = new PairDuel(pair)
  for (const one of [...fixed, ...steps]) {
    const { hops, difference: differs } = duel.play(one)
    lines.push(formatAcross(one), ...hops.map(([{ node }, outcome]) => `=> ${node}: ${tellOutcome(outcome).slice(3)}`))
    if (differs !== undefined) lines.push(`=> KERNEL: ${differs}`)
  }
  return `Kernel and model disagree across nodes (seed ${seed}), first as: ${difference.message}. Replay: save this as test/model/scenarios/across/NAME.txt\n# ${what}\n${lines.join('\n')}\n`
}
