import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { findCgroups } from '#kernel/cgroup.ts'
import { type Feature, probeFeatures, requireFeatures } from '#kernel/features.ts'
import { searchPath } from './processes.ts'

/** Programs that a cluster on this machine starts, and the Debian package that brings each. */
export const programs: Readonly<Record<string, string>> = {
  containerd: 'containerd',
  ctr: 'containerd',
  runc: 'runc',
  clang: 'clang',
  nsenter: 'util-linux',
  gcc: 'gcc',
  make: 'make',
  busybox: 'busybox-static',
}

/** What of this machine decides whether a cluster can come up. */
export interface MachineFacts {
  readonly root: boolean
  /** Those of `programs` that are on the search path. */
  readonly programs: ReadonlySet<string>
  readonly features: readonly Feature[]
  /** /proc/self/mounts. */
  readonly mounts: string
  /** containerd copies it into every sandbox and makes none without. */
  readonly hostsFile: boolean
  /** Where the cluster's state goes. */
  readonly disk: { readonly path: string; readonly freeBytes: number }
}

const freeBytesMin = 512 * 1024 * 1024

/** Pure: throws one line with the remedy for the first thing that is missing. */
export function requireMachine(facts: MachineFacts): void {
  if (!facts.root)
    throw new Error('weft up makes network namespaces, mounts and BPF programs: run it as root (sudo npx weft up)')
  const missing = Object.keys(programs).filter((name) => !facts.programs.has(name))
  if (missing.length > 0) {
    const packages = [...new Set(missing.map((name) => programs[name]))].join(' ')
    throw new Error(
      `missing on this machine: ${missing.join(', ')}. Run npm start once, or apt-get install --no-install-recommends ${packages}`,
    )
  }
  requireFeatures(facts.features)
  findCgroups(facts.mounts)
  if (!facts.hostsFile)
    throw new Error(
      "there is no /etc/hosts, and containerd makes no sandbox without: echo '127.0.0.1 localhost' > /etc/hosts",
    )
  const { path, freeBytes } = facts.disk
  if (freeBytes < freeBytesMin)
    throw new Error(
      `${path} has ${megabytes(freeBytes)} MB free, Weft needs ${megabytes(freeBytesMin)} MB: free some first`,
    )
}

const megabytes = (bytes: number): number => Math.floor(bytes / 1e6)

/** What to say where the API server's port on 127.0.0.1 was asked for (or kept) and somebody else listens there. */
export function portTaken(port: number): string {
  return `127.0.0.1:${port} is taken by another program: choose one with --api-port, or end that program (ss -ltnp 'sport = :${port}' names it)`
}

/** Leaves nothing behind; the kernel is not tried without root, everything would be refused. */
export function readMachine(stateDir: string): MachineFacts {
  const root = process.getuid?.() === 0
  const path = firstExisting(stateDir)
  const { bavail, bsize } = statfsSync(path)
  return {
    root,
    programs: new Set(Object.keys(programs).filter(isOnPath)),
    features: root ? probeFeatures() : [],
    mounts: readFileSync('/proc/self/mounts', 'utf8'),
    hostsFile: existsSync('/etc/hosts'),
    disk: { path, freeBytes: bavail * bsize },
  }
}

function firstExisting(path: string): string {
  return existsSync(path) ? path : firstExisting(dirname(path))
}

const isOnPath = (program: string): boolean =>
  searchPath()
    .split(':')
    .some((dir) => isProgram(join(dir, program)))

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
