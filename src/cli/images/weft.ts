import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { compile } from '#datapath/compile.ts'
import { librariesOf } from './libraries.ts'
import { ociArchive } from './oci.ts'
import type { TarEntry } from './tar.ts'

export const weftImage = 'weft.local/weft:1'

/** Where the checkout is in the image. */
const home = 'opt/weft'
/** What runs; the rest of the checkout is for those who work on it. */
const parts = ['package.json', 'src', 'bpf', 'native/build', 'examples', 'scripts/weft.js', 'scripts/setup.js']

/**
 * The agent with all that it needs, as an OCI archive: the checkout, the production packages of the lock file, Node 24, the
 * libraries that they are linked to, the L7 engine where this machine has it, and the programs compiled for the usual kernel,
 * so that a node needs no compiler. Made from this machine's own files; nothing is fetched.
 */
export async function buildWeftArchive(root: string): Promise<Uint8Array> {
  const entries = new Map<string, TarEntry>()
  const add = (entry: TarEntry): void => {
    addParents(entries, entry.path)
    entries.set(entry.path, entry)
  }
  for (const path of [...parts, ...productionPackages(root)]) addTree(add, join(root, path), join(home, path))
  const natives = [...entries.keys()].filter((path) => path.endsWith('.node') || path.endsWith('.so'))
  const programs = [
    join(root, 'node_modules/node/bin/node'),
    ...natives.map((path) => join(root, relative(home, path))),
    ...enginePrograms(),
  ]
  for (const program of programs) {
    if (!program.startsWith(root)) addFile(add, program, program.slice(1))
    for (const { path, data } of librariesOf(program)) add({ path, type: 'file', mode: 0o755, data })
  }
  await addCompiled(add)
  for (const dir of ['tmp/', 'run/', 'etc/', 'proc/', 'sys/']) add({ path: dir, type: 'directory', mode: 0o755 })
  add({ path: 'etc/passwd', type: 'file', mode: 0o644, data: Buffer.from('root:x:0:0:root:/root:/bin/false\n') })
  const sorted = [...entries.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1))
  return ociArchive([
    {
      reference: weftImage,
      files: sorted,
      entrypoint: [`/${home}/node_modules/node/bin/node`, `/${home}/src/cli/main.ts`],
      env: [
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        'NODE_OPTIONS=--disable-warning=ExperimentalWarning',
      ],
    },
  ])
}

interface LockFile {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly link?: boolean }>>
}

/** Directories of what the lock file wants in production and this machine has: optional ones of other platforms it has not. */
function productionPackages(root: string): string[] {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as LockFile
  return Object.entries(packages)
    .filter(([path, { dev }]) => path !== '' && dev !== true && existsSync(join(root, path)))
    .map(([path]) => path)
}

/** The engine and the library that its Lua file loads. */
function enginePrograms(): string[] {
  const lua = existsSync('/usr/lib/x86_64-linux-gnu/lua')
    ? '/usr/lib/x86_64-linux-gnu/lua'
    : '/usr/lib/aarch64-linux-gnu/lua'
  const modules = existsSync(lua)
    ? readdirSync(lua, { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith('rex_pcre2.so'))
        .map((file) => join(lua, file))
    : []
  return ['/usr/sbin/haproxy', ...modules].filter((path) => existsSync(path))
}

async function addCompiled(add: (entry: TarEntry) => void): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-image-'))
  try {
    await compile({ cacheDir: dir })
    addTree(add, dir, 'var/cache/weft/bpf')
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** Nested packages have an entry of their own in the lock file, and so are not walked twice. */
function addTree(add: (entry: TarEntry) => void, from: string, to: string): void {
  const stat = lstatSync(from)
  if (stat.isDirectory()) {
    add({ path: `${to}/`, type: 'directory', mode: 0o755 })
    for (const name of readdirSync(from)) {
      const foreign = from.endsWith('/prebuilds') && name !== `${process.platform}-${process.arch}`
      if (name !== 'node_modules' && !foreign) addTree(add, join(from, name), join(to, name))
    }
  } else if (stat.isSymbolicLink()) add({ path: to, type: 'symlink', target: readlinkSync(from) })
  // Tests and prose do not run; what is linked to another C library cannot.
  else if (stat.isFile() && !/\.(test\.ts|md|map|musl\.node)$/.test(from)) addFile(add, from, to)
}

function addFile(add: (entry: TarEntry) => void, from: string, to: string): void {
  const executable = (lstatSync(from).mode & 0o111) !== 0
  add({ path: to, type: 'file', mode: executable ? 0o755 : 0o644, data: readFileSync(from) })
}

function addParents(entries: Map<string, TarEntry>, path: string): void {
  for (let cut = path.indexOf('/'); cut >= 0 && cut < path.length - 1; cut = path.indexOf('/', cut + 1)) {
    const dir = path.slice(0, cut + 1)
    if (!entries.has(dir)) entries.set(dir, { path: dir, type: 'directory', mode: 0o755 })
  }
}

/** Gives a node's container runtime the images of an archive. */
export function importArchive(criSocket: string, archive: string): void {
  execFileSync('ctr', ['--address', criSocket, '--namespace', 'k8s.io', 'images', 'import', archive], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}
