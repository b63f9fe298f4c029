import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Flows } from '#agent/flows/flows.ts'
import { NameIndex } from '#agent/flows/names.ts'
import { firstFrame } from '#agent/why/packet.ts'
import { Scope } from '#base/async/scope.ts'
import { systemClock } from '#base/clock.ts'
import { EventRing } from '#datapath/events/ring.ts'
import { Program } from '#kernel/bpf/program.ts'
import { inPod, load, type Place, serve, Topology } from '../packets/topology.ts'
import { fast, median, type Row } from './row.ts'

/**
 * Records a second, taken by the agent's own loop while the programs write them: what that costs of a core, and whether any is
 * lost. A program that drops a spoofed packet writes one record a run, so that the rate is what we say and not what
 * connections the machine can make.
 */
const rate = 50_000
const stepMs = 10
const seconds = 3
const passes = 3
/** struct __sk_buff; the device's number is at 40. */
const contextSize = 192
const share = 0.15

/** New connections a second with records on, against programs that tell nobody: runs take turns, as in net.ts. */
const runMs = 120
const rounds = 13
const port = 9000
const cpu = 0
const kept = 0.97

export async function run(): Promise<Row[]> {
  return [...(await agentsShare()), ...(await connections())]
}

async function agentsShare(): Promise<Row[]> {
  await using topology = await Topology.create({ label: 'bench-flows', direct: 'programs' })
  const node = topology.node(1)
  const pod = await node.addPod()
  const dir = join(node.pinDir, 'programs')
  const version = readdirSync(dir).find((entry) => entry.startsWith('from_container-')) ?? ''
  using program = Program.openPin(join(dir, version, 'from_container'))
  if (program === undefined) throw new Error('from_container is not pinned')
  const frame = firstFrame({ source: '203.0.113.9', destination: pod.v4, port: 80, protocol: 'TCP' })
  const context = Buffer.alloc(contextSize)
  context.writeUInt32LE(pod.endpoint.ifindex, 40)
  using ring = EventRing.open(node.pinDir)
  const lostBefore = ring.lost()

  const busy: number[] = []
  let read = 0
  for (let pass = 0; pass < passes; pass++) {
    const names = new NameIndex({ rule: () => undefined, set: () => [] })
    const flows = new Flows({ source: ring, names, nodeName: 'node-1', clock: systemClock })
    let spent = 0
    const begin = performance.now()
    for (let step = 1; step <= (seconds * 1000) / stepMs; step++) {
      node.namespace.within(() => program.testRun(frame, { context, repeat: (rate * stepMs) / 1000 }))
      const before = process.cpuUsage()
      flows.drain()
      const { user, system } = process.cpuUsage(before)
      spent += user + system
      await sleep(Math.max(0, begin + step * stepMs - performance.now()))
    }
    read += flows.status().read
    busy.push(spent / 1e3 / (performance.now() - begin))
  }
  const lost = ring.lost() - lostBefore
  process.stderr.write(
    `  ${read} of ${rate * seconds * passes} records taken, ${lost} lost; ${(median(busy) * 100).toFixed(1)} % of a core\n`,
  )
  return [
    {
      name: `${rate} records a second: ${share * 100} % of a core to what it takes`,
      ratio: share / median(busy),
      goal: 1,
    },
    { name: 'records taken of those written', ratio: read / (read + lost), goal: 1 },
  ]
}

/** A client and a server on one core of one node or of two, and every node's agent taking its records meanwhile. */
async function connections(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack()
  const scope = stack.use(new Scope())
  const cases: { readonly name: string; readonly from: Place; readonly address: string }[] = []
  const readers: { readonly flows: Flows; readonly records: boolean }[] = []
  for (const records of [true, false]) {
    const label = records ? 'bench-told' : 'bench-untold'
    const topology = stack.use(await Topology.create({ label, direct: 'programs', datapath: { records } }))
    const client = await topology.node(1).addPod()
    for (const [where, index] of [
      ['same node', 1],
      ['cross node', 2],
    ] as const) {
      const server = await topology.node(index).addPod()
      stack.use(await serve({ ...inPod(server), cpu }, server.v4, port))
      cases.push({ name: `${where} ${records}`, from: { ...inPod(client), cpu }, address: server.v4 })
      const ring = stack.use(EventRing.open(topology.node(index).pinDir))
      const names = new NameIndex({ rule: () => undefined, set: () => [] })
      const flows = new Flows({ source: ring, names, nodeName: `node-${index}`, clock: systemClock })
      scope.start((signal) => flows.run(signal))
      readers.push({ flows, records })
    }
  }
  const ratios = new Map<string, number[]>()
  for (let pass = 0; pass < passes; pass++) {
    const rates = new Map(cases.map(({ name }) => [name, [] as number[]]))
    for (let round = 0; round < rounds; round++)
      for (const { name, from, address } of cases) rates.get(name)?.push(await load(from, 'crr', address, port, runMs))
    for (const where of ['same node', 'cross node']) {
      const [told, untold] = [true, false].map((records) => fast(rates.get(`${where} ${records}`) ?? []))
      if (told === undefined || untold === undefined) throw new RangeError('nothing was measured')
      process.stderr.write(
        `  pass ${pass + 1} ${where}: ${told.toFixed(0)} connections a second with records, ${untold.toFixed(0)} without\n`,
      )
      ratios.set(where, [...(ratios.get(where) ?? []), told / untold])
    }
  }
  for (const { flows, records } of readers) {
    const { read, lost } = flows.status()
    if (read > 0 !== records || lost > 0)
      throw new Error(`${read} records were read and ${lost} lost, with records ${records ? 'on' : 'off'}`)
  }
  scope.stop()
  await scope.done()
  return [...ratios].map(([where, values]) => ({
    name: `${where}, TCP_CRR with records to without`,
    ratio: median(values),
    goal: kept,
  }))
}
