import { mkdirSync } from 'node:fs'
import { pods } from '#api/gen/resources.ts'
import type { ClusterLayout } from '#cli/cluster/layout.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import type { HttpClient } from '#client/http.ts'
import { containerFor, sandboxFor } from '#kubelet/runtime/conformance.ts'
import { createCriRuntime } from '#kubelet/runtime/cri.ts'
import type { Runtime } from '#kubelet/runtime/runtime.ts'
import { withCluster } from './cluster.ts'
import { cut } from './cut.ts'
import { median, type Row } from './row.ts'

const passes = 3
const podsPerPass = 15
const beyondGoalMs = 60

/**
 * From the create request to the watch event that says Running, beyond what the runtime takes by itself for a sandbox, a
 * container and its start. The two take turns on one node, one at a time, so a slow phase of the machine hits both; the
 * difference of their medians is judged.
 */
export function run(): Promise<Row[]> {
  return withCluster(1, async ({ layout }) => {
    using client = await adminClient(layout)
    using runtime = createCriRuntime({ socket: layout.nodes[0]?.criSocket ?? '' })
    const beyond: number[] = []
    for (let pass = 0; pass < passes; pass++) {
      const [ours, alone]: [number[], number[]] = [[], []]
      for (let i = 0; i < podsPerPass; i++) {
        cut.throwIfAborted()
        alone.push(await runtimeAlone(runtime, layout, `${pass}-${i}`))
        ours.push(await podStart(client, `bench-${pass}-${i}`))
      }
      beyond.push(median(ours) - median(alone))
    }
    const ratio = median(beyond) / beyondGoalMs
    return [
      { name: `pod create to Running beyond the runtime, share of ${beyondGoalMs} ms`, ratio, goal: 1, atMost: true },
    ]
  })
}

/** RunPodSandbox, CreateContainer and StartContainer, without labels of the kubelet's: it leaves this sandbox alone. */
async function runtimeAlone(runtime: Runtime, layout: ClusterLayout, id: string): Promise<number> {
  const logDir = `${layout.runDir}/bench-logs`
  mkdirSync(logDir, { recursive: true })
  const uid = `runtime-alone-${id}`
  const sandbox = { ...sandboxFor(uid, { cgroup: `/${layout.nodes[0]?.cgroup}/bench`, logDir }), labels: {} }
  const container = { ...containerFor('echo', 'weft.local/echo:1', uid), command: [], labels: {} }
  const start = performance.now()
  const sandboxId = await runtime.runSandbox(sandbox, '')
  const containerId = await runtime.createContainer(sandboxId, container, sandbox)
  await runtime.startContainer(containerId)
  const took = performance.now() - start
  await runtime.stopSandbox(sandboxId)
  await runtime.removeSandbox(sandboxId)
  return took
}

/** Resolves when the pod has gone again, so that its end does not run beside the next one's start. */
async function podStart(client: HttpClient, podName: string): Promise<number> {
  const abort = new AbortController()
  const events = client
    .watch(pods, {
      namespace: 'default',
      fieldSelector: `metadata.name=${podName}`,
      sendInitialEvents: true,
      signal: abort.signal,
    })
    [Symbol.asyncIterator]()
  // The bookmark that ends the initial events: from here on every change is seen.
  await events.next()
  const start = performance.now()
  await client.create(pods, {
    metadata: { name: podName, namespace: 'default' },
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'echo', image: 'weft.local/echo:1' }] },
  })
  let took: number | undefined
  for (;;) {
    const { value, done } = await events.next()
    if (done) throw new Error(`the watch of ${podName} ended before the pod did`)
    if (value.type === 'BOOKMARK') continue
    if (took === undefined && value.object.status.phase === 'Running') {
      took = performance.now() - start
      await client.delete(pods, { namespace: 'default', name: podName }, { gracePeriodSeconds: 1 })
    }
    if (value.type === 'DELETED') {
      abort.abort()
      if (took === undefined) throw new Error(`${podName} was deleted before it ran`)
      return took
    }
  }
}
