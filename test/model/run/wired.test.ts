import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { formatStep, parseScenario, type Scenario, type Step } from '../scenario.ts'
import { compileWithFault, Programs } from './programs.ts'
import { WiredDuel } from './wired-duel.ts'
import { WiredNode } from './wired-node.ts'
import { World } from './world.ts'

/**
 * Every scenario on real veth pairs: programs attached as the agent attaches them, packets that really move, offloads on and
 * off. With offloads on, senders leave checksums and the cutting of long segments to devices that never do it; off, devices do
 * it, and fill up what is short. Each frame that arrives is read, its sums are checked, and it is held against the model's.
 */
let world: World
let programs: Programs
let node: WiredNode
test.before(async () => {
  world = await World.create('w', { isWired: true })
  programs = Programs.load(world, await compileWithFault(0), { isLive: true })
  node = await WiredNode.attach(world, programs)
})
test.after.always(async () => {
  node?.[Symbol.dispose]()
  programs?.[Symbol.dispose]()
  await world?.[Symbol.asyncDispose]()
})

const folder = join(import.meta.dirname, '../scenarios')
const files = readdirSync(folder).filter((name) => name.endsWith('.txt'))

/** Why a line of a scenario is not for devices; undefined: it is. */
function unfit(step: Step): string | undefined {
  if (step.do !== 'send') return undefined
  if (step.times !== undefined)
    return 'how many answers fall into one second of the kernel depends on how fast this machine is'
  return node.canSend(step.hook) ? undefined : 'there is no device of that pod'
}

interface Played {
  readonly duel: WiredDuel
  readonly unplayed: readonly string[]
  readonly difference: string | undefined
}

async function play(scenario: Scenario, offloads: 'on' | 'off'): Promise<Played> {
  const { steps } = scenario
  const isEarly = steps.some((step) => step.do === 'send' && step.hook.from === 'uplink' && step.hook.early === true)
  await node.reset({ isTunnelled: steps.some((step) => step.do === 'tunnel'), isEarly })
  const duel = new WiredDuel(node, offloads, isEarly)
  const unplayed: string[] = []
  for (const step of steps) {
    const reason = unfit(step)
    if (reason !== undefined) {
      unplayed.push(`${formatStep(step)}: ${reason}`)
      continue
    }
    const what = await duel.play(step)
    if (what !== undefined) return { duel, unplayed, difference: `${formatStep(step)}\n${what}` }
  }
  return { duel, unplayed, difference: undefined }
}

for (const offloads of ['on', 'off'] as const)
  test.serial(`every scenario is on wires what the model says, offloads ${offloads}`, async (t) => {
    t.timeout(120_000)
    node.setOffloads(offloads)
    let [sent, received, cut, past, unplayedLines] = [0, 0, 0, 0, 0]
    for (const file of files) {
      const { duel, unplayed, difference } = await play(
        parseScenario(readFileSync(join(folder, file), 'utf8')),
        offloads,
      )
      t.is(difference, undefined, `${file}, offloads ${offloads}: ${difference}`)
      t.true(duel.sent > 0, `${file} has nothing for devices`)
      for (const line of unplayed) t.log(`not played: ${file}: ${line}`)
      sent += duel.sent
      received += duel.received
      cut += duel.cut
      past += duel.past
      unplayedLines += unplayed.length
    }
    t.log(
      `${files.length} scenarios: ${sent} packets sent, ${cut} of them to be cut up, ${received} frames received and right, ${past} past the node's stack`,
    )
    // Nobody takes lines away unseen.
    t.true(
      files.length >= 14 && sent >= 180 && received >= 170 && cut >= 25,
      `${sent} sent, ${received} received, ${cut} cut`,
    )
    t.true(unplayedLines <= 3, `${unplayedLines} lines were not played`)
  })
