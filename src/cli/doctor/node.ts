import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { resolverAddresses } from '#agent/dns/address.ts'
import type { AgentStatus } from '#agent/status.ts'
import { programs } from '#datapath/object.ts'
import { BpfMap, type MapUse, mapUse } from '#kernel/bpf/map.ts'
import { Link, openPin } from '#kernel/bpf/program.ts'
import { findCgroups } from '#kernel/cgroup.ts'
import { addressOf, type ClusterLayout, type NodeLayout } from '../cluster/layout.ts'
import { logFile, pidFile } from '../cluster/observe.ts'
import { agentProcess, containerdProcess } from '../cluster/plan.ts'
import { findProcess } from '../cluster/processes.ts'
import { agentFaults } from '../status/faults.ts'
import { askAgent } from '../status/read.ts'
import { type Check, fault, ok, warning } from './check.ts'
import type { Tried, Try } from './inside.ts'

/** What of a node that runs says whether it works, read by `readNode()`. */
export interface NodeFacts {
  readonly name: string
  /** Processes that should run, with the log of each. */
  readonly processes: readonly { readonly name: string; readonly pid: number | undefined; readonly log: string }[]
  readonly agent: AgentStatus | null
  readonly agentError: string
  /** Pinned links by name; `attached` false: its device or cgroup has gone. */
  readonly links: readonly { readonly name: string; readonly attached: boolean }[]
  readonly maps: readonly MapUse[]
  readonly tried: readonly { readonly try: Try; readonly result: Tried }[]
  /** The API's own address among the Services. */
  readonly apiAddress: string
}

const run = promisify(execFile)
const kubeletPort = 10_250
const apiName = 'kubernetes.default.svc.cluster.local'
const pressureHigh = 0.9

/** Reads and tries; changes nothing. */
export async function readNode(layout: ClusterLayout, node: NodeLayout, apiAddress: string): Promise<NodeFacts> {
  const { agent, error } = await askAgent(node)
  const tries: Try[] = [
    ...resolverAddresses.flatMap((server) =>
      (['udp', 'tcp'] as const).map((transport): Try => ({ what: 'name', server, name: apiName, transport })),
    ),
    { what: 'connect', address: addressOf(layout.fabric.addresses[0] ?? ''), port: layout.server.port },
    { what: 'connect', address: apiAddress, port: 443 },
    ...layout.nodes
      .filter((other) => other !== node)
      .flatMap((other) =>
        other.addresses.map((cidr): Try => ({ what: 'connect', address: addressOf(cidr), port: kubeletPort })),
      ),
  ]
  const results = await tryInside(node, tries)
  return {
    name: node.name,
    processes: [containerdProcess(node), agentProcess(node)].map((name) => ({
      name,
      pid: findProcess(name, pidFile(layout, name))?.pid,
      log: logFile(layout, name),
    })),
    agent,
    agentError: error,
    links: readLinks(join(node.bpffs, 'links')),
    maps: await readMaps(join(node.bpffs, 'maps')),
    tried: tries.flatMap((one, i) => {
      const result = results[i]
      return result === undefined ? [] : [{ try: one, result }]
    }),
    apiAddress,
  }
}

/** As a process of the node: in its namespace, and in its cgroup, where the socket hooks are. */
async function tryInside(node: NodeLayout, tries: readonly Try[]): Promise<readonly Tried[]> {
  const script = 'echo $$ > "$0/cgroup.procs" && ns=$1 && shift && exec nsenter "--net=/run/netns/$ns" -- "$@"'
  const cgroup = join(findCgroups().unified, node.cgroup, 'system')
  const program = [process.execPath, resolve(import.meta.dirname, 'inside.ts')]
  const inside = run('/bin/sh', ['-c', script, cgroup, node.netns, ...program], { timeout: 20_000 })
  inside.child.stdin?.end(JSON.stringify(tries))
  try {
    return JSON.parse((await inside).stdout) as Tried[]
  } catch (error) {
    const words = error instanceof Error ? error.message : String(error)
    return tries.map(() => ({ ms: 0, error: `cannot be tried: ${words}`, answers: [] }))
  }
}

function readLinks(dir: string): NodeFacts['links'] {
  return (existsSync(dir) ? readdirSync(dir) : []).flatMap((name) => {
    using link = Link.openPin(join(dir, name))
    if (link === undefined) return []
    const { ifindex, cgroupId } = link.info
    // Links of a namespace have neither number.
    return [{ name, attached: ifindex > 0 || cgroupId > 0n || !/^(endpoint|uplink|cgroup)-/.test(name) }]
  })
}

async function readMaps(dir: string): Promise<readonly MapUse[]> {
  using stack = new DisposableStack()
  for (const name of existsSync(dir) ? readdirSync(dir).filter((file) => !file.includes('.')) : []) {
    const fd = openPin(join(dir, name))
    if (fd !== undefined) stack.use(new BpfMap(fd))
  }
  return await mapUse()
}

/** After it runs: does this node work? Pure. */
export function checkNode(facts: NodeFacts): Check[] {
  return [
    ...checkProcesses(facts),
    ...checkAgent(facts),
    ...checkPrograms(facts),
    ...checkMaps(facts),
    ...checkTried(facts),
  ]
}

function checkProcesses({ name, processes }: NodeFacts): Check[] {
  return processes.map(({ name: process, pid, log }) =>
    pid === undefined
      ? fault(name, process.split('/').at(-1) ?? process, 'does not run', `tail ${log}; weft up starts it again`)
      : ok(name, process.split('/').at(-1) ?? process, `pid ${pid}`),
  )
}

function checkAgent({ name, agent, agentError }: NodeFacts): Check[] {
  if (agent === null) return [fault(name, 'network', agentError, 'see the log of the agent')]
  const faults = agentFaults(agent)
  if (faults.length === 0) return [ok(name, 'network', `ready, ${agent.endpoints} pods`)]
  return faults.map(({ where, what, remedy }) => fault(name, where, what, remedy))
}

const alwaysUsed: ReadonlySet<string> = new Set(['cgroup', 'uplink', 'endpoint'])

/** The node's own; each pod has those of its device besides. */
function checkPrograms({ name, agent, links }: NodeFacts): Check[] {
  // Some places are used only where the node was told to (an overlay) or where the device can: one of them, then all.
  const isUsed = (place: string): boolean =>
    alwaysUsed.has(place) || links.some((link) => link.name.startsWith(`${place}-`))
  const wanted = programs
    .filter((spec) => isUsed(spec.place))
    .flatMap((spec) => {
      const count = spec.place === 'endpoint' ? (agent?.endpoints ?? 0) : 1
      return [{ suffix: `-${spec.name}`, place: spec.place, count }]
    })
  const missing = wanted.filter(
    ({ suffix, place, count }) =>
      links.filter((link) => link.attached && link.name.startsWith(`${place}-`) && link.name.endsWith(suffix)).length <
      count,
  )
  const attached = links.filter((link) => link.attached).length
  if (missing.length === 0) return [ok(name, 'programs', `${attached} attached`)]
  const names = missing.map(({ suffix, place }) => `${suffix.slice(1)} (${place})`).join(', ')
  return [fault(name, 'programs', `not attached: ${names}`, 'the agent attaches them when it starts: see its log')]
}

function checkMaps({ name, maps }: NodeFacts): Check[] {
  const full = maps.filter(({ entries, entriesMax }) => entries / entriesMax > pressureHigh)
  const percent = ({ entries, entriesMax }: MapUse): number => Math.round((entries / entriesMax) * 100)
  if (full.length > 0)
    return full.map((map) =>
      warning(
        name,
        'maps',
        `${map.name} is ${percent(map)} % full (${map.entries} of ${map.entriesMax})`,
        'fewer Services, pods or connections on this node, or a larger map',
      ),
    )
  const [most] = maps.toSorted((a, b) => b.entries / b.entriesMax - a.entries / a.entriesMax)
  return [
    most === undefined
      ? fault(name, 'maps', 'none is pinned', 'the agent makes them when it starts: see its log')
      : ok(name, 'maps', `${maps.length}, the fullest is ${most.name} with ${percent(most)} %`),
  ]
}

function checkTried({ name, tried, apiAddress }: NodeFacts): Check[] {
  return tried.map(({ try: one, result }) => {
    const ms = `${result.ms.toFixed(1)} ms`
    if (one.what === 'name') {
      const what = `${one.server} by ${one.transport}`
      if (result.error !== '') return fault(name, 'names', `${what}: ${result.error}`, 'see the log of the agent')
      if (!result.answers.includes(apiAddress))
        return fault(
          name,
          'names',
          `${what}: ${result.answers.join()} for ${one.name}`,
          'another resolver answers there',
        )
      return ok(name, 'names', `${what}, ${ms}`)
    }
    const what = `${one.address.includes(':') ? `[${one.address}]` : one.address}:${one.port}`
    if (result.error === '') return ok(name, 'reaches', `${what}, ${ms}`)
    const remedy =
      one.address === apiAddress
        ? 'Services are not translated for this node’s processes: see the log of the agent'
        : 'look at the device and the routes to it (ip route get), and whether something listens there'
    return fault(name, 'reaches', `${what}: ${result.error}`, remedy)
  })
}
