import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { mountBind, mountsBelow, unmount } from '#kernel/mount.ts'

/** linux/fcntl.h; Node does not name it. */
const openPath = 0o10000000

/**
 * Binds `subPath` of the volume at `target` and returns it. What is opened is what is bound: a container that swaps a
 * directory for a symbolic link in between gains nothing. Missing directories are made. What was bound there before
 * stays if it is still what the path names: a file that was written anew since (a configMap's) is bound in its place.
 * Throws where the path leads out of the volume.
 */
export function bindSubPath(volumePath: string, subPath: string, target: string): string {
  if (subPath.startsWith('/') || subPath.split('/').includes('..'))
    throw new Error(`subPath "${subPath}" must be a relative path without ".."`)
  const root = realpathSync(volumePath)
  makeMissing(root, subPath)
  // Links that stay inside are fine (a configMap's ..data is one); where they lead is opened without following any.
  const real = realpathSync(join(root, subPath))
  const inside = relative(root, real)
  if (inside === '..' || inside.startsWith('../')) throw new Error(`subPath "${subPath}" leads out of the volume`)
  const fd = openInside(root, inside)
  try {
    if (mountsBelow(target).includes(target)) {
      const [bound, wanted] = [statSync(target), fstatSync(fd)]
      if (bound.dev === wanted.dev && bound.ino === wanted.ino) return target
      unmount(target)
    }
    mkdirSync(dirname(target), { recursive: true, mode: 0o750 })
    if (fstatSync(fd).isDirectory()) mkdirSync(target, { recursive: true })
    else writeFileSync(target, '')
    mountBind(`/proc/self/fd/${fd}`, target)
  } finally {
    closeSync(fd)
  }
  return target
}

function openInside(root: string, path: string): number {
  let fd = openSync(root, openPath | constants.O_DIRECTORY)
  for (const part of path.split('/').filter((p) => p !== '')) {
    const parent = fd
    try {
      fd = openSync(`/proc/self/fd/${parent}/${part}`, openPath | constants.O_NOFOLLOW)
    } finally {
      closeSync(parent)
    }
    if (fstatSync(fd).isSymbolicLink()) {
      closeSync(fd)
      throw new Error(`${part} has become a symbolic link`)
    }
  }
  return fd
}

/** mkdir -p that does not walk out of the volume through a link. */
function makeMissing(root: string, subPath: string): void {
  let at = root
  for (const part of subPath.split('/').filter((p) => p !== '' && p !== '.')) {
    at = join(at, part)
    if (existsSync(at)) {
      const real = realpathSync(at)
      if (real !== root && !real.startsWith(`${root}/`)) throw new Error(`subPath "${subPath}" leads out of the volume`)
      at = real
    } else mkdirSync(at, { mode: 0o750 })
  }
}
