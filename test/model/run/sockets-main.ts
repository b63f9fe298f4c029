import { parseArgs } from 'node:util'
import { compile } from '#datapath/compile.ts'
import { socketFaults, withFault } from './sockets-faults.ts'
import { missing, playSockets, table } from './sockets-play.ts'
import { SocketWorld } from './sockets-world.ts'

/**
 * A process of its own, for it goes into the cgroup of the node that it tries: nobody else's sockets may be there. Says what it
 * met, and ends with 1 where hooks and rules disagree or something was met too seldom.
 */
const { values } = parseArgs({
  options: {
    histories: { type: 'string', default: '400' },
    seed: { type: 'string', default: '60' },
    faults: { type: 'boolean', default: false },
  },
})
const [histories, seed] = [Number(values.histories), Number(values.seed)]
const objects = await compile({ cacheDir: '/var/cache/weft/bpf' })

async function playAll(): Promise<boolean> {
  await using world = await SocketWorld.create('m', objects)
  const { asked, seconds, met, difference } = playSockets(world, { histories, seed })
  const seldom = difference === undefined ? missing(met) : []
  process.stdout.write(`seed ${seed}: ${asked} questions in ${seconds.toFixed(1)} s\n${table(met)}\n`)
  if (difference !== undefined) process.stdout.write(`${difference}\n`)
  if (seldom.length > 0) process.stdout.write(`Not met often enough: ${seldom.join('; ')}\n`)
  return difference === undefined && seldom.length === 0
}

async function findFaults(): Promise<boolean> {
  let isEachFound = true
  for (const { number, what } of socketFaults) {
    await using world = await SocketWorld.create('f', await withFault(objects, number))
    const { asked, difference } = playSockets(world, { histories, seed, shrinks: false })
    const found = difference === undefined ? 'NOT FOUND' : `found by question ${asked}`
    if (difference === undefined) isEachFound = false
    process.stdout.write(`${number.toString().padStart(3)}  ${found}  ${what}\n`)
  }
  return isEachFound
}

process.exitCode = (await (values.faults ? findFaults() : playAll())) ? 0 : 1
