import { Topology } from '../packets/topology.ts'
import type { Row } from './row.ts'
import { clusterIpRows } from './services/cluster-ip.ts'
import { nodePortRows } from './services/node-port.ts'
import { programmingRows } from './services/programming.ts'
import { readinessRows } from './services/readiness.ts'
import { tunnelRows } from './services/tunnel.ts'

const programming = async (): Promise<Row[]> => {
  await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
  return await programmingRows(topology.node(1).datapath)
}

const parts: Record<string, () => Promise<Row[]>> = {
  'cluster-ip': clusterIpRows,
  'node-port': nodePortRows,
  programming,
  readiness: readinessRows,
  tunnel: tunnelRows,
}

/** Services: what they cost a connection, node ports packet by packet, and how fast kernels have them; and the tunnel. */
export async function run(part?: string): Promise<Row[]> {
  const wanted = part === undefined ? Object.values(parts) : [parts[part]]
  const rows: Row[] = []
  for (const measure of wanted) {
    if (measure === undefined)
      throw new RangeError(`no part ${JSON.stringify(part)}: use ${Object.keys(parts).join(', ')}`)
    rows.push(...(await measure()))
  }
  return rows
}
