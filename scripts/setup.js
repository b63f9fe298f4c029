// Brings a machine with Node 20, npm and apt to the point where Weft can run: what is missing is installed and said, the
// rest is left alone. Each step finds out by itself whether it is done, so a set-up that was cut off is simply run again.
// Plain JavaScript, because it runs before the Node that understands TypeScript is there.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export const root = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..')
export const node24 = join(root, 'node_modules/.bin/node')

const nodeVersionMin = 20
const linesShownMax = 40
const lockSeconds = 300
/** What a shell makes of a program that Ctrl-C ended. */
const interrupted = 130

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
    maxBuffer: 64 << 20,
    ...options,
  })
  if (result.error) fail(`${what}: cannot run ${command}: ${result.error.message}`)
  if (result.signal === 'SIGINT' || result.status === interrupted || /signal SIGINT/.test(result.stderr ?? ''))
    fail(`${what}: interrupted; run this again to go on`)
  if (result.status !== 0)
    fail(
      `${what}: ${command} ${args.join(' ')} ended with ${result.status ?? result.signal}; run this again once that is mended\n${shorten(`${result.stdout ?? ''}${result.stderr ?? ''}`)}`,
    )
  return result.stdout ?? ''
}

/** The beginning says what went wrong, the end how it ended; npm prints its whole usage between. */
function shorten(text) {
  const lines = text.trimEnd().split('\n')
  if (lines.length <= linesShownMax) return lines.join('\n')
  const half = linesShownMax / 2
  return [...lines.slice(0, half), `(${lines.length - linesShownMax} lines left out)`, ...lines.slice(-half)].join('\n')
}

/** With the command in front that makes us root, where we are not. `what` begins the sentence that refuses. */
export function asRoot(what, command, args) {
  if (process.getuid?.() === 0) return [command, args]
  if (spawnSync('sudo', ['-V'], { stdio: 'ignore' }).status !== 0)
    fail(`${what} needs root, and there is no sudo: run this as root, or install sudo`)
  return ['sudo', ['-E', command, ...args]]
}

/** Everything, in order. `steps` gets a line for each. */
export async function setUp(steps) {
  if (process.platform !== 'linux') fail(`Weft runs on Linux, this is ${process.platform}`)
  if (Number.parseInt(process.versions.node, 10) < nodeVersionMin)
    fail(`this is Node ${process.versions.node}: Weft starts from Node ${nodeVersionMin} or later`)
  // Ctrl-C goes to the step's program too: that is waited for, because npm takes back what it did before it ends.
  process.once('SIGINT', () => process.exit(interrupted))
  const all = [
    ['Debian packages', installPackages],
    ['npm packages', installModules],
    ['native/', buildNative],
  ]
  for (const [name, run] of all) {
    timed(steps, name, run)
    // A signal that came meanwhile is heard only when the event loop turns.
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function installPackages() {
  const wanted = readPackages(readFileSync(join(root, 'scripts/apt-packages.txt'), 'utf8'))
  const unfinished = unfinishedPackages(wanted.map(({ name }) => name))
  const missing = wanted.filter(({ name, files }) => unfinished.has(name) || !files.some((file) => existsSync(file)))
  if (missing.length === 0) return 'all there'
  const names = missing.map(({ name }) => name)
  if (!existsSync('/usr/bin/apt-get'))
    fail(`missing: ${names.join(' ')}. Install them with this system's package manager (found no apt-get)`)
  const what = `installing Debian packages (${names.join(' ')})`
  // An apt-get that still runs is waited for: Ctrl-C leaves one behind, dpkg is not to be cut off.
  const waiting = ['-qq', '-o', `DPkg::Lock::Timeout=${lockSeconds}`]
  const update = asRoot(what, 'apt-get', ['update', ...waiting])
  // Nothing of the machine's own is taken away for ours.
  const install = asRoot(what, 'apt-get', [
    'install',
    '-y',
    '--no-install-recommends',
    '--no-remove',
    ...waiting,
    ...names,
  ])
  const width = Math.max(...names.map((name) => name.length))
  process.stdout.write(
    `Installing Debian packages:\n${missing.map(({ name, purpose }) => `  ${name.padEnd(width)}  ${purpose}\n`).join('')}`,
  )
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  must('apt-get update', ...update, { env })
  const first = spawnSync(...install, { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 << 20 })
  if (first.status === 0) return `installed ${names.length}`
  // What was cut off hard (power, kill -9) is finished first: apt-get says so and refuses to begin otherwise.
  if (/dpkg --configure -a/.test(first.stderr))
    must('finishing an interrupted installation', ...asRoot(what, 'dpkg', ['--configure', '-a']), { env })
  must('apt-get install', ...install, { env })
  return `installed ${names.length}`
}

/** Those of the packages that dpkg began with and did not end: their files are there, they may not work yet. */
function unfinishedPackages(names) {
  const format = ['-W', '-f', `\${Package} \${db:Status-Status}\\n`]
  // Absent on systems without dpkg; complains about packages that it never heard of, and lists the others.
  const { stdout } = spawnSync('dpkg-query', [...format, ...names], { encoding: 'utf8' })
  const begun = ['half-installed', 'unpacked', 'half-configured']
  return new Set(
    (stdout ?? '')
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, status]) => begun.includes(status))
      .map(([name]) => name),
  )
}

/** The lines of apt-packages.txt. */
function readPackages(text) {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [name, files, ...purpose] = line.split(/\s+/)
      return { name, files: files.split('|'), purpose: purpose.join(' ') }
    })
}

function installModules() {
  const hash = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  const stamp = join(root, 'node_modules/.weft-lock')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash && existsSync(node24)) return 'all there'
  process.stdout.write('Installing npm packages by package-lock.json, Node 24 among them\n')
  must('npm ci', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
  if (!existsSync(node24))
    fail("npm ci brought no Node 24: package `node` fetches it in its install script; is npm's ignore-scripts set?")
  writeFileSync(stamp, hash)
  return 'installed by the lock file'
}

function buildNative() {
  mkdirSync(join(root, 'native/build'), { recursive: true })
  const upToDate = spawnSync('make', ['-q', '-C', 'native'], { cwd: root, stdio: 'ignore' }).status === 0
  if (upToDate) return 'up to date'
  process.stdout.write('Building native/\n')
  must('native/', 'make', ['-s', '-C', 'native'])
  return 'built'
}

/** The table of steps and times. */
export function stepTable(steps) {
  return table(
    steps.map((s) => [s.name, `${s.seconds.toFixed(1)} s`, s.detail]),
    ['STEP', 'TIME', ''],
  )
}

function table(rows, header) {
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
