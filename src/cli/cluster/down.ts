import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { delay } from '#base/async/delay.ts'
import { findCgroups, isPopulated, killCgroup, removeCgroup } from '#kernel/cgroup.ts'
import { mountsBelow, unmount } from '#kernel/mount.ts'
import { deleteNamespace } from '#kernel/netns.ts'
import type { ClusterLayout } from './layout.ts'
import { namespacesOf } from './observe.ts'

const killedWithinMs = 10_000

/** True where anything of the cluster is on this machine, alive or left by a crash. */
export function exists(layout: ClusterLayout): boolean {
  return existsSync(layout.runDir) || existsSync(layout.stateDir) || namespacesOf(layout.name).length > 0
}

/**
 * Ends a cluster and takes away all of it: processes by cgroup.kill (none can fork away from it), then mounts, the shims'
 * sockets, namespaces, cgroups, directories. Each step is idempotent, so it may be run again after a failure.
 */
export async function takeDown(layout: ClusterLayout): Promise<void> {
  const sockets = shimSockets(layout)
  await endProcesses(layout)
  for (const dir of [layout.runDir, layout.stateDir]) for (const path of mountsBelow(dir)) unmount(path)
  for (const socket of sockets) rmSync(socket, { force: true })
  for (const netns of namespacesOf(layout.name)) deleteNamespace(netns)
  const cgroups = findCgroups()
  removeCgroup(cgroups, layout.cgroup)
  for (const dir of [layout.runDir, layout.stateDir]) rmSync(dir, { recursive: true, force: true })
  for (const dir of [
    '/run/weft',
    '/var/lib/weft',
    ...[cgroups.unified, ...cgroups.legacy.map((h) => h.path)].map((p) => join(p, 'weft')),
  ])
    removeIfEmpty(dir)
}

async function endProcesses(layout: ClusterLayout): Promise<void> {
  const cgroups = findCgroups()
  const end = performance.now() + killedWithinMs
  while (isPopulated(cgroups, layout.cgroup)) {
    killCgroup(cgroups, layout.cgroup)
    if (performance.now() > end)
      throw new Error(
        `processes of cluster ${layout.name} did not end within ${killedWithinMs / 1000} s of cgroup.kill: see ${join(cgroups.unified, layout.cgroup)}`,
      )
    await delay(10)
  }
}

/** containerd's shims listen below /run/containerd/s whatever the configuration; each bundle names its own. */
function shimSockets(layout: ClusterLayout): string[] {
  return layout.nodes.flatMap((node) => {
    const bundles = join(node.runDir, 'containerd/io.containerd.runtime.v2.task/k8s.io')
    if (!existsSync(bundles)) return []
    return readdirSync(bundles).flatMap((id) => {
      const file = join(bundles, id, 'address')
      return existsSync(file)
        ? [
            readFileSync(file, 'utf8')
              .trim()
              .replace(/^unix:\/\//, ''),
          ]
        : []
    })
  })
}

function removeIfEmpty(dir: string): void {
  try {
    rmdirSync(dir)
  } catch (error) {
    // Somebody else's cluster is still in it, or it never was.
    if (!['ENOTEMPTY', 'ENOENT', 'EBUSY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}
