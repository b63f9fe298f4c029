import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** How the machine's cgroups are laid out. */
export interface CgroupTree {
  /** Mount point of cgroup2: where `cgroup.events` and `cgroup.kill` are. */
  readonly unified: string
  /** v1 hierarchies of a hybrid machine, by what is mounted where; empty on pure v2. */
  readonly legacy: readonly { readonly controllers: readonly string[]; readonly path: string }[]
}

/**
 * Reads the layout from /proc/self/mounts, of what is mounted at or below `root`: in a container those of the host are
 * elsewhere. Throws where there is no cgroup2 at all: nothing of ours works without.
 */
export function findCgroups(mounts = readFileSync('/proc/self/mounts', 'utf8'), root = '/'): CgroupTree {
  const below = root.endsWith('/') ? root : `${root}/`
  const rows = mounts
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, path = '']) => `${path}/`.startsWith(below))
  const unified = rows.find(([, , type]) => type === 'cgroup2')?.[1]
  if (unified === undefined)
    throw new Error('Cannot find cgroup2 in /proc/self/mounts: mount it at /sys/fs/cgroup/unified')
  const known = [
    'cpu',
    'cpuacct',
    'cpuset',
    'memory',
    'devices',
    'freezer',
    'blkio',
    'pids',
    'hugetlb',
    'net_cls',
    'net_prio',
    'perf_event',
    'rdma',
    'misc',
  ]
  const legacy = rows.flatMap(([, path = '', type, options = '']) => {
    if (type !== 'cgroup') return []
    const words = options.split(',')
    return [{ path, controllers: words.filter((w) => known.includes(w) || w.startsWith('name=')) }]
  })
  return { unified, legacy }
}

/** Limits of a cgroup; what is undefined stays as it is. */
export interface CgroupLimits {
  /** 2 to 262144, as in v1. */
  readonly cpuShares?: number
  readonly cpuQuotaMicroseconds?: number
  readonly memoryLimitBytes?: number
  readonly pidsMax?: number
}

const quotaPeriodMicroseconds = 100_000

/**
 * Makes the cgroup (`weft/c/node-1/pods/UID`) in every hierarchy, with cpuset filled where v1 needs it and controllers
 * handed down where v2 does, then applies the limits. Idempotent.
 */
export function ensureCgroup(tree: CgroupTree, cgroup: string, limits: CgroupLimits = {}): void {
  for (const { path, controllers } of tree.legacy) {
    const dir = join(path, cgroup)
    if (!existsSync(dir)) mkdirSync(dir, { recursive: true })
    if (controllers.includes('cpuset')) fillCpuset(path, dir)
    if (controllers.includes('cpu')) {
      set(dir, 'cpu.shares', limits.cpuShares)
      if (limits.cpuQuotaMicroseconds !== undefined) {
        set(dir, 'cpu.cfs_period_us', quotaPeriodMicroseconds)
        set(dir, 'cpu.cfs_quota_us', limits.cpuQuotaMicroseconds)
      }
    }
    if (controllers.includes('memory')) set(dir, 'memory.limit_in_bytes', limits.memoryLimitBytes)
    if (controllers.includes('pids')) set(dir, 'pids.max', limits.pidsMax)
  }
  const dir = join(tree.unified, cgroup)
  if (!existsSync(dir)) mkdirSync(dir, { recursive: true })
  if (tree.legacy.length > 0) return
  handDown(tree.unified, cgroup)
  if (limits.cpuShares !== undefined) set(dir, 'cpu.weight', weightOfShares(limits.cpuShares))
  if (limits.cpuQuotaMicroseconds !== undefined)
    set(dir, 'cpu.max', `${limits.cpuQuotaMicroseconds} ${quotaPeriodMicroseconds}`)
  set(dir, 'memory.max', limits.memoryLimitBytes)
  set(dir, 'pids.max', limits.pidsMax)
}

/** v1's 2..262144 onto v2's 1..10000 (KEP-2254). */
export const weightOfShares = (shares: number): number => 1 + Math.trunc(((shares - 2) * 9999) / 262142)

function set(dir: string, file: string, value: number | string | undefined): void {
  if (value === undefined) return
  try {
    writeFileSync(join(dir, file), String(value))
  } catch (error) {
    throw new Error(`Cannot set ${file} of ${dir} to ${value}`, { cause: error })
  }
}

/** A v1 cpuset starts empty, and nothing may join it so: each level takes what its parent has. */
function fillCpuset(root: string, dir: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    const path = join(dir, file)
    if (readFileSync(path, 'utf8').trim() !== '') continue
    if (dirname(dir).startsWith(root) && dirname(dir) !== dir) {
      if (readFileSync(join(dirname(dir), file), 'utf8').trim() === '') fillCpuset(root, dirname(dir))
      writeFileSync(path, readFileSync(join(dirname(dir), file), 'utf8').trim())
    }
  }
}

/** On v2 a controller works in a cgroup only when every level above lists it for its children. */
function handDown(unified: string, cgroup: string): void {
  const parts = cgroup.split('/').filter((p) => p !== '')
  let dir = unified
  for (const part of parts) {
    const has = readFileSync(join(dir, 'cgroup.controllers'), 'utf8').trim().split(' ')
    const given = readFileSync(join(dir, 'cgroup.subtree_control'), 'utf8').trim().split(' ')
    const missing = ['cpu', 'cpuset', 'io', 'memory', 'pids'].filter((c) => has.includes(c) && !given.includes(c))
    if (missing.length > 0) giveChildren(dir, missing)
    dir = join(dir, part)
  }
}

function giveChildren(dir: string, controllers: readonly string[]): void {
  try {
    writeFileSync(join(dir, 'cgroup.subtree_control'), controllers.map((c) => `+${c}`).join(' '))
  } catch (error) {
    const why =
      (error as NodeJS.ErrnoException).code === 'EBUSY'
        ? ': it has processes of its own (in a container, move them into a cgroup below it first)'
        : ''
    throw new Error(`Cannot hand ${controllers.join(', ')} down from the cgroup ${dir}${why}`, { cause: error })
  }
}

/**
 * Removes the cgroup and what is below it from every hierarchy. One that still has processes stays: the error says
 * which. Idempotent.
 */
export function removeCgroup(tree: CgroupTree, cgroup: string): void {
  for (const root of [...tree.legacy.map((h) => h.path), tree.unified]) removeBelow(join(root, cgroup))
}

function removeBelow(dir: string): void {
  if (!existsSync(dir)) return
  for (const entry of readdirSync(dir, { withFileTypes: true }))
    if (entry.isDirectory()) removeBelow(join(dir, entry.name))
  try {
    rmdirSync(dir)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw new Error(`Cannot remove the cgroup ${dir}`, { cause: error })
  }
}

/** Ends every process in and below the cgroup at once (Linux 5.14). Nothing to do where it is not there. */
export function killCgroup(tree: CgroupTree, cgroup: string): void {
  const file = join(tree.unified, cgroup, 'cgroup.kill')
  if (existsSync(file)) writeFileSync(file, '1')
}

/** Whether any process lives in the cgroup or below it; undefined when there is no such cgroup. */
export function isPopulated(tree: CgroupTree, cgroup: string): boolean | undefined {
  try {
    return readFileSync(join(tree.unified, cgroup, 'cgroup.events'), 'utf8').includes('populated 1')
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

/** A cgroup file of a directory that is being removed answers ENODEV. */
function isGone(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOENT' || code === 'ENODEV'
}
