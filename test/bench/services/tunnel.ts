import { inPod, load, type Place, serve, Topology } from '../../packets/topology.ts'
import { addPair } from '../net.ts'
import { median, type Row } from '../row.ts'

/**
 * Pods of two nodes through VXLAN, beside a bare veth pair: one byte there and back. One core for all of it. And, for the curious,
 * without the tunnel by the uplink's queue, which is what packets in the tunnel go by.
 */
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
  const untunnelled = stack.use(
    await Topology.create({ label: 'queue', direct: 'programs', datapath: { cable: 'queue' } }),
  )
  const [near, other] = [await untunnelled.node(1).addPod(), await untunnelled.node(2).addPod()]
  stack.use(await serve({ ...inPod(other), cpu }, other.v4, port))
  const rate = (from: Place, address: string): Promise<number> => load({ ...from, cpu }, 'rr', address, port, runMs)
  const ratios: number[] = []
  const all: Record<'veth' | 'queue' | 'VXLAN', number[]> = { veth: [], queue: [], VXLAN: [] }
  for (let pass = 0; pass < passes; pass++) {
    const [bare, queued, wrapped]: [number[], number[], number[]] = [[], [], []]
    for (let round = 0; round < rounds; round++) {
      wrapped.push(await rate(inPod(client), far.v4))
      bare.push(await rate(pair.client, pair.address))
      queued.push(await rate(inPod(near), other.v4))
    }
    all.veth.push(median(bare))
    all.queue.push(median(queued))
    all.VXLAN.push(median(wrapped))
    ratios.push(median(wrapped) / median(bare))
  }
  process.stderr.write(`  VXLAN TCP_RR of a veth pair: ${ratios.map((r) => r.toFixed(2)).join(', ')}\n`)
  const times = Object.entries(all).map(([name, rates]) => `${name} ${(5e5 / median(rates)).toFixed(2)}`)
  process.stderr.write(`  µs of a packet, both its ends included: ${times.join(', ')}\n`)
  return [{ name: 'VXLAN, TCP_RR of a veth pair', ratio: median(ratios), goal: 0.68 }]
}
