import { execFileSync, type SpawnSyncOptions, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

const cache = resolve(import.meta.dirname, '../.cache/distribution')

/**
 * Programs of the distribution that only tests and benchmarks want, unpacked below a directory and not installed: so no
 * service of theirs starts, and the machine stays as it is. Returns that directory (`…/usr/sbin/unbound`).
 */
export function unpackPackages(...packages: readonly string[]): string {
  const root = join(cache, packages.join('+'))
  if (existsSync(root)) return root
  const work = `${root}.${process.pid}`
  mkdirSync(join(work, 'root'), { recursive: true })
  try {
    const args = ['download', '-qq', '-o', 'APT::Sandbox::User=root', ...packages]
    const options: SpawnSyncOptions = { cwd: work, stdio: ['ignore', 'pipe', 'pipe'] }
    // A list that is out of date names a version that is gone.
    if (spawnSync('apt-get', args, options).status !== 0) {
      execFileSync('apt-get', ['update', '-qq'], options)
      execFileSync('apt-get', args, options)
    }
    for (const name of readdirSync(work).filter((file) => file.endsWith('.deb')))
      execFileSync('dpkg', ['-x', join(work, name), join(work, 'root')])
    try {
      renameSync(join(work, 'root'), root)
    } catch (error) {
      // Somebody else was first.
      if (!existsSync(root)) throw error
    }
    return root
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** So that the loader finds libraries that came along with them. */
export const libraryEnv = (root: string): NodeJS.ProcessEnv => ({
  ...process.env,
  LD_LIBRARY_PATH: join(root, `usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`),
})
