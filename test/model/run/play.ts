import fc from 'fast-check'
import { podArbitrary, policyArbitrary, serviceArbitrary } from '../universe.ts'
import { Coverage } from './coverage.ts'
import { Difference, type History, playHistory, report } from './history.ts'
import { KernelNode } from './kernel-node.ts'
import { type Pair, playAcross, reportAcross } from './pair.ts'
import { compileWithFault, Programs } from './programs.ts'
import type { World } from './world.ts'

/** Numbers that a history is made of: each a packet, now and then a change or a while of waiting. */
const stepsPerHistory = 445

export const historyArbitrary: fc.Arbitrary<History> = fc.record({
  isTunnelled: fc.constantFrom(false, false, true),
  materials: fc.record({
    pods: fc.array(podArbitrary, { minLength: 4, maxLength: 8 }),
    policies: fc.array(policyArbitrary, { minLength: 2, maxLength: 10 }),
    services: fc.array(serviceArbitrary, { minLength: 1, maxLength: 6 }),
  }),
  steps: fc.array(fc.nat({ max: 2 ** 31 - 1 }), {
    minLength: stepsPerHistory,
    maxLength: stepsPerHistory,
    size: 'max',
  }),
})

export interface PlayOptions {
  readonly histories: number
  readonly seed: number
  /** Number of the seeded fault to be found; 0: none. */
  readonly fault?: number
}

export interface Played {
  readonly histories: number
  readonly packets: number
  readonly seconds: number
  readonly coverage: Coverage
  /** What kernel and model disagree on, as a scenario; undefined: nothing. */
  readonly difference: string | undefined
}

/** Loads the programs and plays histories until kernel and model disagree. Throws what is neither's fault. */
export async function play(world: World, { histories, seed, fault = 0 }: PlayOptions): Promise<Played> {
  using programs = Programs.load(world, await compileWithFault(fault))
  const kernel = new KernelNode(world, programs)
  const coverage = new Coverage()
  const start = performance.now()
  let packets = 0
  let played = 0
  let difference: string | undefined
  world.namespace.within(() => {
    const property = fc.property(historyArbitrary, (history) => {
      packets += playHistory(kernel, history, coverage)
      played++
    })
    const details = fc.check(property, { numRuns: histories, seed, endOnFailure: true })
    if (!details.failed) return
    const error = details.errorInstance
    if (!(error instanceof Difference)) throw error
    packets += error.packets
    difference = fault === 0 ? report(kernel, error, seed) : error.message
  })
  return { histories: played, packets, seconds: (performance.now() - start) / 1_000, coverage, difference }
}

/** The same on two nodes together. */
export function playPairs(pair: Pair, { histories, seed }: Omit<PlayOptions, 'fault'>): Played {
  const coverage = new Coverage()
  const start = performance.now()
  let packets = 0
  let played = 0
  const property = fc.property(historyArbitrary, (history) => {
    packets += playAcross(pair, history, coverage)
    played++
  })
  const details = fc.check(property, { numRuns: histories, seed, endOnFailure: true })
  let difference: string | undefined
  if (details.failed) {
    const error = details.errorInstance
    if (!(error instanceof Difference)) throw error
    packets += error.packets
    difference = reportAcross(pair, error, seed)
  }
  return { histories: played, packets, seconds: (performance.now() - start) / 1_000, coverage, difference }
}
