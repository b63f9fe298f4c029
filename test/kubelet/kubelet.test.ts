import { join } from 'node:path'
import test from 'ava'
import type { Pod } from '#api/gen/core-v1.ts'
import { namespaces, pods } from '#api/gen/resources.ts'
import { systemClock } from '#base/clock.ts'
import { createLog } from '#base/log/log.ts'
import { eventually } from '#client/eventually.ts'
import { FakeClient } from '#client/fake.ts'
import { createKubelet } from '#kubelet/kubelet.ts'
import { startContainerd, type TestContainerd } from './containerd.ts'

let containerd: TestContainerd
test.before(async () => {
  containerd = await startContainerd()
})
test.after.always(async () => {
  await containerd?.[Symbol.asyncDispose]()
})

const busybox = (name: string, script: string) => ({
  name,
  image: 'weft.local/busybox:1',
  imagePullPolicy: 'IfNotPresent' as const,
  command: ['sh', '-c', script],
  resources: {},
})

test.serial('a pod goes from Pending to Running, and is gone after its deletion', async (t) => {
  const client = new FakeClient({ clock: systemClock })
  const stop = new AbortController()
  const kubelet = createKubelet({
    nodeName: 'node-1',
    addresses: ['127.0.0.1'],
    client,
    dataDir: join(containerd.dir, 'kubelet'),
    runtime: { socket: containerd.socket },
    cgroup: containerd.cgroup,
    log: createLog('kubelet', process.env.DEBUG ? 'debug' : 'warn'),
  })
  const running = kubelet.run(stop.signal)
  try {
    await client.create(namespaces, { metadata: { name: 'default' } })
    const key = { namespace: 'default', name: 'web' }
    const began = performance.now()
    await client.create<Pod>(pods, {
      metadata: key,
      spec: {
        nodeName: 'node-1',
        hostNetwork: true,
        terminationGracePeriodSeconds: 2,
        containers: [busybox('web', 'echo hello; exec sleep 1000')],
      },
    } as never)
    const pod = await eventually(
      async () => {
        const found = await client.get(pods, key)
        return found.status.phase === 'Running' ? found : false
      },
      { withinMs: 10_000 },
    )
    t.log(`create to Running: ${Math.round(performance.now() - began)} ms`)
    t.is(pod.status.containerStatuses?.[0]?.ready, true)
    t.log(JSON.stringify(pod.status, null, 1))
    await client.delete(pods, key, { gracePeriodSeconds: 2 })
    await eventually(async () => (await client.list(pods)).items.length === 0, { withinMs: 10_000 })
    t.deepEqual(await containerd.runtime.listSandboxes(), [])
    t.deepEqual(await containerd.runtime.listContainers(), [])
  } finally {
    stop.abort()
    await running
  }
})
