import { inPod, load, type Place, serve, Topology } from '../../packets/topology.ts'
import { addPair } from '../net.ts'
import { median, type Row } from '../row.ts'

/** Pods of two nodes through VXLAN, beside a bare veth pair: one byte there and back. One core for all of it. */
const runMs = 700
const rounds = 7
const passes = 3
const port = 9000
const cpu = 0

export async function tunnelRows(): Promise<Row[]> {
  await using stack = new AsyncDisposableStack()
  const pair = await addPair(stack)
  stack.use(await serve({ ...pair.server, cpu }, pair.address, port))
  const topology = stack.use(await Topology.create({ label: 'vxlan', direct: 'programs', tunnel: 'vxlan' }))
  const [client, far] = [await topology.node(1).addPod(), await topology.node(2).addPod()]
  stack.use(await serve({ ...inPod(far), cpu }, far.v4, port))
  for (const [own, other] of [
    [client, far],
    [far, client],
  ] as const) {
    const tunnel = other.node.addresses[0] ?? ''
    const elsewhere = { identity: 300, owner: other.name, node: 1, tunnel }
    own.node.datapath.upsertIdentities([
      ...own.node.addresses.map((address) => ({ address, identity: 1, owner: 'self' })),
      ...other.node.addresses.map((address) => ({ ...elsewhere, address, identity: 3, owner: 'other' })),
      { ...elsewhere, address: other.v4 },
    ])
    await own.node.datapath.upsertEndpoint({ ...own.endpoint, identity: 300 })
  }
  const rate = (from: Place, address: string): Promise<number> => load({ ...from, cpu }, 'rr', address, port, runMs)
  const { readdirSync, writeFileSync } = await import('node:fs')
  const { Program } = await import('#kernel/bpf/program.ts')
  writeFileSync('/proc/sys/kernel/bpf_stats_enabled', '1')
  const read = () => topology.nodes.flatMap((n) => readdirSync(`${n.pinDir}/programs`).flatMap((v) => readdirSync(`${n.pinDir}/programs/${v}`).map((p) => { using g = Program.openPin(`${n.pinDir}/programs/${v}/${p}`); const i = g!.info; return { name: `node${n.index} ${p}`, runs: Number(i.runs), ns: Number(i.runNanoseconds) } })))
  for (let k = 0; k < 3; k++) {
    const before = read()
    const r = await rate(inPod(client), far.v4)
    const b = await rate(pair.client, pair.address)
    const after = read()
    console.log('rr', r.toFixed(0), (1e9 / r).toFixed(0), 'ns; veth', b.toFixed(0), (1e9 / b).toFixed(0), 'ns')
    if (k === 2) after.forEach((x, i) => { const runs = x.runs - before[i]!.runs; if (runs > 100) console.log(x.name, runs, ((x.ns - before[i]!.ns) / runs).toFixed(0), 'ns') })
  }
  writeFileSync('/proc/sys/kernel/bpf_stats_enabled', '0')
  return []
}
