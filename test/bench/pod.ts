import { execFileSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { pods } from '#api/gen/resources.ts'
import { layoutCluster } from '#cli/cluster/layout.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import { median, type Row } from './row.ts'

const main = join(resolve(import.meta.dirname, '../..'), 'src/cli/main.ts')
const weft = (...args: string[]): string =>
  execFileSync(process.execPath, [main, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
const name = 't-bench'
const passes = 3
const podsPerPass = 15
/** What containerd and runc take by themselves: sandbox, create and start, one after the other (measured, p50). */
const runtimeMs = 90

/** From the create request to the watch event that says Running, one pod after the other; p50 of each pass. */
export async function run(): Promise<Row[]> {
  const layout = layoutCluster(name, 2)
  weft('up', '--name', name, '--nodes', '2')
  try {
    using client = await adminClient(layout)
    const medians: number[] = []
    for (let pass = 0; pass < passes; pass++) {
      const times: number[] = []
      for (let i = 0; i < podsPerPass; i++) times.push(await startOne(client, `bench-${pass}-${i}`))
      medians.push(median(times))
    }
    return [
      {
        name: 'pod create to Running beyond the runtime, p50, share of 60 ms',
        ratio: (median(medians) - runtimeMs) / 60,
        goal: 1,
        atMost: true,
      },
    ]
  } finally {
    weft('down', '--name', name)
  }
}

async function startOne(client: Awaited<ReturnType<typeof adminClient>>, podName: string): Promise<number> {
  const abort = new AbortController()
  const events = client.watch(pods, {
    namespace: 'default',
    fieldSelector: `metadata.name=${podName}`,
    sendInitialEvents: true,
    signal: abort.signal,
  })
  const iterator = events[Symbol.asyncIterator]()
  // The bookmark that ends the initial events: from here on every change is seen.
  await iterator.next()
  const start = performance.now()
  await client.create(pods, {
    metadata: { name: podName, namespace: 'default' },
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: 'echo', image: 'weft.local/echo:1' }] },
  })
  try {
    for (;;) {
      const { value, done } = await iterator.next()
      if (done) throw new Error(`the watch of ${podName} ended before it was Running`)
      if (value.type !== 'BOOKMARK' && value.object.status.phase === 'Running') return performance.now() - start
    }
  } finally {
    abort.abort()
    await client.delete(pods, { namespace: 'default', name: podName }, { gracePeriodSeconds: 0 })
  }
}
