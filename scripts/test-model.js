// `npm run test:model [-- --faults | --histories N | --seed N]`: the compiled programs against the model, for as long as it takes.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, node24, root, setUp } from './setup.js'

await setUp([])
const main = join(root, 'test/model/run/main.ts')
const [command, args] = asRoot('npm run test:model', node24, [main, ...process.argv.slice(2)])
process.exitCode = spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status ?? 1
