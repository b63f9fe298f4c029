import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import test from 'ava'

const root = resolve(import.meta.dirname, '..')
const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: root, encoding: 'utf8', maxBuffer: 16 << 20 })
  .split('\0')
  .filter((path) => path !== '' && existsSync(join(root, path)))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')
const readmes = tracked.filter((path) => basename(path) === 'README.md')
const manifest = JSON.parse(read('package.json')) as Record<
  'scripts' | 'dependencies' | 'devDependencies',
  Record<string, string>
>

/** What looks like a path of ours: a name with one of our endings, or a folder with its slash; `*` may stand in it. */
function pathsIn(text: string): string[] {
  const files = text.matchAll(
    /(?<![\w./<>~*@{}$-])(#?[\w*][\w.*/-]*\.(?:ts|js|c|h|json|jsonl|md|yaml|proto|sh|txt))(?!\.?\w)/g,
  )
  const folders = text.matchAll(/(?<=`|\s)((?:\.\.\/)*[a-z][\w-]*(?:\/[\w-]+)*\/)(?=[`\s:])/g)
  return [...files, ...folders].map((match) => match[1] ?? '')
}

/** Of the published modules, not ours. */
const upstreams = new Set(['generated.proto'])

/** A README names files from its own folder, from the root or from src/, and a file of a part by its bare name. */
function names(readme: string, path: string): boolean {
  if (upstreams.has(path)) return true
  const folder = dirname(join(root, readme))
  const plain = path.replace(/^#/, 'src/')
  if ([folder, root, join(root, 'src')].some((from) => globSync(plain, { cwd: from }).length > 0)) return true
  return globSync(`**/${plain}`, { cwd: folder, exclude: (name) => name === 'node_modules' }).length > 0
}

test('every path that a README names is there', (t) => {
  const missing = readmes.flatMap((readme) => {
    // What a command writes (`--json out.json`) is not there before.
    const text = read(readme).replaceAll(/--json \S+/g, '')
    return pathsIn(text)
      .filter((path) => !names(readme, path))
      .map((path) => `${readme}: ${path}`)
  })
  t.deepEqual(missing, [])
  t.true(readmes.flatMap((readme) => pathsIn(read(readme))).length > 100, 'the paths are found at all')
})

test('commands are such that anybody can give: not by what only a developer has in his PATH', (t) => {
  const wrong = readmes.flatMap((readme) =>
    [...read(readme).matchAll(/(?:`|^ *)(?:(?:ava|tsc|biome) |node [^`\n]*\.ts\b)[^`\n]*/gm)].map(
      (match) => `${readme}: ${match[0]}`,
    ),
  )
  t.deepEqual(wrong, [])
})

test('every npm script that a README names is in package.json', (t) => {
  const named = readmes.flatMap((readme) =>
    [...read(readme).matchAll(/\bnpm (?:run )?([a-z:]+)/g)].map((match) => ({ readme, script: match[1] ?? '' })),
  )
  const wrong = named.filter(
    ({ readme, script }) => read(readme).includes(`npm run ${script}`) && !manifest.scripts[script],
  )
  t.deepEqual(wrong, [])
  t.deepEqual(
    Object.keys(manifest.scripts).filter((script) => !named.some((name) => name.script === script)),
    [],
    'and every script is told of',
  )
})

test('the commands of weft are those that README.md tells of', (t) => {
  const commands = tracked
    .filter((path) => /^src\/cli\/[^/]+\.ts$/.test(path))
    .flatMap((path) => [...read(path).matchAll(/\bprogram\s*\.command\('([a-z]+)/g)].map((match) => match[1] ?? ''))
  t.true(commands.length > 0)
  const row = /^\| `src\/cli` +\|(.*)\|$/m.exec(read('README.md'))?.[1] ?? ''
  const listed = [...row.matchAll(/`(?:weft )?([a-z]+)`/g)].map((match) => match[1] ?? '')
  t.deepEqual(listed.toSorted(), commands.toSorted())
  const named = readmes.flatMap((readme) =>
    [...read(readme).matchAll(/(?:npx |`|\()weft ([a-z]+)/g)].map((match) => ({ readme, command: match[1] ?? '' })),
  )
  t.deepEqual(
    named.filter(({ command }) => !commands.includes(command)),
    [],
  )
})

test('every flag of weft, and every map of weft bpf, that a README names is one', (t) => {
  const named = readmes.flatMap((readme) =>
    [...read(readme).matchAll(/(?:npx |`|\()weft ([a-z]+)((?:[ =][\w./:-]+)*)/g)].map((match) => ({
      readme,
      command: match[1] ?? '',
      words: (match[2] ?? '').trim().split(/[ =]/),
    })),
  )
  const help = (command: string): string =>
    tracked
      .filter(
        (path) =>
          path === `src/cli/${command}.ts` || path === `src/cli/${command}/flags.ts` || path === 'src/cli/flags.ts',
      )
      .map(read)
      .join()
  const flags = named.flatMap(({ words, ...rest }) =>
    words.filter((word) => word.startsWith('--')).map((flag) => ({ ...rest, flag })),
  )
  t.true(flags.length > 5, 'flags are found at all')
  t.deepEqual(
    flags.filter(({ command, flag }) => !help(command).includes(`${flag} `) && !help(command).includes(`${flag}'`)),
    [],
  )
  const maps = named.filter(
    ({ command, words: [map] }) => command === 'bpf' && map !== undefined && /^[a-z]+$/.test(map),
  )
  t.true(maps.length > 2, 'maps are found at all')
  t.deepEqual(
    maps.filter(({ words: [map] }) => !read('src/cli/bpf.ts').includes(`\n  ${map}: '`)),
    [],
  )
})

test('every dependency has its line in README.md, and every line its dependency', (t) => {
  const table = read('README.md').split('## Dependencies')[1]?.split('\n## ')[0] ?? ''
  const listed = table
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .flatMap((line) => [...(line.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? ''))
  // Types of something that is listed need no reason of their own.
  const wanted = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies }).filter(
    (name) => !name.startsWith('@types/'),
  )
  t.deepEqual(listed.toSorted(), wanted.toSorted())
})

test('each row beside others names what shows it, but for the one that says what is not there', (t) => {
  const rows = (read('README.md').split('## Beside others')[1]?.split('\n## ')[0] ?? '')
    .split('\n')
    .filter((line) => /^\| \w/.test(line))
    .map((line) => line.split('|').map((cell) => cell.trim()))
  t.true(rows.length > 4, 'rows are found at all')
  const shown = new Set(
    rows.flatMap(([, what = '', , by = '']) =>
      existsSync(join(root, by.replaceAll('`', ''))) && by !== '' ? [what] : [],
    ),
  )
  t.deepEqual(
    rows.map(([, what = '']) => what).filter((what) => !shown.has(what)),
    ['not yet'],
  )
})

test('README.md tells of every part of src', (t) => {
  const parts = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  const told = read('README.md')
  t.deepEqual(
    parts.map((part) => part.name).filter((name) => !told.includes(`\`src/${name}\``)),
    [],
  )
})

test('bpf/README.md tells of every program and of every step', (t) => {
  const told = read('bpf/README.md')
  const files = tracked.filter((path) => /^bpf\/(?:lib|programs)\//.test(path)).map((path) => path.slice('bpf/'.length))
  t.true(files.length > 30, 'they are found at all')
  t.deepEqual(
    files.filter((file) => !told.includes(`\`${file}\``) && !file.startsWith('programs/sweep')),
    [],
  )
})

test('every trap of the dataplane has a test that is titled with its number, or a line that says why not', (t) => {
  /** Services and NAT, policy, path and devices, state and kernel: so many of each are known. */
  const known = { S: 30, P: 26, M: 21, L: 23 }
  const all = Object.entries(known).flatMap(([kind, count]) =>
    Array.from({ length: count }, (_, i) => `${kind}${i + 1}`),
  )
  // 'S9, S10: what happens', 'what happens (P10)'
  const titled = tracked
    .filter((path) => path.endsWith('.test.ts'))
    .flatMap((path) => [...read(path).matchAll(/['"`]([SPML]\d[SPML\d, ]*): |\(([SPML]\d[SPML\d, ]*)\)['"`]/g)])
    .flatMap((match) => (match[1] ?? match[2] ?? '').split(', '))
  const table = read('test/README.md').split('## Traps without a test')[1]?.split('\n## ')[0] ?? ''
  const told = [...table.matchAll(/^\| ([SPML]\d[^|]*)\|/gm)].flatMap((match) => (match[1] ?? '').trim().split(', '))
  t.deepEqual(
    all.filter((trap) => !titled.includes(trap) && !told.includes(trap)),
    [],
    'neither tested nor told',
  )
  t.deepEqual(
    [...titled, ...told].filter((trap) => !all.includes(trap)),
    [],
    'no such trap',
  )
  t.deepEqual(
    told.filter((trap) => titled.includes(trap)),
    [],
    'has a test by now',
  )
})

test('no file names the host of a package or image registry', (t) => {
  // Each machine says for itself where its packages come from. The brackets keep this file from finding itself.
  const host =
    /\b(?:docker|ghcr|quay|gcr|k8s\.gcr|registry\.k8s)[.]io\b|npmj[s]|pyp[i]\b|deb[.]debian[.]org|proxy[.]golang/i
  const wrong = tracked.filter((path) => host.test(read(path)))
  t.deepEqual(wrong, [])
})

test('nothing is left for later in a comment, and no program of ours prints but the command line', (t) => {
  const wrong = tracked
    .filter((path) => /^(?:src|scripts|bpf|native|images)\/.*\.(?:ts|js|c|h)$/.test(path) && !path.endsWith('.test.ts'))
    .flatMap((path) =>
      read(path)
        .split('\n')
        .flatMap((line, index) =>
          /\b(?:TODO|FIXME|XXX)\b|\bconsole\.log\b/.test(line) ? [`${path}:${index + 1}`] : [],
        ),
    )
  t.deepEqual(wrong, [])
})
