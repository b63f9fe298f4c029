import { Scope } from '#base/async/scope.ts'
import { type AgentSocket, agentSockets, askForAll, sparingTheDead } from '../agents/ask.ts'
import { untilTold } from '../signals.ts'

export interface FlowsRequest {
  readonly cluster: string
  readonly query: Readonly<Record<string, readonly string[]>>
  readonly follow: boolean
  readonly last: number
  readonly since: string | undefined
  readonly output: string
}

/** A flow as an agent gives it: its line, its JSON, its time in ms since 1970. Or how many were overwritten unread. */
interface Line {
  readonly time: number
  readonly text: string
  readonly json: object
  readonly missed?: number
}

/** Prints flows of all nodes, oldest first; with `follow` those that come, as they come, until it is told to stop. */
export async function runFlows({ cluster, query, follow, last, since, output }: FlowsRequest): Promise<void> {
  if (!['compact', 'json', 'jsonpb'].includes(output)) throw new RangeError(`--output ${output}: use compact or json`)
  const print = (line: Line): void => {
    if (line.missed !== undefined)
      process.stderr.write(`weft: ${line.missed} flows were overwritten before they were read\n`)
    else process.stdout.write(`${output === 'compact' ? line.text : JSON.stringify(line.json)}\n`)
  }
  const sinceMs = since === undefined ? undefined : String(parseSince(since, Date.now()))
  const stopping = new AbortController()
  const asked = { ...query, last: String(last), since: sinceMs, follow: follow ? 'true' : undefined }
  const agents = agentsOf(cluster, query.nodeName)
  const told = sparingTheDead(agents, 'flows')
  const streamOf = (agent: AgentSocket) => askForAll<Line>(agent, '/v1/flows', asked, stopping.signal)
  if (!follow) {
    const found = await Promise.all(agents.map((agent) => told(() => Array.fromAsync(streamOf(agent)))))
    const lines = found.flatMap((some) => some ?? [])
    for (const line of lines.toSorted((a, b) => a.time - b.time)) print(line)
    return
  }
  await using scope = new Scope(stopping.signal)
  for (const agent of agents)
    scope.start(() =>
      told(async () => {
        for await (const line of streamOf(agent)) print(line)
        if (!stopping.signal.aborted) process.stderr.write(`weft: the agent of ${agent.node} tells no more\n`)
      }),
    )
  void untilTold().then(() => stopping.abort(new DOMException('told to stop', 'AbortError')))
  await scope.done()
}

/** Those of the nodes that are wanted. Throws where one of these is none. */
function agentsOf(cluster: string, wanted: readonly string[] | undefined): AgentSocket[] {
  const all = agentSockets(cluster)
  const stranger = wanted?.find((node) => !all.some((agent) => agent.node === node))
  if (stranger !== undefined)
    throw new RangeError(`--node-name ${stranger}: use one of ${all.map(({ node }) => node).join(', ')}`)
  return all.filter(({ node }) => wanted?.includes(node) ?? true)
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** ms since 1970 of a time, or of so long ago. */
function parseSince(text: string, now: number): number {
  const ago = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text)
  if (ago !== null) return now - Number(ago[1]) * (units[ago[2] ?? 's'] ?? 1000)
  const time = Date.parse(text)
  if (Number.isNaN(time))
    throw new RangeError(`--since ${text}: use a duration such as 30s or 5m, or a time such as 2026-01-01T00:00:00Z`)
  return time
}
