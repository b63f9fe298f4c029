import { existsSync, readdirSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

/** A node of a cluster on this machine, as far as its agent can be asked. */
export interface AgentSocket {
  readonly node: string
  readonly path: string
}

/** Nobody is behind an agent's socket: it has died, or is about to start. */
class AgentSilent extends Error {}

/** Agents of the cluster whose sockets are there, by name. Throws where there is none, with what to do. */
export function agentSockets(cluster: string, only?: string): AgentSocket[] {
  const dir = `/run/weft/${cluster}`
  const found = (existsSync(dir) ? readdirSync(dir) : [])
    .map((node) => ({ node, path: join(dir, node, 'agent.sock') }))
    .filter(({ node, path }) => existsSync(path) && (only === undefined || node === only))
  if (found.length === 0)
    throw new Error(
      only === undefined
        ? `no agent of a cluster "${cluster}" runs on this machine: weft up --name ${cluster} starts one`
        : `cluster "${cluster}" has no node "${only}" with a running agent here`,
    )
  return found.toSorted((a, b) => a.node.localeCompare(b.node, 'en', { numeric: true }))
}

/**
 * One agent that is dead keeps nobody from what the others have: that it is missing is said, and the command ends with 1. Where
 * all of them are dead that is an error.
 */
export function sparingTheDead(agents: readonly AgentSocket[], what: string) {
  let silent = 0
  return async <T>(answer: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await answer()
    } catch (error) {
      if (!(error instanceof AgentSilent) || ++silent === agents.length) throw error
      process.stderr.write(`weft: ${error.message}: its ${what} are missing\n`)
      process.exitCode = 1
      return undefined
    }
  }
}

type Query = Readonly<Record<string, string | readonly string[] | undefined>>

function open(
  { node, path }: AgentSocket,
  pathname: string,
  query: Query,
  signal?: AbortSignal,
): Promise<IncomingMessage> {
  const search = new URLSearchParams()
  for (const [key, values] of Object.entries(query))
    for (const value of values === undefined ? [] : [values].flat()) search.append(key, value)
  return new Promise((resolve, reject) => {
    const asked = request({
      socketPath: path,
      path: `${pathname}?${search}`,
      ...(signal === undefined ? {} : { signal }),
    })
    asked.once('response', resolve)
    asked.once('error', (cause) =>
      reject(new AgentSilent(`the agent of ${node} does not answer at ${path}`, { cause })),
    )
    asked.end()
  })
}

async function* lines(response: IncomingMessage): AsyncGenerator<string> {
  for await (const line of createInterface({ input: response, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line !== '') yield line
  }
}

/** One answer. Throws with the agent's own words where it refuses. */
export async function ask<T>(agent: AgentSocket, pathname: string, query: Query = {}): Promise<T> {
  const response = await open(agent, pathname, query)
  let text = ''
  for await (const line of lines(response)) text += line
  const body = JSON.parse(text) as { message?: string }
  if (response.statusCode !== 200)
    throw new Error(body.message ?? `the agent of ${agent.node} says ${response.statusCode}`)
  return body as T
}

/** Answers as they come, until `signal` aborts or the agent ends. */
export async function* askForAll<T extends object>(
  agent: AgentSocket,
  pathname: string,
  query: Query,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const response = await open(agent, pathname, query, signal)
  for await (const line of lines(response)) {
    const value = JSON.parse(line) as T
    if (response.statusCode !== 200)
      throw new Error(
        (value as { message?: string }).message ?? `the agent of ${agent.node} says ${response.statusCode}`,
      )
    yield value
  }
}
