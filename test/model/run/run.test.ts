import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { parseScenario } from '../scenario.ts'
import { wanted } from './coverage.ts'
import { faults, quickFaults } from './faults.ts'
import { Duel } from './history.ts'
import { KernelNode } from './kernel-node.ts'
import { play } from './play.ts'
import { compileWithFault, Programs } from './programs.ts'
import { World } from './world.ts'

/** The compiled programs against the model: what `npm run test:model` does for an hour, for a minute. */
let world: World
test.before(async () => {
  world = await World.create('t')
})
test.after.always(() => world?.[Symbol.asyncDispose]())

const scenarios = join(import.meta.dirname, '../scenarios')
test.serial('kernel and model tell the same of every scenario', async (t) => {
  using programs = Programs.load(world, await compileWithFault(0))
  const kernel = new KernelNode(world, programs)
  world.namespace.within(() => {
    for (const file of readdirSync(scenarios).filter((name) => name.endsWith('.txt'))) {
      const duel = new Duel(kernel)
      for (const step of parseScenario(readFileSync(join(scenarios, file), 'utf8')).steps)
        t.is(duel.play(step).difference, undefined, `${file}: ${JSON.stringify(step)}`)
      t.true(duel.packets > 0, `${file} sends nothing that a test-run takes`)
    }
  })
})

test.serial('kernel and model agree on a million packets in 2,000 histories, and everything was met', async (t) => {
  t.timeout(420_000)
  // The same histories each time: new ones are what `npm run test:model` looks for.
  const seed = Number(process.env.WEFT_SEED ?? 60)
  const { difference, packets, seconds, coverage } = await play(world, { histories: 2_000, seed })
  t.is(difference, undefined, difference)
  t.log(`seed ${seed}: ${packets} packets in ${seconds.toFixed(1)} s`)
  t.log(coverage.table())
  t.true(packets >= 1_000_000, `only ${packets} packets (seed ${seed})`)
  t.deepEqual(coverage.missing(wanted, 100), [], `seed ${seed}`)
})

for (const number of quickFaults)
  test.serial(`seeded fault ${number} is found: ${faults.find((f) => f.number === number)?.what}`, async (t) => {
    t.timeout(120_000)
    const { difference, packets } = await play(world, { histories: 200, seed: 1, fault: number })
    t.not(difference, undefined, `${packets} packets did not show it`)
  })
