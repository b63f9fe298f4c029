import { Topology } from '../../packets/topology.ts'
import { programmingRows } from './programming.ts'

await using topology = await Topology.create({ label: 'prog', direct: 'programs' })
console.log(await programmingRows(topology.node(1).datapath))
