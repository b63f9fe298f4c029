import { parseArgs } from 'node:util'
import { compile } from '#datapath/compile.ts'
import { missing, playSockets, table } from './sockets-play.ts'
import { SocketWorld } from './sockets-world.ts'

/**
 * A process of its own, for it goes into the cgroup of the node that it tries: nobody else's sockets may be there. Says what it
 * met, and ends with 1 where hooks and rules disagree or something was met too seldom.
 */
const { values } = parseArgs({
  options: { histories: { type: 'string', default: '100' }, seed: { type: 'string', default: '60' } },
})
const [histories, seed] = [Number(values.histories), Number(values.seed)]
await using world = await SocketWorld.create('m', await compile({ cacheDir: '/var/cache/weft/bpf' }))
const { asked, seconds, met, difference } = playSockets(world, { histories, seed })
const seldom = difference === undefined ? missing(met) : []
process.stdout.write(`seed ${seed}: ${asked} questions in ${seconds.toFixed(1)} s\n${table(met)}\n`)
if (difference !== undefined) process.stdout.write(`${difference}\n`)
if (seldom.length > 0) process.stdout.write(`Not met often enough: ${seldom.join('; ')}\n`)
process.exitCode = difference === undefined && seldom.length === 0 ? 0 : 1
