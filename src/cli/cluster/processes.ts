import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** A process of the cluster that outlives the command that started it. */
export interface ProcessSpec {
  /** `server`, `node-1/containerd`, `node-1/agent`: what status and logs call it. */
  readonly name: string
  readonly command: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Name of the network namespace below /run/netns. */
  readonly netns: string
  /** Directory in the unified hierarchy that it is started in, so that a kill of the cgroup ends it and its children. */
  readonly cgroupDir: string
  readonly pidFile: string
  readonly logFile: string
  /** A listening socket that the process finds as descriptor 3. */
  readonly listenFd?: number
  /** Whether the process finds the namespace that it was started from as descriptor 4. */
  readonly keepsNamespace?: boolean
}

export interface RunningProcess {
  readonly name: string
  readonly pid: number
}

/** Where programs are looked for: `su` without a dash leaves root without the sbin directories, where runc is. */
export const searchPath = (path = process.env.PATH ?? ''): string =>
  [...new Set([...path.split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/local/bin', '/usr/bin', '/bin'])]
    .filter((dir) => dir !== '')
    .join(':')

/**
 * Starts the process in its namespace and cgroup, detached, with its output appended to the log file.
 * The shell is in the cgroup before it becomes nsenter, and that becomes the process: no child is ever outside.
 */
export function startProcess(spec: ProcessSpec): RunningProcess {
  for (const file of [spec.pidFile, spec.logFile]) mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  const log = openSync(spec.logFile, 'a', 0o600)
  try {
    // $0 is the cgroup, $1 the namespace, the rest the command.
    const keep = spec.keepsNamespace === true ? 'exec 4</proc/self/ns/net && ' : ''
    const script = `${keep}echo $$ > "$0/cgroup.procs" && ns=$1 && shift && exec nsenter "--net=/run/netns/$ns" -- "$@"`
    const child = spawn('/bin/sh', ['-c', script, spec.cgroupDir, spec.netns, ...spec.command], {
      detached: true,
      stdio: ['ignore', log, log, ...(spec.listenFd === undefined ? [] : [spec.listenFd])],
      env: { PATH: searchPath(), ...spec.env },
    })
    if (child.pid === undefined) throw new Error(`Cannot start ${spec.name}: /bin/sh did not start`)
    child.unref()
    writePidFile(spec.pidFile, child.pid)
    return { name: spec.name, pid: child.pid }
  } finally {
    closeSync(log)
  }
}

/** Pid and start time: a pid alone may be somebody else's by now. */
function writePidFile(path: string, pid: number): void {
  writeFileSync(`${path}.new`, `${pid} ${startTimeOf(pid) ?? ''}\n`)
  renameSync(`${path}.new`, path)
}

/** The live process that the file names, or undefined where it has ended (its pid may have been taken since). */
export function findProcess(name: string, pidFile: string): RunningProcess | undefined {
  let text: string
  try {
    text = readFileSync(pidFile, 'utf8')
  } catch {
    return undefined
  }
  const [pid, started] = text.trim().split(' ')
  // Without a start time the process had ended before it could be written, or the file was cut off.
  if (!pid || !started || startTimeOf(Number(pid)) !== started) return undefined
  return { name, pid: Number(pid) }
}

/** Clock ticks after boot at which the process began (proc(5), field 22 of stat); undefined for none and for zombies. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

/** The last lines of a log, for an error message. */
export function logTail(path: string, lines = 15): string {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-lines).join('\n')
  } catch {
    return '(no log)'
  }
}
