import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { planServices } from '#agent/services/plan.ts'
import { reflectService } from '#agent/services/reflect.ts'
import { BpfMap } from '#kernel/bpf/map.ts'
import { Topology } from '../../packets/topology.ts'
import { service, slice } from './programming.ts'

await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
const { datapath } = topology.node(1)
let kernel: string[] = []
let ksum = 0
const old = BpfMap.prototype.updateBatch
BpfMap.prototype.updateBatch = function (k, v, c) {
  const s = performance.now()
  old.call(this, k, v, c)
  const t = performance.now() - s
  ksum += t
  kernel.push(`${this.name} ${c} ${t.toFixed(1)}`)
}
const session = process.env.PROF ? new Session() : undefined
if (session) {
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: 100 })
  await session.post('Profiler.start')
}
const objects = Array.from({ length: 10000 }, (_, i) => [service(i), [slice(i)]] as const)
for (let round = 0; round < 9; round++) {
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  kernel = []
  ksum = 0
  const t0 = performance.now()
  const rows = objects.flatMap(([s, slices]) => reflectService(s, slices))
  const t1 = performance.now()
  const plan = planServices(datapath.services(), rows)
  const t2 = performance.now()
  datapath.changeServices(plan.upserts, plan.removals)
  const t3 = performance.now()
  console.log(
    `all ${(t3 - t0).toFixed(1)} reflect ${(t1 - t0).toFixed(1)} plan ${(t2 - t1).toFixed(1)} write ${(t3 - t2).toFixed(1)} of which js ${(t3 - t2 - ksum).toFixed(1)} kernel ${ksum.toFixed(1)}: ${kernel.join(', ')}`,
  )
  datapath.changeServices(
    [],
    rows.map((r) => r.frontend),
  )
}
if (session)
  writeFileSync('/tmp/weft/svcperf/prof/x.cpuprofile', JSON.stringify((await session.post('Profiler.stop')).profile))
