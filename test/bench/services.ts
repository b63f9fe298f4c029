import { Topology } from '../packets/topology.ts'
import type { Row } from './row.ts'
import { programmingRows } from './services/programming.ts'

/** Services: how fast the kernel has them, what they cost a connection, and node ports packet by packet. */
export async function run(): Promise<Row[]> {
  await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
  return programmingRows(topology.node(1).datapath)
}
