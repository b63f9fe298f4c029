import { accessSync, constants, existsSync, statfsSync } from 'node:fs'

/** Programs that a node starts, and the package that brings each. */
const programs: readonly (readonly [path: readonly string[], name: string])[] = [
  [['/usr/bin/containerd', '/usr/local/bin/containerd'], 'containerd'],
  [['/usr/sbin/runc', '/usr/bin/runc', '/usr/local/bin/runc'], 'runc'],
  [['/usr/bin/clang'], 'clang'],
  [['/usr/bin/nsenter'], 'util-linux'],
]
const freeBytesMin = 512 * 1024 * 1024

/** What this machine must have. Throws one clear line with the remedy for the first thing that is missing. */
export function checkMachine(): void {
  if (process.getuid?.() !== 0)
    throw new Error('weft up makes network namespaces, mounts and BPF programs: run it as root (sudo npx weft up)')
  const missing = programs.filter(([paths]) => !paths.some(isProgram)).map(([, name]) => name)
  if (missing.length > 0)
    throw new Error(
      `missing on this machine: ${missing.join(', ')}. Run npm start once, or apt-get install ${missing.join(' ')}`,
    )
  if (!existsSync('/sys/kernel/btf/vmlinux'))
    throw new Error(
      'this kernel has no BTF (/sys/kernel/btf/vmlinux): Weft needs a kernel of 6.8 or later with CONFIG_DEBUG_INFO_BTF=y',
    )
  const { bavail, bsize } = statfsSync('/var/lib')
  if (bavail * bsize < freeBytesMin)
    throw new Error(
      `/var/lib has ${Math.floor((bavail * bsize) / 1e6)} MB free: Weft needs ${Math.floor(freeBytesMin / 1e6)} MB; free some first`,
    )
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
