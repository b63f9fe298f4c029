import { inPod, load, type Place, serve, Topology } from '../../packets/topology.ts'
import { addPair } from '../net.ts'
import { median, type Row } from '../row.ts'

/** Pods of two nodes through VXLAN, beside a bare veth pair: one byte there and back. One core for all of it. */
const runMs = 100
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
  const ratios: number[] = []
  for (let pass = 0; pass < passes; pass++) {
    const [wrapped, bare]: [number[], number[]] = [[], []]
    for (let round = 0; round < rounds; round++) {
      wrapped.push(await rate(inPod(client), far.v4))
      bare.push(await rate(pair.client, pair.address))
    }
    ratios.push(median(wrapped) / median(bare))
  }
  process.stderr.write(`  VXLAN TCP_RR of a veth pair: ${ratios.map((r) => r.toFixed(2)).join(', ')}\n`)
  return [{ name: 'VXLAN, TCP_RR of a veth pair', ratio: median(ratios), goal: 0.68 }]
}
