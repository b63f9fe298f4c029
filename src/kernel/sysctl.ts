import { checkResult } from './errno.ts'
import * as ffi from './ffi.ts'

/** Sets a sysctl of this process's own network namespace, by its path below /proc/sys. Throws `KernelError`. */
export function setSysctl(path: string, value: string | number): void {
  checkResult(ffi.sysctlWrite(-1, path, `${value}`), `set sysctl ${path} to ${value}`)
}

export function getSysctl(path: string): string {
  const out = Buffer.alloc(256)
  const length = checkResult(ffi.sysctlRead(-1, path, out, out.length), `read sysctl ${path}`)
  return out.toString('utf8', 0, length).trim()
}
