import { readFileSync } from 'node:fs'
import { getSystemErrorMap } from 'node:util'
import koffi from 'koffi'

/** mount(2) flags, linux/mount.h. */
const mountFlags = {
  readOnly: 1,
  noSuid: 2,
  noDev: 4,
  noExec: 8,
  remount: 32,
  bind: 4096,
  recursive: 16384,
  private: 1 << 18,
  shared: 1 << 20,
} as const

/** umount2(2): detach now, clean up when the last user has gone. */
const detach = 2

const libc = koffi.load('libc.so.6')
const mount2 = libc.func(
  'int mount(const char *source, const char *target, const char *type, ulong flags, const char *data)',
)
const umount2 = libc.func('int umount2(const char *target, int flags)')

/** A system call that failed; `code` is errno's name, as in Node's own errors. */
export class MountError extends Error {
  readonly code: string

  constructor(action: string, errno: number) {
    const [code = `errno ${errno}`, words = 'unknown error'] = getSystemErrorMap().get(-errno) ?? []
    super(`Cannot ${action}: ${code}, ${words}`)
    this.name = 'MountError'
    this.code = code
  }
}

function check(result: number, action: string): void {
  if (result !== 0) throw new MountError(action, koffi.errno())
}

/** A new tmpfs at `target`; `sizeBytes` undefined leaves the kernel's half of memory. Throws `MountError`. */
export function mountTmpfs(
  target: string,
  { sizeBytes, mode }: { sizeBytes?: number | undefined; mode: number },
): void {
  const data = [`mode=${mode.toString(8)}`, ...(sizeBytes === undefined ? [] : [`size=${sizeBytes}`])].join(',')
  const result = mount2('tmpfs', target, 'tmpfs', mountFlags.noSuid | mountFlags.noDev, data)
  check(result, `mount a tmpfs at ${target}`)
}

/** A new bpffs at `target`: pins in it are this node's alone. Throws `MountError`. */
export function mountBpf(target: string): void {
  check(
    mount2('bpf', target, 'bpf', mountFlags.noSuid | mountFlags.noDev | mountFlags.noExec, 'mode=0700'),
    `mount a bpffs at ${target}`,
  )
}

/** `source` (with what is mounted below it) visible at `target` too. Throws `MountError`. */
export function mountBind(source: string, target: string): void {
  check(mount2(source, target, null, mountFlags.bind | mountFlags.recursive, null), `bind ${source} at ${target}`)
}

/** Makes `path` a mount of its own whose later mounts are seen wherever it is bound. Throws `MountError`. */
export function mountShared(path: string): void {
  mountBind(path, path)
  check(mount2('', path, null, mountFlags.shared | mountFlags.recursive, null), `share the mounts below ${path}`)
}

/** Takes the topmost mount at `target` away, at once for new users. Throws `MountError`. */
export function unmount(target: string): void {
  check(umount2(target, detach), `unmount ${target}`)
}

/** Mount points at or below `path` in this mount namespace, deepest last mounted first: the order to unmount in. */
export function mountsBelow(path: string, mountInfo = readFileSync('/proc/self/mountinfo', 'utf8')): string[] {
  return mountInfo
    .split('\n')
    .map((line) => unescapePath(line.split(' ')[4] ?? ''))
    .filter((target) => target === path || target.startsWith(`${path}/`))
    .toReversed()
}

/** proc(5): space, tab, newline and backslash are written as three octal digits. */
const unescapePath = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
