// `npm start`: from a machine with Node 20, npm and apt to a running two-node cluster with the demo, checked.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, fail, node24, root, setUp, table, timed } from './setup.js'

const steps = []
setUp(steps)

/** The later steps print their own progress and tables. */
function run(name, file, args) {
  timed(steps, name, () => {
    const [command, all] = asRoot(node24, [join(root, file), ...args])
    const result = spawnSync(command, all, { cwd: root, stdio: 'inherit' })
    if (result.status !== 0) fail(`${name} failed (see above); npx weft status says what runs, npx weft down ends it`)
    return ''
  })
}

run('cluster: weft up', 'src/cli/main.ts', ['up', '--nodes', '2'])
run('demo: apply and check', 'scripts/demo.ts', [])

process.stdout.write(
  `\n${table(
    steps.map((s) => [s.name, `${s.seconds.toFixed(1)} s`, s.detail]),
    ['STEP', 'TIME', ''],
  )}\n`,
)
process.stdout.write(`
The cluster is running. To go on:
  export KUBECONFIG=$(npx weft kubeconfig)
  kubectl get pods -A -o wide
  npx weft status
  npx weft down
`)
