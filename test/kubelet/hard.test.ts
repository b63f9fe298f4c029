import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { pods } from '#api/gen/resources.ts'
import { isConditionTrue } from '#api/meta/conditions.ts'
import { eventually } from '#base/async/eventually.ts'
import { type CgroupTree, ensureCgroup, findCgroups, isPopulated, killCgroup, removeCgroup } from '#kernel/cgroup.ts'
import { MountError, mountBind, mountsBelow, mountTmpfs, unmount } from '#kernel/mount.ts'
import { bindSubPath } from '#kubelet/volumes/sub-path.ts'
import { startContainerd, type TestContainerd } from './containerd.ts'
import { busybox, startNode, type TestNode } from './node.ts'

// What goes wrong on a real node, and what only the kernel can show.
let containerd: TestContainerd
let node: TestNode
test.before(async () => {
  containerd = await startContainerd()
  node = await startNode(containerd)
})
test.after.always(async () => {
  await node?.[Symbol.asyncDispose]()
  await containerd?.[Symbol.asyncDispose]()
})

type Pod = Awaited<ReturnType<TestNode['get']>>
const ready = (pod: Pod) => isConditionTrue(pod.status?.conditions, 'Ready')

test.serial('limits reach the cgroup, and too much memory is named OOMKilled', async (t) => {
  await node.create('fat', {
    hostNetwork: true,
    restartPolicy: 'Never',
    containers: [
      // Dies of the limits only when they have been looked at.
      busybox('c', 'until [ -e /go ]; do sleep 0.1; done; tail /dev/zero', {
        resources: { requests: { cpu: '100m' }, limits: { memory: '24Mi', cpu: '200m' } },
      }),
    ],
  })
  const pod = await node.until('fat', (p) => p.status.phase === 'Running')
  const [container] = await containerd.runtime.listContainers(pod.metadata.uid)
  const dir = (controller: string) => {
    const tree = containerd.cgroups.legacy.find((h) => h.controllers.includes(controller))
    return join(tree?.path ?? containerd.cgroups.unified, containerd.cgroup, 'pods', pod.metadata.uid)
  }
  const read = (controller: string, v1: string, v2: string, at = container?.id ?? '') => {
    const file = join(dir(controller), at, containerd.cgroups.legacy.length > 0 ? v1 : v2)
    return readFileSync(file, 'utf8').trim()
  }
  t.is(read('memory', 'memory.limit_in_bytes', 'memory.max'), String(24 << 20))
  t.is(read('memory', 'memory.limit_in_bytes', 'memory.max', ''), String(24 << 20), 'the pod as a whole too')
  t.regex(read('cpu', 'cpu.cfs_quota_us', 'cpu.max'), /^20000/)
  t.is(pod.status.qosClass, 'Burstable')
  await containerd.runtime.execSync(container?.id ?? '', ['touch', '/go'], 10)
  const over = await node.until('fat', (p) => p.status.phase === 'Failed')
  t.like(over.status.containerStatuses?.[0]?.state.terminated, { reason: 'OOMKilled', exitCode: 137 })
  await node.remove('fat')
})

test.serial('a pod whose processes were all killed is made anew, in a new sandbox', async (t) => {
  await node.create('phoenix', { hostNetwork: true, containers: [busybox('c', 'exec sleep 1000')] })
  const before = await node.until('phoenix', ready)
  killCgroup(containerd.cgroups, `${containerd.cgroup}/pods/${before.metadata.uid}`)
  const after = await node.until('phoenix', (p) => ready(p) && (p.status.containerStatuses?.[0]?.restartCount ?? 0) > 0)
  t.not(after.status.containerStatuses?.[0]?.containerID, before.status.containerStatuses?.[0]?.containerID)
  const standing = (await containerd.runtime.listSandboxes(before.metadata.uid)).filter((s) => s.ready)
  t.deepEqual(
    standing.map((s) => s.attempt),
    [1],
  )
  await node.remove('phoenix')
})

test.serial('a pod that vanished from the API is ended and cleaned up', async (t) => {
  const { metadata } = await node.create('ghost', { hostNetwork: true, containers: [busybox('c', 'exec sleep 1000')] })
  await node.until('ghost', ready)
  node.client.vanish(pods, { namespace: 'default', name: 'ghost' })
  await eventually(async () => (await containerd.runtime.listSandboxes(metadata.uid)).length === 0, {
    withinMs: 10_000,
  })
  await eventually(() => !existsSync(join(containerd.cgroups.unified, containerd.cgroup, 'pods', metadata.uid)))
  t.deepEqual(mountsBelow(join(containerd.dir, 'kubelet/pods', metadata.uid)), [])
})

test.serial('a process in the cgroup of a deleted pod that the runtime does not know of is killed', async (t) => {
  await node.create('haunted', { hostNetwork: true, containers: [busybox('c', 'exec sleep 1000')] })
  const { metadata } = await node.until('haunted', ready)
  const cgroup = `${containerd.cgroup}/pods/${metadata.uid}`
  ensureCgroup(containerd.cgroups, `${cgroup}/lost`)
  const { ended } = await sleeperIn(containerd.cgroups, `${cgroup}/lost`)
  await node.remove('haunted')
  t.is(await ended, 'SIGKILL')
  await eventually(() => isPopulated(containerd.cgroups, cgroup) === undefined, { withinMs: 10_000 })
})

test.serial('activeDeadlineSeconds ends a pod', async (t) => {
  await node.create('late', {
    hostNetwork: true,
    activeDeadlineSeconds: 1,
    containers: [busybox('c', 'exec sleep 1000')],
  })
  const pod = await node.until('late', (p) => p.status.phase === 'Failed')
  t.is(pod.status.reason, 'DeadlineExceeded')
  await node.remove('late')
})

test.serial('a token is renewed before it ends', async (t) => {
  await node.create('tokens', {
    hostNetwork: true,
    serviceAccountName: 'bot',
    containers: [busybox('c', 'exec sleep 1000', { volumeMounts: [{ name: 'token', mountPath: '/token' }] })],
    volumes: [
      { name: 'token', projected: { sources: [{ serviceAccountToken: { path: 'token', expirationSeconds: 601 } }] } },
    ],
  })
  const { metadata } = await node.until('tokens', ready)
  const file = join(containerd.dir, 'kubelet/pods', metadata.uid, 'volumes/kubernetes.io~projected/token/token')
  // The first may have been renewed by now: it lives for two seconds.
  const first = readFileSync(file, 'utf8')
  t.regex(first, /^token-\d+$/)
  await eventually(() => readFileSync(file, 'utf8') !== first, { withinMs: 15_000 })
  t.regex(readFileSync(file, 'utf8'), /^token-\d+$/)
  await node.remove('tokens')
})

test.serial('postStart runs before the pod is ready; one that fails has the container restarted', async (t) => {
  const hook = (script: string) => ({ lifecycle: { postStart: { exec: { command: ['sh', '-c', script] } } } })
  await node.create('hooked', {
    hostNetwork: true,
    containers: [busybox('c', 'exec sleep 1000', hook('sleep 0.5; touch /done'))],
  })
  const pod = await node.until('hooked', ready)
  const [container] = await containerd.runtime.listContainers(pod.metadata.uid)
  t.is((await containerd.runtime.execSync(container?.id ?? '', ['test', '-f', '/done'], 5)).exitCode, 0)
  await node.remove('hooked')
  await node.create('broken', { hostNetwork: true, containers: [busybox('c', 'exec sleep 1000', hook('exit 9'))] })
  await node.until('broken', (p) => (p.status.containerStatuses?.[0]?.restartCount ?? 0) > 0)
  await node.remove('broken')
})

test.serial('a sidecar starts before and ends after the others', async (t) => {
  await node.create('pair', {
    hostNetwork: true,
    restartPolicy: 'Never',
    initContainers: [
      busybox('side', 'trap "exit 0" TERM; while true; do sleep 0.1; done', { restartPolicy: 'Always' }),
    ],
    containers: [busybox('c', 'sleep 0.5')],
  })
  const pod = await node.until('pair', (p) => p.status.phase === 'Succeeded')
  const main = pod.status.containerStatuses?.[0]?.state.terminated
  const side = pod.status.initContainerStatuses?.[0]?.state.terminated
  t.is(side?.exitCode, 0)
  t.true(Date.parse(side?.startedAt ?? '') <= Date.parse(main?.startedAt ?? ''))
  t.true(Date.parse(side?.finishedAt ?? '') >= Date.parse(main?.finishedAt ?? ''))
  await node.remove('pair')
})

test('mounts: tmpfs with a size, bind of a subPath, and the order in which they go', (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-test-mounts-'))
  t.teardown(() => {
    for (const target of mountsBelow(dir)) unmount(target)
    rmSync(dir, { recursive: true, force: true })
  })
  const memory = join(dir, 'with space')
  mkdirSync(memory)
  mountTmpfs(memory, { sizeBytes: 64 * 1024, mode: 0o750 })
  t.is(statSync(memory).mode & 0o777, 0o750)
  t.throws(() => writeFileSync(join(memory, 'big'), Buffer.alloc(128 * 1024)), { code: 'ENOSPC' })
  rmSync(join(memory, 'big'))
  writeFileSync(join(memory, 'file'), 'inside')
  const target = bindSubPath(memory, 'file', join(dir, 'target'))
  t.is(readFileSync(target, 'utf8'), 'inside')
  t.is(bindSubPath(memory, 'file', join(dir, 'target')), target, 'bound already')
  rmSync(join(memory, 'file'))
  writeFileSync(join(memory, 'file'), 'anew')
  bindSubPath(memory, 'file', join(dir, 'target'))
  t.is(readFileSync(target, 'utf8'), 'anew', 'not what was there before')
  bindSubPath(memory, 'made/for/us', join(dir, 'deep'))
  writeFileSync(join(dir, 'deep/x'), '')
  t.deepEqual(readdirSync(join(memory, 'made/for/us')), ['x'])
  t.deepEqual(mountsBelow(dir), [join(dir, 'deep'), target, memory])
  t.throws(() => mountBind('/nowhere', dir), { instanceOf: MountError, code: 'ENOENT' })
})

test('cgroups: made in every hierarchy, fit to be joined, killed and removed', async (t) => {
  const cgroups = findCgroups()
  const name = `weft-test-${process.pid}`
  ensureCgroup(cgroups, `${name}/a/b`, { cpuShares: 512, memoryLimitBytes: 1 << 26, pidsMax: 50 })
  ensureCgroup(cgroups, `${name}/a/b`)
  const { ended } = await sleeperIn(cgroups, `${name}/a/b`)
  killCgroup(cgroups, name)
  t.is(await ended, 'SIGKILL')
  await eventually(() => removeCgroup(cgroups, name))
  t.is(isPopulated(cgroups, name), undefined)
})

/** A process that lives in the cgroup, and the signal that will end it. */
async function sleeperIn(cgroups: CgroupTree, cgroup: string): Promise<{ ended: Promise<string | null> }> {
  const procs = [...cgroups.legacy.map((h) => h.path), cgroups.unified].map((root) =>
    join(root, cgroup, 'cgroup.procs'),
  )
  const child = spawn(
    '/bin/sh',
    ['-c', 'for f in "$@"; do echo $$ > "$f" || exit 1; done; exec sleep 1000', 'sh', ...procs],
    { stdio: 'ignore' },
  )
  const ended = new Promise<string | null>((resolve) => child.on('exit', (_, signal) => resolve(signal)))
  await eventually(() => isPopulated(cgroups, cgroup) === true)
  return { ended }
}
