import { join } from 'node:path'
import test from 'ava'
import { eventually } from '#base/async/eventually.ts'
import { watchEmptied } from '#kernel/inotify.ts'
import { containerFor, runtimeCases, sandboxFor } from '#kubelet/runtime/conformance.ts'
import { startContainerd, type TestContainerd } from './containerd.ts'

const image = 'weft.local/busybox:1'
let containerd: TestContainerd
test.before(async () => {
  containerd = await startContainerd()
})
test.after.always(async () => {
  await containerd?.[Symbol.asyncDispose]()
})

const exit = async (id: string, code: number) => {
  await containerd.runtime.execSync(id, ['sh', '-c', `echo ${code} > /tmp/code; mv /tmp/code /code`], 5)
}

for (const { name, run } of runtimeCases) {
  test.serial(`containerd: ${name}`, async (t) => {
    const { runtime, cgroup, dir } = containerd
    await run({ runtime, image, cgroup: `/${cgroup}/pods`, logDir: dir, exit }, (actual, expected, words) => {
      t.deepEqual(actual, expected, words)
    })
    t.pass()
  })
}

test.serial('the kernel tells of an exit through cgroup.events', async (t) => {
  const { runtime, cgroup, cgroups, dir } = containerd
  const under = { cgroup: `/${cgroup}/pods`, logDir: dir }
  const config = sandboxFor('e', under)
  const sandbox = await runtime.runSandbox(config, '')
  const id = await runtime.createContainer(sandbox, containerFor('c', image, 'e'), config)
  await runtime.startContainer(id)
  let emptied = false
  const stop = watchEmptied(cgroups, join(cgroup, 'pods/e', id), () => {
    emptied = true
  })
  t.false(emptied)
  await exit(id, 3)
  await eventually(() => emptied)
  stop()
  await runtime.removeSandbox(sandbox)
})

test.serial('execSync() gives output and code', async (t) => {
  const { runtime, cgroup, dir } = containerd
  const config = sandboxFor('f', { cgroup: `/${cgroup}/pods`, logDir: dir })
  const sandbox = await runtime.runSandbox(config, '')
  const id = await runtime.createContainer(sandbox, containerFor('c', image, 'f'), config)
  await runtime.startContainer(id)
  const result = await runtime.execSync(id, ['sh', '-c', 'echo $GREETING; echo bad >&2; exit 4'], 5)
  t.is(result.exitCode, 4)
  t.is(Buffer.from(result.stdout).toString(), 'grüße\n')
  t.is(Buffer.from(result.stderr).toString(), 'bad\n')
  await runtime.removeSandbox(sandbox)
})
