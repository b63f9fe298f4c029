import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import test from 'ava'

/** Who may import whom (style: peers meet only through the Kubernetes API; nothing looks upward). */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  api: ['base'],
  store: ['base'],
  kernel: ['base'],
  client: ['base', 'api'],
  datapath: ['base', 'kernel'],
  reconcile: ['base', 'api', 'client'],
  gateway: ['base', 'api'],
  apiserver: ['base', 'api', 'store'],
  cni: ['base', 'kernel'],
  controllers: ['base', 'api', 'client', 'reconcile', 'gateway'],
  scheduler: ['base', 'api', 'client', 'reconcile'],
  kubelet: ['base', 'api', 'client', 'reconcile', 'kernel'],
  agent: ['base', 'api', 'client', 'reconcile', 'kernel', 'datapath', 'gateway', 'cni/protocol.ts'],
}

const root = resolve(import.meta.dirname, '..')
const src = join(root, 'src')

function filesBelow(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((e) => e.isFile())
    .map((e) => join(e.parentPath, e.name))
}

interface Import {
  readonly file: string
  readonly target: string
  /** Path below src/, or undefined for a package. */
  readonly inside: string | undefined
}

function imports(file: string): Import[] {
  const text = readFileSync(file, 'utf8')
  const found = [
    ...text.matchAll(
      /^\s*(?:import|export)\s[^'"]*?from\s+['"]([^'"]+)['"]|^\s*import\s+['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm,
    ),
  ]
  return found.map((m) => {
    const target = m[1] ?? m[2] ?? m[3] ?? ''
    const inside = target.startsWith('#')
      ? target.slice(1)
      : target.startsWith('.')
        ? relative(src, resolve(dirname(file), target))
        : undefined
    return { file: relative(root, file), target, inside }
  })
}

const sources = filesBelow(src).filter((f) => f.endsWith('.ts'))
const all = sources.flatMap(imports)

test('every import follows the import table', (t) => {
  const wrong: string[] = []
  for (const { file, target, inside } of all) {
    if (inside === undefined) continue
    const folder = file.split('/')[1] ?? ''
    const other = inside.split('/')[0] ?? ''
    if (other === folder || folder === 'cli') continue
    if (file.endsWith('.test.ts') && other === 'test') continue
    const allowed = mayImport[folder] ?? []
    // A test may also use the fakes of what its folder may import, and conformance suites are shared with tests.
    if (!allowed.includes(other) && !allowed.includes(inside)) wrong.push(`${file} imports ${target}`)
  }
  t.deepEqual(wrong, [])
})

test('nothing imports the command line', (t) => {
  const wrong = all.filter((i) => i.inside?.startsWith('cli/') && !i.file.startsWith('src/cli/'))
  t.deepEqual(
    wrong.map((i) => i.file),
    [],
  )
})

test('only src/kernel speaks to native code', (t) => {
  const wrong = all.filter((i) => (i.target === 'koffi' || i.target === 'netlink') && !i.file.startsWith('src/kernel/'))
  t.deepEqual(
    wrong.map((i) => `${i.file} imports ${i.target}`),
    [],
  )
})

test('the model is written from specifications alone: nothing of it is imported from what it judges', (t) => {
  const model = join(root, 'test/model')
  const files = filesBelow(model).filter((f) => f.endsWith('.ts') && !f.startsWith(join(model, 'run')))
  t.true(files.length > 5)
  const wrong = files
    .flatMap(imports)
    .filter((i) => i.target.startsWith('#') || (i.target.startsWith('.') && !i.target.startsWith('./')))
  t.deepEqual(
    wrong.map((i) => `${i.file} imports ${i.target}`),
    [],
  )
})

test('relative imports name a file with its ending, and no folder is a barrel', (t) => {
  t.deepEqual(
    all.filter((i) => i.inside !== undefined && !/\.(ts|json)$/.test(i.target)).map((i) => `${i.file}: ${i.target}`),
    [],
  )
  t.deepEqual(
    sources
      .filter((f) => /\/(index|mod|utils|helpers)\.ts$|\/(utils|helpers|common|shared)\//.test(f))
      .map((f) => relative(root, f)),
    [],
  )
})

test('every folder has at most one test file', (t) => {
  const counts = new Map<string, number>()
  for (const f of sources.filter((f) => f.endsWith('.test.ts')))
    counts.set(dirname(f), (counts.get(dirname(f)) ?? 0) + 1)
  t.deepEqual(
    [...counts].filter(([, n]) => n > 1).map(([d]) => relative(root, d)),
    [],
  )
})

test('no cycle of imports between files, of types neither', (t) => {
  const scripts = filesBelow(join(root, 'scripts')).filter((f) => /\.[tj]s$/.test(f))
  const model = filesBelow(join(root, 'test/model')).filter((f) => f.endsWith('.ts'))
  const edges = new Map(
    [...sources, ...scripts, ...model].map((file) => [
      relative(src, file),
      imports(file).flatMap(({ inside }) => inside ?? []),
    ]),
  )
  const state = new Map<string, 'open' | 'done'>()
  const cycles: string[] = []
  const visit = (file: string, path: readonly string[]): void => {
    if (state.get(file) === 'done') return
    if (state.get(file) === 'open') {
      cycles.push([...path.slice(path.indexOf(file)), file].join(' -> '))
      return
    }
    state.set(file, 'open')
    for (const next of edges.get(file) ?? []) visit(next, [...path, file])
    state.set(file, 'done')
  }
  for (const file of edges.keys()) visit(file, [])
  t.deepEqual(cycles, [])
})
