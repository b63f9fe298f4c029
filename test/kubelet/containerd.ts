import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { eventually } from '#base/async/eventually.ts'
import { buildDemoArchive } from '#cli/images/demo.ts'
import { type CgroupTree, ensureCgroup, findCgroups, killCgroup, removeCgroup } from '#kernel/cgroup.ts'
import { mountsBelow, unmount } from '#kernel/mount.ts'
import { formatContainerdConfig } from '#kubelet/runtime/containerd-config.ts'
import { createCriRuntime } from '#kubelet/runtime/cri.ts'
import type { Runtime } from '#kubelet/runtime/runtime.ts'

/** A containerd of the test's own, with the demo's images, in a scratch directory and a cgroup of its own. */
export interface TestContainerd extends AsyncDisposable {
  readonly runtime: Runtime
  readonly socket: string
  readonly dir: string
  /** `weft-test-…`, below every hierarchy. */
  readonly cgroup: string
  readonly cgroups: CgroupTree
  readonly log: () => string
}

/**
 * A CNI plugin that brings `lo` up, called as `loopback`, and as `weft-test` gives an address that no device has: what
 * is under test is the kubelet, not the network.
 */
const cniPlugin = `#!/bin/sh
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}'; exit ;;
ADD) nsenter --net="$CNI_NETNS" ip link set lo up
     echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"version":"4","interface":0,"address":"127.0.0.1/8"}]}' ;;
esac
`

const root = resolve(import.meta.dirname, '../..')

/** Needs root and the package containerd. Disposing it ends every container, and leaves nothing behind. */
export async function startContainerd(): Promise<TestContainerd> {
  const dir = mkdtempSync(join(tmpdir(), 'weft-test-containerd-'))
  const cgroup = `weft-test-${dir.slice(-6)}`
  const cgroups = findCgroups()
  const socket = join(dir, 'containerd.sock')
  for (const sub of ['cni/bin', 'cni/conf', 'root', 'state']) mkdirSync(join(dir, sub), { recursive: true })
  for (const name of ['loopback', 'weft-test']) {
    writeFileSync(join(dir, 'cni/bin', name), cniPlugin)
    chmodSync(join(dir, 'cni/bin', name), 0o755)
  }
  const network = { cniVersion: '0.4.0', name: 'test', plugins: [{ type: 'weft-test' }] }
  writeFileSync(join(dir, 'cni/conf/10-test.conflist'), JSON.stringify(network))
  writeFileSync(
    join(dir, 'config.toml'),
    formatContainerdConfig({
      rootDir: join(dir, 'root'),
      stateDir: join(dir, 'state'),
      socket,
      cniBinDir: join(dir, 'cni/bin'),
      cniConfDir: join(dir, 'cni/conf'),
      sandboxImage: 'weft.local/pause:1',
    }),
  )
  ensureCgroup(cgroups, cgroup)
  ensureCgroup(cgroups, `${cgroup}/system`)
  const logFile = join(dir, 'log')
  const log = openSync(logFile, 'a')
  const procs = join(cgroups.unified, cgroup, 'system/cgroup.procs')
  const child: ChildProcess = spawn(
    '/bin/sh',
    ['-c', 'echo $$ > "$0" && exec containerd --config "$1"', procs, join(dir, 'config.toml')],
    {
      stdio: ['ignore', log, log],
    },
  )
  const runtime = createCriRuntime({ socket })
  const stop = async () => {
    try {
      for (const { id } of await runtime.listSandboxes()) {
        await runtime.stopSandbox(id)
        await runtime.removeSandbox(id)
      }
    } finally {
      runtime[Symbol.dispose]()
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
      killCgroup(cgroups, cgroup)
      for (const target of mountsBelow(dir)) unmount(target)
      await eventually(() => removeCgroup(cgroups, cgroup))
      rmSync(dir, { recursive: true, force: true })
    }
  }
  try {
    await eventually(async () => (await runtime.version()).name === 'containerd', { withinMs: 10_000, pauseMs: 20 })
    const archive = buildDemoArchive(root, join(dir, 'images'))
    execFileSync('ctr', ['--address', socket, '--namespace', 'k8s.io', 'images', 'import', archive], { stdio: 'pipe' })
    await eventually(async () => (await runtime.imageStatus('weft.local/busybox:1')) !== undefined)
  } catch (error) {
    await stop()
    throw error
  }
  return {
    runtime,
    socket,
    dir,
    cgroup,
    cgroups,
    log: () => readFileSync(logFile, 'utf8'),
    [Symbol.asyncDispose]: stop,
  }
}
