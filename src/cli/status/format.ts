import type { AgentStatus } from '#agent/status.ts'
import { type Fault, faultsOf } from './faults.ts'
import type { AgentAnswer, ClusterStatus } from './read.ts'

/** One screen: what runs, what each node's network does, what is wrong and what to do, what this kernel lacks. Pure. */
export function formatStatus(status: ClusterStatus): string {
  const faults = faultsOf(status)
  const sections = [
    [`cluster ${status.name}, API server at ${status.server}: ${verdict(faults)}`],
    status.processes.map(({ name, pid, log }) => row(name, pid === null ? `not running, see ${log}` : `pid ${pid}`)),
    status.nodes.flatMap((node) =>
      nodeLines(
        node,
        status.agents.find((a) => a.node === node.name),
      ),
    ),
    status.gateways.map(gatewayLine),
    faults.flatMap(({ where, what, remedy }) => [row(where, `FAULT ${what}`), row('', `->    ${remedy}`)]),
    kernelLines(status),
  ]
  return `${sections
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`
}

const verdict = (faults: readonly Fault[]): string =>
  faults.length === 0 ? 'everything works' : faults.length === 1 ? '1 fault' : `${faults.length} faults`

const row = (name: string, text: string): string => `  ${name.padEnd(20)} ${text}`

function nodeLines(node: ClusterStatus['nodes'][number], answer: AgentAnswer | undefined): string[] {
  const ready = node.ready ? 'Ready' : 'not Ready'
  const lines = [row(node.name, `${ready}   ${node.addresses.join(' ')}   pods ${node.podCidrs.join(' ')}`)]
  if (answer?.agent) lines.push(...agentLines(answer.agent).map((line) => row('', line)))
  return lines
}

/** Where a Gateway is reached from this machine. */
function gatewayLine({
  gateway,
  listeners,
  protocol,
  address,
  port,
  loopback,
}: ClusterStatus['gateways'][number]): string {
  const at = `${protocol.toLowerCase()}://127.0.0.1:${loopback}`
  return row(gateway, `${at}   to ${address} port ${port}${listeners.length === 0 ? '' : `, ${listeners.join(', ')}`}`)
}

/** What works, with the numbers that say how much of it. */
function agentLines({ endpoints, services, nodes, names, policies, gateways }: AgentStatus): string[] {
  const parts = [
    count(endpoints, 'pod'),
    services && `${count(services.services, 'Service')} (${count(services.backends, 'backend')})`,
    nodes && `routes to ${count(nodes.nodes, 'node')}`,
  ]
  const rules = [
    policies &&
      `${policies.policies === 1 ? '1 policy' : `${policies.policies} policies`}, ${policies.identities === 1 ? '1 identity' : `${policies.identities} identities`}`,
    gateways && `${count(gateways.listeners, 'gateway listener')}, ${count(gateways.routes, 'route')}`,
  ]
  const upstream =
    names === undefined || names.upstreams.length === 0 ? 'nobody asked beyond' : names.upstreams.join(' ')
  const named = names && [
    `${count(names.names, 'name')} at ${names.listening.join(' ') || 'no address'}, ${count(names.queries?.queries ?? 0, 'question')}, beyond the cluster: ${upstream}`,
  ]
  return [parts, rules, named ?? []].map((line) => line.filter(Boolean).join(', ')).filter((line) => line !== '')
}

const count = (n: number, word: string): string => `${n} ${word}${n === 1 ? '' : 's'}`

function kernelLines({ kernel }: ClusterStatus): string[] {
  const has = kernel.features.filter((f) => f.available).map((f) => f.name)
  const lacks = kernel.features.filter((f) => !f.available)
  return [
    row(`kernel ${kernel.release.split('-')[0]}`, `has ${has.join(', ')}`),
    ...lacks.map((f) => row('', `lacks ${f.name} (Linux ${f.since}): ${f.cost}`)),
  ]
}
