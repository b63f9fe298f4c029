import fc from 'fast-check'
import { Disagreement, type Met, SocketDuel } from './sockets-duel.ts'
import { historyArbitrary } from './sockets-history.ts'
import type { SocketWorld } from './sockets-world.ts'

/** Steps of a history: nine of ten ask for something. */
const stepsPerHistory = 60

export interface PlayOptions {
  readonly histories: number
  readonly seed: number
  /** A difference is made as small as can be. */
  readonly shrinks?: boolean
}

export interface Played {
  readonly asked: number
  readonly seconds: number
  readonly met: Met
  /** A shrunk history and what the two say of its last step; undefined: they agree. */
  readonly difference: string | undefined
}

/** A difference is shrunk for so long and no longer. Histories are played many times faster than that. */
const longestMs = (histories: number): number => Math.max(40_000, histories * 100)

/** Plays histories until hooks and rules disagree. Throws what is neither's fault. */
export function playSockets(world: SocketWorld, { histories, seed, shrinks = true }: PlayOptions): Played {
  const met: Met = new Map()
  const start = performance.now()
  let asked = 0
  const property = fc.property(fc.noBias(historyArbitrary(stepsPerHistory)), (history) => {
    const duel = new SocketDuel(world, met)
    try {
      duel.play(history)
    } finally {
      asked += duel.asked
    }
  })
  const details = fc.check(property, {
    numRuns: histories,
    seed,
    interruptAfterTimeLimit: longestMs(histories),
    endOnFailure: !shrinks,
  })
  const seconds = (performance.now() - start) / 1_000
  const { errorInstance: error } = details
  if (!details.failed) return { asked, seconds, met, difference: undefined }
  if (!(error instanceof Disagreement)) throw error
  return { asked, seconds, met, difference: `seed ${seed}, shrunk ${details.numShrinks} times:\n${error.message}` }
}

/** What a run must have met, each at least that often. */
export const atLeast = 20
export const wanted: readonly string[] = [
  ...['TCP', 'UDP connect', 'UDP send'].flatMap((what) =>
    ['led', 'refused', 'untouched'].map((kind) => `${what}: ${kind}`),
  ),
  'UDP again',
  'UDP disconnect',
  'bind: EADDRINUSE',
  'bind: taken',
  'by IPv4',
  'by IPv6',
  'by another word for the address',
  'cluster address',
  'node port',
  'address of a load balancer',
  'external IP',
  'host port',
  'loopback of the node',
  'loopback of a pod',
  'no service',
  'no backend',
  'policy Local',
  'hints followed',
  'hints for others',
  'to one that is going',
  'affinity kept',
  'affinity to one that is none any more',
  'another name for the same peer',
]

export const missing = (met: Met): string[] => wanted.filter((key) => (met.get(key) ?? 0) < atLeast)

export const table = (met: Met): string =>
  [...met]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, count]) => `${count.toString().padStart(7)}  ${key}`)
    .join('\n')
