import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { parseAcrossScenario } from '../across.ts'
import { Coverage, wantedAcross } from './coverage.ts'
import { Pair, PairDuel, Worlds } from './pair.ts'
import { playPairs } from './play.ts'
import { compileWithFault } from './programs.ts'

/** Two nodes' programs together: what came out of one's is put into the other's, byte for byte. `npm run test:model` plays more. */
let worlds: Worlds
let pair: Pair
test.before(async () => {
  worlds = await Worlds.create('p')
  pair = new Pair(worlds, await compileWithFault(0))
})
test.after.always(async () => {
  pair?.[Symbol.dispose]()
  await worlds?.[Symbol.asyncDispose]()
})

/** Too rare for so few histories: the scenarios show it. */
const rare = 'across: cut at the far end'

const scenarios = join(import.meta.dirname, '../scenarios/across')
test.serial('kernel and model tell the same of every scenario across nodes', (t) => {
  const coverage = new Coverage()
  for (const file of readdirSync(scenarios)) {
    const duel = new PairDuel(pair, coverage)
    let crossings = 0
    for (const one of parseAcrossScenario(readFileSync(join(scenarios, file), 'utf8')).steps) {
      const { hops, difference } = duel.play(one)
      t.is(difference, undefined, `${file}: ${JSON.stringify(one)}`)
      if (hops.length > 1) crossings++
    }
    t.true(crossings > 10, `${file}: only ${crossings} packets came to another node`)
  }
  t.true(coverage.get(rare) > 0)
})

test.serial('kernel and model agree on two nodes, by the tunnel and without', (t) => {
  t.timeout(120_000)
  const seed = Number(process.env.WEFT_SEED ?? 60)
  const { difference, packets, seconds, coverage } = playPairs(pair, { histories: 60, seed })
  t.is(difference, undefined, difference)
  t.log(`seed ${seed}: ${packets} packets in ${seconds.toFixed(1)} s`)
  t.log(wantedAcross.map((key) => `${coverage.get(key).toString().padStart(9)}  ${key}`).join('\n'))
  t.true(packets >= 20_000, `only ${packets} packets (seed ${seed})`)
  const met = wantedAcross.filter((key) => key !== rare)
  t.deepEqual(coverage.missing(met, 3), [], `seed ${seed}`)
})
