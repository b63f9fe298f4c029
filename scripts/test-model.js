// `npm run test:model [-- --faults | --histories N | --seed N]`: the compiled programs against the model, for as long as it takes.
// `npm run test:model -- --sockets [--histories N] [--seed N]`: the socket hooks alone, with real sockets; without arguments these come first.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, node24, root, setUp } from './setup.js'

await setUp([])
/** Some 250,000 questions, a minute. */
const socketHistories = '10000'
const arguments_ = process.argv.slice(2)
const run = (name, args) => {
  const [command, all] = asRoot('npm run test:model', node24, [join(root, 'test/model/run', name), ...args])
  return spawnSync(command, all, { cwd: root, stdio: 'inherit' }).status ?? 1
}
const only = arguments_.filter((a) => a !== '--sockets')
const sockets = arguments_.length === 0 || only.length < arguments_.length
const seed = `${Date.now() % 2 ** 31}`
let status = sockets ? run('sockets-main.ts', ['--histories', socketHistories, '--seed', seed, ...only]) : 0
if (status === 0 && only.length === arguments_.length) status = run('main.ts', arguments_)
process.exitCode = status
