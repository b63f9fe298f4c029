import { firstAddress } from '../addresses.ts'
import { layoutCluster } from '../cluster/layout.ts'
import { logFile, nodeCountOf, pidFile } from '../cluster/observe.ts'
import { serverProcess } from '../cluster/plan.ts'
import { findProcess } from '../cluster/processes.ts'
import { type Check, fault, ok } from './check.ts'
import { checkMachine, readDoctorFacts } from './machine.ts'
import { checkNode, readNode } from './node.ts'

/** The machine, and where a cluster of that name is on it, the server and each node. */
export async function examine(name: string): Promise<Check[]> {
  const nodes = nodeCountOf(name)
  const layout = layoutCluster(name, Math.max(1, nodes))
  const checks = checkMachine(await readDoctorFacts(layout.stateDir, nodes > 0))
  if (nodes === 0 || process.getuid?.() !== 0) return checks
  const server = findProcess(serverProcess, pidFile(layout, serverProcess))
  checks.push(
    server === undefined
      ? fault('server', 'server', 'does not run', `tail ${logFile(layout, serverProcess)}; weft up starts it again`)
      : ok('server', 'server', `pid ${server.pid}`),
  )
  const apiAddress = firstAddress(layout.serviceCidrs[0] ?? '')
  // One after the other: maps are counted by process.
  for (const node of layout.nodes) checks.push(...checkNode(await readNode(layout, node, apiAddress)))
  return checks
}
