import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { mountsBelow } from '#kernel/mount.ts'
import type { ClusterLayout, NodeLayout } from './layout.ts'
import { agentProcess, containerdProcess, type Observed, serverProcess } from './plan.ts'
import { findProcess, type RunningProcess } from './processes.ts'

/** Says that a namespace has all its devices and addresses; written last, so a crash half-way is seen. */
export const connectedMarker = (layout: ClusterLayout, netns: string): string => join(layout.runDir, 'connected', netns)

/** Says which images a node has: the path of their archive, written when the import has ended. */
export const importedMarker = (node: NodeLayout): string => join(node.dataDir, 'imported')

export const pidFile = (layout: ClusterLayout, process: string): string =>
  join(layout.runDir, 'pids', process.replace('/', '.'))
export const logFile = (layout: ClusterLayout, process: string): string =>
  join(layout.runDir, 'logs', `${process.replace('/', '.')}.log`)

/** Names of all processes that the cluster should have. */
export function processNames(layout: ClusterLayout): string[] {
  return [serverProcess, ...layout.nodes.flatMap((node) => [containerdProcess(node), agentProcess(node)])]
}

export function observe(layout: ClusterLayout): Observed {
  const namespaces = new Set(namespacesOf(layout.name))
  const known = new Set(layout.nodes.map((n) => n.netns))
  return {
    namespaces,
    connected: new Set([...namespaces].filter((ns) => existsSync(connectedMarker(layout, ns)))),
    mounts: new Set([layout.runDir, layout.stateDir].flatMap((dir) => mountsBelow(dir))),
    imported: new Set(layout.nodes.filter((node) => existsSync(importedMarker(node))).map((node) => node.name)),
    running: new Set(runningProcesses(layout).map((p) => p.name)),
    surplusNodes: [...namespaces].filter((ns) => /-node-\d+$/.test(ns) && !known.has(ns)),
  }
}

function runningProcesses(layout: ClusterLayout): RunningProcess[] {
  return processNames(layout).flatMap((name) => findProcess(name, pidFile(layout, name)) ?? [])
}

/** Named namespaces (/run/netns) of the cluster. */
export function namespacesOf(cluster: string): string[] {
  const mine = new RegExp(`^weft-${cluster}-(fabric|node-\\d+)$`)
  return existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => mine.test(name)) : []
}

/** Number of nodes that a cluster was made with: from its namespaces. */
export function nodeCountOf(cluster: string): number {
  return namespacesOf(cluster).filter((ns) => ns !== `weft-${cluster}-fabric`).length
}
