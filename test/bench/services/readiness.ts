import { setImmediate } from 'node:timers/promises'
import type { Node, Pod, Service } from '#api/gen/core-v1.ts'
import { nodes, pods, services } from '#api/gen/resources.ts'
import { adminClient } from '#cli/cluster/ready.ts'
import type { Draft } from '#client/client.ts'
import type { HttpClient } from '#client/http.ts'
import { openMap } from '#datapath/load.ts'
import { encodePeer } from '#datapath/maps/peer.ts'
import { frontendsMap } from '#datapath/maps/services.ts'
import type { BpfMap } from '#kernel/bpf/map.ts'
import { withCluster } from '../cluster.ts'
import type { Row } from '../row.ts'

const changes = 200
const everyNodeMs = 20
const deadlineMs = 5_000
const pauseMs = 10
const nobodys = 'nobodys'
const podCIDR = '10.244.250.0/24'
/** Offset of `count` in struct frontend of bpf/maps/services.h. */
const countAt = 12

/**
 * A pod's word that it is ready, or is not any more, as its kubelet gives it to the API server (a PATCH of its status), until the
 * maps of both nodes of a cluster have one backend more, or less: pod, EndpointSlice, agents, kernel. The pods are of a third node
 * that nobody runs, so that this bench alone speaks for them.
 */
export function readinessRows(): Promise<Row[]> {
  return withCluster(2, async ({ layout }) => {
    using client = await adminClient(layout)
    using maps = new DisposableStack()
    const frontends = layout.nodes.map(({ bpffs }) => maps.use(openMap(bpffs, frontendsMap)))
    const key = await makeService(client)
    const until = async (count: number): Promise<number> => {
      const end = performance.now() + deadlineMs
      while (!frontends.every((map) => backendsOf(map, key) === count)) {
        if (performance.now() > end) throw new Error(`the maps have not come to ${count} backends of the Service`)
        await moment()
      }
      return performance.now()
    }
    await until(3)
    const took: number[] = []
    for (let i = 0; i < changes; i++) {
      const isReady = i % 2 === 1
      await new Promise((done) => setTimeout(done, pauseMs))
      const start = performance.now()
      const [end] = await Promise.all([until(isReady ? 3 : 2), say(client, 'ready-2', isReady)])
      took.push(end - start)
    }
    const sorted = took.toSorted((a, b) => a - b)
    const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
    const p99 = at(0.99)
    const words = [0.5, 0.9, 0.95, 0.99, 1].map((share) => `p${share * 100} ${at(share).toFixed(1)}`).join(', ')
    process.stderr.write(`  a readiness change to both nodes' maps: ${words} ms\n`)
    const row = `a pod's readiness through the API to the kernels of both nodes, p99 of ${everyNodeMs} ms`
    return [{ name: row, ratio: p99 / everyNodeMs, goal: 1, atMost: true }]
  })
}

/** Well below a millisecond, and without taking a processor from those who do the work. */
async function moment(): Promise<void> {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0.2)
  await setImmediate()
}

const backendsOf = (map: BpfMap, key: Buffer): number | undefined => map.lookup(key)?.readUInt32LE(countAt)

/** A Service of three pods; its key in the map. */
async function makeService(client: HttpClient): Promise<Buffer> {
  const key = { namespace: 'default', name: 'ready' }
  const made = await client.create<Service>(services, {
    metadata: key,
    spec: { selector: { app: 'ready' }, ports: [{ port: 80, protocol: 'TCP', targetPort: 8080 }] },
  } as Draft<Service>)
  await client.create<Node>(nodes, {
    metadata: { name: nobodys },
    spec: { podCIDR, podCIDRs: [podCIDR] },
  } as Draft<Node>)
  // Or its pods would be said to be unready for it.
  const alive = { status: { conditions: [{ type: 'Ready', status: 'True', reason: 'Bench', message: '' }] } }
  await client.patch<Node>(nodes, { name: nobodys }, 'strategic', alive, { subresource: 'status' })
  for (let i = 0; i < 3; i++) {
    const pod = `ready-${i}`
    await client.create<Pod>(pods, {
      metadata: { namespace: 'default', name: pod, labels: { app: 'ready' } },
      spec: { nodeName: nobodys, containers: [{ name: 'echo', image: 'weft.local/echo:1' }] },
    } as Draft<Pod>)
    await say(client, pod, true, {
      phase: 'Running',
      podIP: `10.244.250.${i + 2}`,
      podIPs: [{ ip: `10.244.250.${i + 2}` }],
    })
  }
  return encodePeer({ address: made.spec.clusterIP ?? '', port: 80, protocol: 'TCP' })
}

async function say(client: HttpClient, pod: string, isReady: boolean, more: object = {}): Promise<void> {
  const conditions = [{ type: 'Ready', status: isReady ? 'True' : 'False' }]
  const key = { namespace: 'default', name: pod }
  await client.patch<Pod>(pods, key, 'strategic', { status: { ...more, conditions } }, { subresource: 'status' })
}
