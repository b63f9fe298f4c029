// `npm run bench [-- GROUP...] [--json FILE]`: ratios in one interleaved run, each judged on the median of three passes.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, node24, root, setUp } from './setup.js'

await setUp([])
const [command, args] = asRoot('npm run bench', node24, [join(root, 'test/bench/bench.ts'), ...process.argv.slice(2)])
process.exitCode = spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status ?? 1
