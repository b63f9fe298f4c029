// `npm run check`: types, lint, format, layout and the fast tests, in under 40 seconds.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { root, setUp } from './setup.js'
import { countTap } from './tap.js'

await setUp([])

const bin = (name) => join(root, 'node_modules/.bin', name)
const checks = [
  ['types', bin('tsc'), []],
  ['lint and format', bin('biome'), ['check', '--error-on-warnings', '.']],
  ['fast tests', bin('ava'), ['--tap', 'src/**/*.test.ts', 'test/*.test.ts']],
]
const results = await Promise.all(
  checks.map(async ([name, command, args]) => {
    const start = performance.now()
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}` },
    })
    let output = ''
    child.stdout.on('data', (chunk) => (output += chunk))
    child.stderr.on('data', (chunk) => (output += chunk))
    const code = await new Promise((resolve) => child.on('close', resolve))
    return { name, code, output, seconds: (performance.now() - start) / 1000 }
  }),
)
let passed = 0
let failed = 0
for (const { name, code, output, seconds } of results) {
  const tap =
    name === 'fast tests'
      ? countTap(output)
      : { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, failures: output }
  passed += tap.passed
  failed += tap.failed + (code !== 0 && tap.failed === 0 ? 1 : 0)
  process.stdout.write(`${code === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds.toFixed(1)} s)\n`)
  if (code !== 0) process.stdout.write(`${tap.failures || output}\n`)
}
process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
