import { watch } from 'node:fs'
import { join } from 'node:path'
import { type CgroupTree, isPopulated } from './cgroup.ts'

/**
 * Calls `emptied` once when the last process of the cgroup has ended. The kernel tells it through inotify on
 * `cgroup.events`; Node's own `fs.watch` is inotify, so no native code is needed.
 * Returns how to stop watching. `emptied` may be called before this returns when it is empty already.
 */
export function watchEmptied(tree: CgroupTree, cgroup: string, emptied: () => void): () => void {
  let done = false
  const finish = () => {
    if (done) return
    done = true
    watcher?.close()
    emptied()
  }
  const look = () => {
    if (isPopulated(tree, cgroup) !== true) finish()
  }
  let watcher: ReturnType<typeof watch> | undefined
  try {
    watcher = watch(join(tree.unified, cgroup, 'cgroup.events'), look)
    watcher.on('error', look)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  // It may have ended between being seen alive and being watched.
  look()
  return () => {
    done = true
    watcher?.close()
  }
}
