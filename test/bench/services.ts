import { Topology } from '../packets/topology.ts'
import type { Row } from './row.ts'
import { clusterIpRows } from './services/cluster-ip.ts'
import { nodePortRows } from './services/node-port.ts'
import { programmingRows } from './services/programming.ts'

/** Services: what they cost a connection, node ports packet by packet, and how fast the kernel has them. */
export async function run(): Promise<Row[]> {
  const connections = await clusterIpRows()
  const packets = await nodePortRows()
  await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
  return [...connections, ...packets, ...(await programmingRows(topology.node(1).datapath))]
}
