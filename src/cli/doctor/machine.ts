import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { freemem, release } from 'node:os'
import { findCgroups } from '#kernel/cgroup.ts'
import { type MachineFacts, programs, readMachine } from '../cluster/prerequisites.ts'
import { type Check, fault, ok, warning } from './check.ts'

/** What of a machine decides whether it can be a node, read by `readDoctorFacts()`. */
export interface DoctorFacts extends MachineFacts {
  readonly release: string
  /** By path below /proc/sys; absent: this kernel has none of it. */
  readonly sysctls: ReadonlyMap<string, string>
  /** /proc/filesystems, names only. */
  readonly filesystems: ReadonlySet<string>
  readonly memoryFreeBytes: number
  /** Ports of 127.0.0.1 on which somebody listens, of those that `weft up` would take. */
  readonly portsTaken: readonly number[]
  /** A cluster of ours runs here: what it holds is no trouble. */
  readonly clusterRuns: boolean
}

const where = 'machine'
const kernelMin = [6, 8] as const
const memoryMin = 512 * 1024 * 1024
const diskMin = 512 * 1024 * 1024
const apiPort = 6443

/** Smallest value, and what it is for. */
const sysctlsMin: Readonly<Record<string, readonly [number, string]>> = {
  'fs/inotify/max_user_instances': [128, 'containerd, kubelet and their pods watch files'],
  'fs/inotify/max_user_watches': [8192, 'containerd, kubelet and their pods watch files'],
  'kernel/pid_max': [32768, 'pods are processes'],
  'net/core/bpf_jit_enable': [1, 'without it every packet is interpreted'],
  'user/max_net_namespaces': [256, 'every pod has one'],
}

export async function readDoctorFacts(stateDir: string, clusterRuns: boolean): Promise<DoctorFacts> {
  return {
    ...readMachine(stateDir),
    release: release(),
    sysctls: new Map(
      [...Object.keys(sysctlsMin), 'net/ipv6/conf/all/disable_ipv6'].flatMap((path) =>
        existsSync(`/proc/sys/${path}`) ? [[path, readFileSync(`/proc/sys/${path}`, 'utf8').trim()] as const] : [],
      ),
    ),
    filesystems: new Set(
      readFileSync('/proc/filesystems', 'utf8')
        .split('\n')
        .map((line) => line.split('\t').at(-1) ?? ''),
    ),
    memoryFreeBytes: freemem(),
    portsTaken: clusterRuns || !(await isTaken(apiPort)) ? [] : [apiPort],
    clusterRuns,
  }
}

function isTaken(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(true))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(false)))
  })
}

/** Before anything runs: can this machine be a node? Pure. */
export function checkMachine(facts: DoctorFacts): Check[] {
  return [
    facts.root
      ? ok(where, 'root', 'yes')
      : fault(
          where,
          'root',
          'namespaces, mounts and BPF programs need root',
          'run this as root (sudo npx weft doctor)',
        ),
    checkKernel(facts.release),
    ...checkFeatures(facts),
    checkCgroups(facts.mounts),
    checkPrograms(facts.programs),
    ...checkSysctls(facts.sysctls),
    facts.filesystems.has('overlay')
      ? ok(where, 'overlayfs', 'there')
      : fault(where, 'overlayfs', 'containers have their files on it', 'modprobe overlay'),
    facts.hostsFile
      ? ok(where, '/etc/hosts', 'there')
      : fault(where, '/etc/hosts', 'containerd makes no sandbox without', "echo '127.0.0.1 localhost' > /etc/hosts"),
    checkRoom('disk', `below ${facts.disk.path}`, facts.disk.freeBytes, diskMin, 'free some first'),
    checkRoom('memory', 'of the machine', facts.memoryFreeBytes, memoryMin, 'end something first'),
    checkPort(facts.portsTaken),
  ]
}

function checkKernel(text: string): Check {
  const [major = 0, minor = 0] = text.split('.').map((part) => Number.parseInt(part, 10))
  const enough = major > kernelMin[0] || (major === kernelMin[0] && minor >= kernelMin[1])
  const wanted = `Linux ${kernelMin.join('.')}`
  return enough
    ? ok(where, 'kernel', `Linux ${text}`)
    : fault(where, 'kernel', `Linux ${text}`, `use ${wanted} or later`)
}

function checkFeatures({ root, features }: DoctorFacts): Check[] {
  if (!root) return [fault(where, 'BPF', 'cannot be tried', 'run this as root')]
  const has = features.filter((f) => f.available).map((f) => f.name)
  const lacking = features
    .filter((f) => !f.available)
    .map((f) => {
      const detail = `lacks ${f.name} (${f.reason}): ${f.cost}`
      const remedy = `it is in Linux ${f.since} and later, where the kernel was built with it`
      return f.required ? fault(where, 'BPF', detail, remedy) : warning(where, 'BPF', detail, remedy)
    })
  return [ok(where, 'BPF', `has ${has.join(', ')}`), ...lacking]
}

function checkCgroups(mounts: string): Check {
  try {
    const { unified } = findCgroups(mounts)
    return ok(where, 'cgroups', `cgroup2 at ${unified}`)
  } catch (error) {
    return fault(where, 'cgroups', error instanceof Error ? error.message : String(error), 'mount cgroup2')
  }
}

function checkPrograms(found: ReadonlySet<string>): Check {
  const missing = Object.keys(programs).filter((name) => !found.has(name))
  if (missing.length === 0) return ok(where, 'programs', Object.keys(programs).join(', '))
  const packages = [...new Set(missing.map((name) => programs[name]))].join(' ')
  return fault(
    where,
    'programs',
    `missing: ${missing.join(', ')}`,
    `apt-get install --no-install-recommends ${packages}`,
  )
}

function checkSysctls(sysctls: ReadonlyMap<string, string>): Check[] {
  const low = Object.entries(sysctlsMin).flatMap(([path, [min, why]]) => {
    const value = sysctls.get(path)
    if (value === undefined || Number(value) >= min) return []
    const name = path.replaceAll('/', '.')
    return [warning(where, 'sysctl', `${name} is ${value}: ${why}`, `sysctl -w ${name}=${min}`)]
  })
  const ipv6 = sysctls.get('net/ipv6/conf/all/disable_ipv6')
  if (ipv6 === undefined)
    low.push(
      warning(where, 'sysctl', 'this kernel has no IPv6: pods and Services have IPv4 alone', 'a kernel with IPv6'),
    )
  return low.length === 0 ? [ok(where, 'sysctl', `${sysctls.size} looked at`)] : low
}

function checkRoom(name: string, what: string, bytes: number, min: number, remedy: string): Check {
  const free = `${Math.floor(bytes / 1e6)} MB free ${what}`
  return bytes >= min
    ? ok(where, name, free)
    : fault(where, name, `${free}, ${Math.floor(min / 1e6)} are needed`, remedy)
}

function checkPort(taken: readonly number[]): Check {
  if (taken.length === 0) return ok(where, 'port', `127.0.0.1:${apiPort} is free or ours`)
  const remedy = `weft up takes the next one that is free; ss -ltnp 'sport = :${apiPort}' names whose it is`
  return warning(where, 'port', `127.0.0.1:${taken.join()} is taken by another program`, remedy)
}
