import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { nodes } from '#api/gen/resources.ts'
import { delay } from '#base/async/delay.ts'
import type { Client } from '#client/client.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'
import type { ClusterLayout } from './layout.ts'

const pollMs = 25

/** Tries until it holds. `check` is called between tries and throws when waiting is in vain. */
async function until(what: string, holds: () => Promise<boolean>, check: () => void, withinMs: number): Promise<void> {
  const end = performance.now() + withinMs
  let last: unknown
  for (;;) {
    try {
      if (await holds()) return
      last = undefined
    } catch (error) {
      last = error
    }
    check()
    if (performance.now() > end)
      throw new Error(`${what} within ${withinMs / 1000} s: give a slow machine more with --wait`, { cause: last })
    await delay(pollMs)
  }
}

export function waitForSocket(path: string, check: () => void, withinMs: number): Promise<void> {
  return until(`nothing listened on ${path}`, () => connects(path), check, withinMs)
}

function connects(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

/** The administrator's client of the cluster. */
export async function adminClient(layout: ClusterLayout): Promise<HttpClient> {
  const path = layout.server.adminKubeconfig
  return createHttpClient(httpOptionsOf(await parseKubeconfig(await readFile(path, 'utf8'))))
}

export async function waitForServer(layout: ClusterLayout, check: () => void, withinMs: number): Promise<void> {
  await until(
    'the API server was not ready',
    async () => {
      using client = await adminClient(layout)
      await client.raw('GET', '/readyz', undefined, AbortSignal.timeout(2_000))
      return true
    },
    check,
    withinMs,
  )
}

export async function waitForNodes(layout: ClusterLayout, check: () => void, withinMs: number): Promise<void> {
  using client = await adminClient(layout)
  // Without an agent a node is there, and NotReady until somebody brings its network.
  const wanted = layout.agent === 'none' ? 'registered' : 'Ready'
  await until(
    `the nodes were not ${wanted}`,
    async () => (await presentNodes(client, wanted)).length >= layout.nodes.length,
    check,
    withinMs,
  )
}

async function presentNodes(client: Client, wanted: 'registered' | 'Ready'): Promise<string[]> {
  const { items } = await client.list(nodes, { signal: AbortSignal.timeout(5_000) })
  return items
    .filter((node) =>
      node.status.conditions?.some((c) => c.type === 'Ready' && (wanted === 'registered' || c.status === 'True')),
    )
    .map((node) => node.metadata.name)
}
