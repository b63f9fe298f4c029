// `npm test`: sets the machine up, then runs every test. Ends with one line `N passed, N failed`.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { asRoot, root, setUp, stepTable } from './setup.js'
import { countTap } from './tap.js'

// Before anything is installed: the suites below that make namespaces and clusters need it.
asRoot('npm test', 'true', [])
const steps = []
await setUp(steps)
process.stdout.write(`${stepTable(steps)}\n\n`)

const bin = (name) => join(root, 'node_modules/.bin', name)
/** One after the other, because the later ones measure and kill: they want the machine for themselves. */
const suites = [
  { name: 'types', command: bin('tsc'), args: [] },
  { name: 'lint and format', command: bin('biome'), args: ['check', '--error-on-warnings', '.'] },
  { name: 'fast', command: bin('ava'), args: ['--tap', 'src/**/*.test.ts', 'test/*.test.ts'] },
  { name: 'api', command: bin('ava'), args: ['--tap', '--timeout=2m', 'test/api/**/*.test.ts'] },
  {
    name: 'packets',
    command: bin('ava'),
    args: ['--tap', '--serial', '--timeout=3m', 'test/packets/**/*.test.ts'],
    asRoot: true,
  },
  {
    name: 'model',
    command: bin('ava'),
    args: ['--tap', '--serial', '--timeout=8m', 'test/model/**/*.test.ts'],
    asRoot: true,
  },
  {
    name: 'gateway',
    command: bin('ava'),
    args: ['--tap', '--serial', '--concurrency=1', '--timeout=3m', 'test/gateway/**/*.test.ts'],
    asRoot: true,
  },
  {
    name: 'kubelet',
    command: bin('ava'),
    args: ['--tap', '--serial', '--concurrency=1', '--timeout=3m', 'test/kubelet/**/*.test.ts'],
    asRoot: true,
  },
  {
    name: 'cluster',
    command: bin('ava'),
    args: ['--tap', '--serial', '--concurrency=1', '--timeout=5m', 'test/cluster/**/*.test.ts'],
    asRoot: true,
  },
  {
    name: 'drills',
    command: bin('ava'),
    args: ['--tap', '--serial', '--concurrency=1', '--timeout=8m', 'test/drills/**/*.test.ts'],
    asRoot: true,
  },
]
const only = process.argv.slice(2)
let passed = 0
let failed = 0
let skipped = 0
for (const suite of suites.filter((s) => only.length === 0 || only.includes(s.name))) {
  const start = performance.now()
  const { code, output } = await runSuite(suite)
  const isTap = suite.args.includes('--tap')
  const counts = isTap
    ? countTap(output)
    : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0, failures: output }
  const broken = code !== 0 && counts.failed === 0
  passed += counts.passed
  failed += counts.failed + (broken ? 1 : 0)
  skipped += counts.skipped
  process.stdout.write(
    `${code === 0 ? 'ok  ' : 'FAIL'} ${suite.name}: ${counts.passed} passed, ${counts.failed} failed (${((performance.now() - start) / 1000).toFixed(1)} s)\n`,
  )
  if (code !== 0) process.stdout.write(`${broken ? output.slice(-20000) : counts.failures}\n`)
}
if (skipped > 0) process.stdout.write(`${skipped} skipped\n`)
process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1

async function runSuite(suite) {
  const [command, args] = suite.asRoot
    ? asRoot(`suite ${suite.name}`, suite.command, suite.args)
    : [suite.command, suite.args]
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}` },
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  const code = await new Promise((resolve) => child.on('close', (exit) => resolve(exit ?? 1)))
  return { code, output }
}
