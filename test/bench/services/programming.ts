import { planServices } from '#agent/services/plan.ts'
import { reflectService } from '#agent/services/reflect.ts'
import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { KernelDatapath } from '#datapath/kernel.ts'
import { median, type Row } from '../row.ts'

const count = 10_000
const rounds = 9

const service = (i: number): KubeService =>
  ({
    metadata: { name: `s${i}`, namespace: 'bench' },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [`10.96.${16 + (i >> 8)}.${i & 255}`],
      ports: [{ port: 80, protocol: 'TCP', targetPort: 8080 }],
    },
    status: { loadBalancer: {} },
  }) as unknown as KubeService

/** Three endpoints that no other Service has. */
const slice = (i: number, salt = 0): EndpointSlice =>
  ({
    metadata: { name: `s${i}-a`, namespace: 'bench', labels: { 'kubernetes.io/service-name': `s${i}` } },
    addressType: 'IPv4',
    ports: [{ port: 8080, protocol: 'TCP' }],
    endpoints: [0, 1, 2].map((n) => {
      const number = i * 3 + n + salt * 40_000
      return {
        addresses: [`10.${250 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`],
        conditions: { ready: true },
        nodeName: 'node-1',
      }
    }),
  }) as unknown as EndpointSlice

/** From objects that are cached to what the kernel has: everything at once, and one Service that changed. */
export async function programmingRows(datapath: KernelDatapath): Promise<Row[]> {
  const objects = Array.from({ length: count }, (_, i) => [service(i), [slice(i)]] as const)
  const all: number[] = []
  const one: number[] = []
  for (let round = 0; round < rounds; round++) {
    // What a round gives back rests a second before it is used again.
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    const start = performance.now()
    const rows = objects.flatMap(([s, slices]) => reflectService(s, slices))
    const plan = planServices(datapath.services(), rows)
    datapath.changeServices(plan.upserts, plan.removals)
    all.push(performance.now() - start)
    const changes: number[] = []
    for (let i = 0; i < 20; i++) {
      const object = objects[i * 37]
      if (object === undefined) continue
      const begin = performance.now()
      const present = reflectService(object[0], object[1])
      const next = reflectService(object[0], [slice(i * 37, 1)])
      const { upserts, removals } = planServices(present, next)
      datapath.changeServices(upserts, removals)
      changes.push(performance.now() - begin)
    }
    one.push(median(changes))
    datapath.changeServices(
      [],
      rows.map((r) => r.frontend),
    )
  }
  process.stderr.write(`  10,000 Services of 3: ${all.map((ms) => ms.toFixed(0)).join(', ')} ms\n`)
  return [
    { name: '10,000 Services of 3 endpoints programmed, ms', ratio: median(all), goal: 60, atMost: true },
    { name: 'one Service changed, ms to the kernel', ratio: median(one), goal: 0.3, atMost: true },
  ]
}
