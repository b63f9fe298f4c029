import type { AgentStatus } from '#agent/status.ts'
import type { ClusterStatus } from './read.ts'

/** Something that is not as it should be, and what to do about it. */
export interface Fault {
  /** `server`, `node-1`, `node-1/names`. */
  readonly where: string
  readonly what: string
  readonly remedy: string
}

/** In the order in which they are best mended. Pure. */
export function faultsOf(status: ClusterStatus): Fault[] {
  const faults: Fault[] = []
  const add = (where: string, what: string, remedy: string): void => {
    faults.push({ where, what, remedy })
  }
  for (const { name, pid, log } of status.processes)
    if (pid === null) add(name, 'does not run', `tail ${log} says why; weft up --name ${status.name} starts it again`)
  if (status.error !== null)
    add('server', `the API server did not answer: ${status.error}`, 'what runs goes on, nothing changes; see its log')
  for (const { name, ready, message } of status.nodes)
    if (!ready) add(name, `not Ready: ${message}`, `weft doctor --name ${status.name} looks for the reason`)
  for (const { node, agent, error } of status.agents) {
    if (agent === null) {
      // That it does not run has been said.
      if (status.processes.some((p) => p.name === `${node}/agent` && p.pid === null)) continue
      add(node, `its agent did not answer: ${error}`, 'packets go on as before; see its log')
    } else for (const fault of agentFaults(agent)) add(`${node}/${fault.where}`, fault.what, fault.remedy)
  }
  return faults
}

const remedies: Readonly<Record<string, string>> = {
  services: 'Services stay as they were last; a full map needs fewer Services or a larger map (weft doctor shows both)',
  nodes: 'routes stay as they were last; look at the device to the other nodes and at the nodes’ addresses',
  names: 'something else may listen on port 53 there (ss -lunp in its namespace); it is tried again every 10 s',
  policies: 'policies stay as they were last, and new pods that need a changed one wait',
  health: 'look at the network between the nodes: weft doctor tries each address',
  uplink:
    'pods go out under what the uplink has now; give the machine that address again, or start its agent with the new --node-ip',
  hooks:
    'bpftool net, in the namespace of the node, shows what else is attached; have its owner attach after ours (BPF_F_AFTER)',
  gateways: 'listeners and routes stay as they were last; see the log of the agent',
}

/** What an agent says of itself. Pure. */
export function agentFaults(agent: AgentStatus): Fault[] {
  const faults: Fault[] = []
  if (agent.state !== 'ready')
    faults.push({
      where: 'network',
      what: `is ${agent.state}: no new pod gets a network`,
      remedy: 'see the log of the agent',
    })
  for (const [where, trouble] of Object.entries(troublesOf(agent)))
    if (trouble !== '') faults.push({ where, what: trouble, remedy: remedies[where] ?? 'see the log of the agent' })
  const { names } = agent
  if (agent.state === 'ready' && names !== undefined && names.listening.length === 0 && names.trouble === '')
    faults.push({ where: 'names', what: 'no name is answered', remedy: remedies.names ?? '' })
  return faults
}

/** By loop. Whatever part has a status with a trouble in it counts, also those that are yet to come. */
function troublesOf(agent: AgentStatus): Record<string, string> {
  return Object.fromEntries(
    Object.entries(agent).flatMap(([loop, part]: [string, unknown]) =>
      part !== null && typeof part === 'object' && 'trouble' in part && typeof part.trouble === 'string'
        ? [[loop, part.trouble]]
        : [],
    ),
  )
}
