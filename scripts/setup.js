// Brings a machine with Node 20, npm and apt to the point where Weft can run: what is missing is installed and said, the
// rest is left alone. Plain JavaScript, because it runs before the Node that understands TypeScript is there.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export const root = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..')
export const node24 = join(root, 'node_modules/.bin/node')

/** One line of the table that ends a run. */
export function timed(steps, name, run) {
  const start = performance.now()
  const detail = run()
  steps.push({ name, detail: detail ?? '', seconds: (performance.now() - start) / 1000 })
}

/** Ends the program with one line that says what to do. */
export function fail(message) {
  process.stderr.write(`weft: ${message}\n`)
  process.exit(1)
}

/** Runs a command to its end; a failure ends the program with what the command said. */
export function must(what, command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  })
  if (result.error) fail(`${what}: cannot run ${command}: ${result.error.message}`)
  if (result.status !== 0)
    fail(
      `${what}: ${command} ${args.join(' ')} ended with ${result.status ?? result.signal}\n${result.stdout ?? ''}${result.stderr ?? ''}`,
    )
  return result.stdout ?? ''
}

/** With the command in front that makes us root, where we are not. */
export function asRoot(command, args) {
  if (process.getuid?.() === 0) return [command, args]
  if (spawnSync('sudo', ['-V'], { stdio: 'ignore' }).status !== 0)
    fail('this step needs root: run it as root, or install sudo')
  return ['sudo', ['-E', command, ...args]]
}

/** Everything, in order. `steps` gets a line for each. */
export function setUp(steps) {
  if (process.platform !== 'linux') fail(`Weft runs on Linux, this is ${process.platform}`)
  timed(steps, 'Debian packages', installPackages)
  timed(steps, 'kubectl', installKubectl)
  timed(steps, 'npm packages', installModules)
  timed(steps, 'native/', buildNative)
}

function installPackages() {
  const wanted = readFileSync(join(root, 'scripts/apt-packages.txt'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(/\s+/))
  const missing = wanted.filter(([, file]) => !existsSync(file)).map(([name]) => name)
  if (missing.length === 0) return 'all there'
  if (!existsSync('/usr/bin/apt-get'))
    fail(`missing: ${missing.join(' ')}. Install them with this system's package manager (found no apt-get)`)
  process.stdout.write(`Installing Debian packages: ${missing.join(' ')}\n`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  must('apt-get update', ...asRoot('apt-get', ['update', '-qq']), { env })
  must('apt-get install', ...asRoot('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing]), {
    env,
  })
  return `installed ${missing.join(' ')}`
}

/** A kubectl that is there is left alone, whatever its version; tests fetch the distribution's where they need it. */
function installKubectl() {
  if (spawnSync('sh', ['-c', 'command -v kubectl'], { stdio: 'ignore' }).status === 0) return 'there'
  process.stdout.write('Installing Debian package: kubernetes-client\n')
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  must(
    'apt-get install',
    ...asRoot('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'kubernetes-client']),
    { env },
  )
  return 'installed kubernetes-client'
}

function installModules() {
  const hash = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  const stamp = join(root, 'node_modules/.weft-lock')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash && existsSync(node24)) return 'all there'
  process.stdout.write('Installing npm packages from package-lock.json\n')
  must('npm ci', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
  writeFileSync(stamp, hash)
  return 'installed by the lock file'
}

function buildNative() {
  mkdirSync(join(root, 'native/build'), { recursive: true })
  const out = must('native/', 'make', ['-s', '-C', 'native'])
  return out.trim() === '' ? 'up to date' : 'built'
}

/** The table of steps and times. */
export function table(rows, header) {
  const all = [header, ...rows]
  const widths = header.map((_, i) => Math.max(...all.map((row) => row[i].length)))
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
