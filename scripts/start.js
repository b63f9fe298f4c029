// `npm start`: from a machine with Node 20, npm and apt to a running two-node cluster with the demo, checked.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, fail, node24, root, setUp, stepTable, timed } from './setup.js'

// Before anything is installed: without root the cluster cannot come up.
asRoot('npm start (it makes network namespaces, mounts and BPF programs)', 'true', [])
const steps = []
await setUp(steps)

/** The later steps print their own progress and tables. */
function run(name, file, args) {
  timed(steps, name, () => {
    const [command, all] = asRoot(name, node24, [join(root, file), ...args])
    const { status, error } = spawnSync(command, all, { cwd: root, stdio: 'inherit' })
    if (error) fail(`${name}: cannot run ${command}: ${error.message}`)
    if (status !== 0) fail(`${name} failed (see above); npx weft status says what runs, npx weft down ends it`)
    return ''
  })
}

process.stdout.write('Bringing the cluster up\n')
run('cluster: weft up', 'src/cli/main.ts', ['up', '--nodes', '2'])
process.stdout.write('Applying examples/ and checking the demo\n')
run('demo: apply and check', 'scripts/demo.ts', [])

// The administrator's kubeconfig is root's alone.
const shell = process.getuid?.() === 0 ? '' : '  sudo -Es\n'
process.stdout.write(`
${stepTable(steps)}

The cluster is running. To go on:
${shell}  export KUBECONFIG=$(npx weft kubeconfig)
  kubectl get pods -A -o wide
  npx weft status
  npx weft down
`)
