import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Where the programs' sources are. */
export const bpfDir = resolve(import.meta.dirname, '../../bpf')

/** Only against a clang that hangs: how long a start may take is said by `weft up --wait`. An emulated processor takes minutes. */
const compileWithinMs = 600_000

/** One per file of bpf/programs. */
const objectNames = [
  'from_container',
  'to_container',
  'from_netdev',
  'sock',
  'sk_lookup',
  'overlay',
  'sweep',
  'sweep_translations',
  'xdp_entry',
  'to_netdev',
] as const
export type ObjectName = (typeof objectNames)[number]

export interface CompileOptions {
  /** Objects are kept here, by a hash of what they were made from. */
  readonly cacheDir: string
  /** Abilities of this node's kernel that the sources ask for with #ifdef; `WEFT_HAVE_` is put in front. */
  readonly features?: readonly string[]
  readonly clang?: string
  /** Other sources than ours (tests): a directory like bpf/. */
  readonly sourceDir?: string
}

export interface CompiledObject {
  readonly name: ObjectName
  readonly elf: Buffer
  /** Same hash, same bytes. */
  readonly hash: string
}

/**
 * All programs as objects for this node. What was compiled before is taken from the cache; with objects in the cache (an
 * image brings them) no clang is needed. Throws with clang's words, or with what to install.
 */
export async function compile(options: CompileOptions): Promise<CompiledObject[]> {
  const { cacheDir, clang = 'clang', sourceDir = bpfDir } = options
  const flags = compilerFlags(options.features ?? [])
  const sources = hash(
    ...sourceFiles(sourceDir).flatMap((file) => [file, readFileSync(join(sourceDir, file))]),
    ...flags,
  )
  const version = await clangVersion(clang)
  const dir = version === undefined ? anyOf(cacheDir, sources) : join(cacheDir, `${sources}-${hash(version)}`)
  if (dir === undefined)
    throw new Error(
      `Cannot compile bpf/: there is no ${clang} on this node, and ${cacheDir} has no objects of these sources: install clang, or bring the objects`,
    )
  if (version !== undefined && !existsSync(dir)) await compileInto(dir, { clang, flags, sourceDir })
  return objectNames.map((name) => {
    const elf = readFileSync(join(dir, `${name}.o`))
    return { name, elf, hash: hash(elf) }
  })
}

/** Made aside and moved into place whole, so that a crash or a second compiler leaves no half cache. */
async function compileInto(
  dir: string,
  {
    clang,
    flags,
    sourceDir,
  }: { readonly clang: string; readonly flags: readonly string[]; readonly sourceDir: string },
): Promise<void> {
  mkdirSync(dirname(dir), { recursive: true })
  // Threads of one process compile, too.
  const aside = mkdtempSync(`${dir}.`)
  try {
    await Promise.all(
      objectNames.map(async (name) => {
        const out = join(aside, `${name}.o`)
        const args = [...flags, '-c', join('programs', `${name}.bpf.c`), '-o', resolve(out)]
        try {
          await run(clang, args, { cwd: sourceDir, timeout: compileWithinMs })
        } catch (error) {
          const { stderr = '', killed } = error as { stderr?: string; killed?: boolean }
          const words = killed ? `clang did not end within ${compileWithinMs / 1000} s` : stderr
          throw new Error(`Cannot compile ${name}.bpf.c\n${words}`, { cause: error })
        }
      }),
    )
    try {
      renameSync(aside, dir)
    } catch (error) {
      // Another process was first, with the same bytes.
      if (!existsSync(dir)) throw error
    }
  } finally {
    rmSync(aside, { recursive: true, force: true })
  }
}

function compilerFlags(features: readonly string[]): string[] {
  const machine = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch as string]
  return [
    '-O2',
    '-g',
    '-Wall',
    '-Werror',
    '-target',
    'bpf',
    '-mcpu=v3',
    // Relative to where clang is started, so that equal sources have equal flags wherever the checkout is.
    '-I.',
    // Debian keeps asm/ below the machine's name; -target bpf does not look there.
    ...(machine === undefined ? [] : [`-I/usr/include/${machine}`]),
    ...features.toSorted().map((feature) => `-DWEFT_HAVE_${feature}`),
  ]
}

async function clangVersion(clang: string): Promise<string | undefined> {
  try {
    return (await run(clang, ['--version'])).stdout
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new Error(`Cannot run ${clang}`, { cause: error })
  }
}

function anyOf(cacheDir: string, sources: string): string | undefined {
  if (!existsSync(cacheDir)) return undefined
  const found = readdirSync(cacheDir).find((name) => name.startsWith(`${sources}-`) && !name.includes('.'))
  return found === undefined ? undefined : join(cacheDir, found)
}

function sourceFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.[ch]$/.test(file))
    .toSorted()
}

function hash(...parts: readonly (string | Uint8Array)[]): string {
  const sum = createHash('sha256')
  for (const part of parts) sum.update(`${part.length}:`).update(part)
  return sum.digest('hex').slice(0, 24)
}
