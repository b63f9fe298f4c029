/** What `npm start` and `npm test` are made of, held against itself: a machine where everything is there already would not notice. */
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import test from 'ava'
import { programs } from '#cli/cluster/prerequisites.ts'
import { countTap } from '../scripts/tap.js'

const root = resolve(import.meta.dirname, '..')
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const json = <T>(path: string): T => JSON.parse(read(path)) as T

interface Locked {
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly dependencies?: Readonly<Record<string, string>>
  readonly hasInstallScript?: boolean
  readonly integrity?: string
}
const { packages } = json<{ packages: Readonly<Record<string, Locked>> }>('package-lock.json')
const nameOf = (path: string): string => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

/** As Node looks for it: beneath the package, then beside it and beside each that it lies in. */
function isLocked(from: string, name: string): boolean {
  const above = from.split('/node_modules/')
  return (
    `node_modules/${name}` in packages ||
    above.some((_, i) => `${above.slice(0, i + 1).join('/node_modules/')}/node_modules/${name}` in packages)
  )
}

test('the lock file has every package that it speaks of: npm ci refuses it otherwise', (t) => {
  const missing = Object.entries(packages).flatMap(([path, { dependencies, optionalDependencies }]) =>
    Object.keys({ ...dependencies, ...optionalDependencies })
      .filter((name) => !isLocked(path, name))
      .map((name) => `${path} wants ${name}`),
  )
  t.deepEqual(missing, [])
  t.deepEqual(
    Object.entries(packages)
      .filter(([path, { integrity }]) => path !== '' && integrity === undefined)
      .map(([path]) => path),
    [],
    'each with its hash',
  )
})

test('allowScripts names every package with an install script, and no other', (t) => {
  const { allowScripts } = json<{ allowScripts: Readonly<Record<string, boolean>> }>('package.json')
  const withScript = Object.entries(packages).flatMap(([path, p]) => (p.hasInstallScript ? [nameOf(path)] : []))
  t.deepEqual(Object.keys(allowScripts).toSorted(), [...new Set(withScript)].toSorted())
})

test('apt-packages.txt brings every program that a cluster starts; each line has a file and a purpose', (t) => {
  const lines = read('scripts/apt-packages.txt')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
  for (const line of lines) t.regex(line, /^[a-z0-9-]+ +(\/[\w/.-]+\|)*\/[\w/.-]+ +\S.*$/)
  const named = new Set(lines.map((line) => line.split(' ')[0]))
  // util-linux is in every Debian.
  t.deepEqual(
    Object.values(programs).filter((name) => name !== 'util-linux' && !named.has(name)),
    [],
  )
})

test('a failure is shown whole, with what the test said before it', (t) => {
  const said = [
    'not ok 2 - it works',
    '#   seed 7',
    '  ---',
    '    name: AssertionError',
    '  ...',
    'ok 3 - so does this',
  ]
  const counted = countTap(
    ['TAP version 13', 'ok 1 - a', ...said, '1..3', '# tests 3', '# pass 2', '# fail 1'].join('\n'),
  )
  t.deepEqual(counted, { passed: 2, failed: 1, skipped: 0, failures: said.slice(0, 5).join('\n') })
})
