import { parseArgs } from 'node:util'
import { Coverage, wanted, wantedAcross } from './coverage.ts'
import { faults } from './faults.ts'
import { Pair, Worlds } from './pair.ts'
import { play, playPairs } from './play.ts'
import { compileWithFault } from './programs.ts'
import { World } from './world.ts'

/** `npm run test:model`: the long run, and the seeded faults. */
const { values } = parseArgs({
  options: {
    packets: { type: 'string', default: '50000000' },
    histories: { type: 'string' },
    seed: { type: 'string' },
    faults: { type: 'boolean', default: false },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  process.stdout.write(`npm run test:model -- [--packets N | --histories N] [--seed N]   50,000,000 packets unless said; 600 a history
                                                   every fifth history is of two nodes together
npm run test:model -- --faults [--only 3,7]        each seeded fault of bpf/ must be found\n`)
  process.exit(0)
}
/** What every outcome must have been reached at least. */
const atLeast = 100
/** What two nodes together must have reached in their fifth of a part. */
const atLeastAcross = 10
const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed)
const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}

const minutes = (s: number): string => `${Math.floor(Math.max(0, s) / 60)} min ${Math.floor(Math.max(0, s) % 60)} s`

await using world = await World.create('run')
if (values.faults) {
  let missed = 0
  const only = values.only?.split(',').map(Number)
  const tried = faults.filter((f) => only === undefined || only.includes(f.number))
  for (const { number, what } of tried) {
    const { histories, packets, seconds, difference } = await play(world, { histories: 1_500, seed, fault: number })
    if (difference === undefined) missed++
    const found = difference === undefined ? 'NOT FOUND' : `found by packet ${packets} of history ${histories + 1}`
    say(`${number.toString().padStart(3)}  ${found} (${seconds.toFixed(1)} s)  ${what}`)
  }
  say(`${tried.length - missed} of ${tried.length} faults found (seed ${seed})`)
  process.exitCode = missed === 0 ? 0 : 1
} else {
  // In parts, so that a person sees that it goes on, and a difference names a seed that comes to it soon.
  const histories = values.histories === undefined ? Number.POSITIVE_INFINITY : Number(values.histories)
  const enough = values.histories === undefined ? Number(values.packets) : Number.POSITIVE_INFINITY
  const partOf = 2_000
  /** A history's, about. */
  const packetsOf = 600
  let [packets, seconds, done] = [0, 0, 0]
  await using worlds = await Worlds.create('run')
  using pair = new Pair(worlds, await compileWithFault(0))
  /** Of all parts: what is rare has the whole run to be met. */
  const [all, allAcross] = [new Coverage(), new Coverage()]
  let isOver = false
  const tell = (text: string): void => {
    say(text)
    process.exitCode = 1
    isOver = true
  }
  for (let part = 0; !isOver && part * partOf < histories && packets < enough; part++) {
    const most = Math.min(partOf, histories - part * partOf, Math.ceil((enough - packets) / packetsOf))
    const across = Math.ceil(most / 5)
    const played = await play(world, { histories: most - across, seed: seed + part })
    const pairs =
      played.difference === undefined ? playPairs(pair, { histories: across, seed: seed + part }) : undefined
    packets += played.packets + (pairs?.packets ?? 0)
    seconds += played.seconds + (pairs?.seconds ?? 0)
    const left =
      enough === Number.POSITIVE_INFINITY ? '' : `, ${minutes(((enough - packets) * seconds) / packets)} left`
    const rate = Math.round(packets / seconds)
    const megabytes = Math.round(process.memoryUsage.rss() / 2 ** 20)
    say(`${packets} packets, ${minutes(seconds)}, ${rate}/s, ${megabytes} MiB, seed ${seed + part}${left}`)
    if (part === 0) say(played.coverage.table())
    if (part === 0 && pairs !== undefined)
      say(
        `two nodes together:\n${wantedAcross.map((key) => `${pairs.coverage.get(key).toString().padStart(9)}  ${key}`).join('\n')}`,
      )
    done += played.histories + (pairs?.histories ?? 0)
    all.add(played.coverage)
    if (pairs !== undefined) allAcross.add(pairs.coverage)
    const difference = played.difference ?? pairs?.difference
    if (difference !== undefined) tell(difference)
  }
  // Less than a part is for looking at something, and meets what it meets.
  if (!isOver && done >= partOf) {
    const missing = all.missing(wanted, atLeast)
    const missingAcross = allAcross.missing(wantedAcross, atLeastAcross)
    if (missing.length > 0) tell(`Not reached ${atLeast} times: ${missing.join(', ')}`)
    if (missingAcross.length > 0) tell(`Not reached ${atLeastAcross} times by two nodes: ${missingAcross.join(', ')}`)
  }
}
