import { Topology } from '../packets/topology.ts'
import type { Row } from './row.ts'
import { clusterIpRows } from './services/cluster-ip.ts'
import { nodePortRows } from './services/node-port.ts'
import { programmingRows } from './services/programming.ts'
import { readinessRows } from './services/readiness.ts'
import { tunnelRows } from './services/tunnel.ts'

/** Services: what they cost a connection, node ports packet by packet, and how fast kernels have them; and the tunnel. */
export async function run(): Promise<Row[]> {
  const connections = await clusterIpRows()
  const packets = await nodePortRows()
  await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
  const programming = await programmingRows(topology.node(1).datapath)
  return [...connections, ...packets, ...programming, ...(await readinessRows()), ...(await tunnelRows())]
}
