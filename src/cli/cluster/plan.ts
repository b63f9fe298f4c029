import type { ClusterLayout, FabricLayout, NodeLayout } from './layout.ts'

/** What is there now, read by observe.ts. */
export interface Observed {
  /** Network namespaces of this cluster, by name. */
  readonly namespaces: ReadonlySet<string>
  /** Namespaces whose devices and addresses are complete. */
  readonly connected: ReadonlySet<string>
  /** Mount points below the cluster's directories. */
  readonly mounts: ReadonlySet<string>
  /** Names of the nodes whose containerd has been given the images to its end. */
  readonly imported: ReadonlySet<string>
  /** Names of the processes that run. */
  readonly running: ReadonlySet<string>
  /** Nodes of an earlier, larger cluster of the same name. */
  readonly surplusNodes: readonly string[]
}

/** One step towards the cluster that was asked for. */
export type Action =
  | { readonly do: 'create-directories' }
  | { readonly do: 'create-cgroups' }
  | { readonly do: 'share-mounts'; readonly path: string }
  | { readonly do: 'create-fabric'; readonly fabric: FabricLayout }
  | { readonly do: 'create-node-namespace'; readonly node: NodeLayout; readonly fabric: FabricLayout }
  | { readonly do: 'mount-bpffs'; readonly path: string }
  | { readonly do: 'start-server' }
  | { readonly do: 'start-containerd'; readonly node: NodeLayout }
  | { readonly do: 'import-images'; readonly node: NodeLayout }
  | { readonly do: 'wait-server' }
  | { readonly do: 'start-agent'; readonly node: NodeLayout }
  | { readonly do: 'wait-nodes' }

/** What was asked for. */
export interface UpOptions {
  readonly layout: ClusterLayout
}

export const serverProcess = 'server'
export const containerdProcess = (node: NodeLayout): string => `${node.name}/containerd`
export const agentProcess = (node: NodeLayout): string => `${node.name}/agent`

/**
 * What is missing, in the order in which it must come. Nothing missing gives the two waits alone, so a second `up`
 * changes nothing. Throws where the cluster that runs is not the one that was asked for.
 */
export function planUp({ layout }: UpOptions, observed: Observed): Action[] {
  if (observed.surplusNodes.length > 0) {
    throw new RangeError(
      `cluster ${JSON.stringify(layout.name)} runs with more nodes (${observed.surplusNodes.join(', ')}): run weft down --name ${layout.name} first, or ask for as many nodes`,
    )
  }
  const actions: Action[] = [{ do: 'create-directories' }, { do: 'create-cgroups' }]
  const { fabric, nodes, runDir } = layout
  // An agent in a pod has to see the sandboxes that the runtime mounts after it was started.
  if (layout.agent === 'none' && !observed.mounts.has(runDir)) actions.push({ do: 'share-mounts', path: runDir })
  if (!observed.connected.has(fabric.netns)) actions.push({ do: 'create-fabric', fabric })
  if (!observed.running.has(serverProcess)) actions.push({ do: 'start-server' })
  for (const node of nodes) {
    if (!observed.connected.has(node.netns)) actions.push({ do: 'create-node-namespace', node, fabric })
    if (!observed.mounts.has(node.bpffs)) actions.push({ do: 'mount-bpffs', path: node.bpffs })
    const started = observed.running.has(containerdProcess(node))
    if (!started) actions.push({ do: 'start-containerd', node })
    // A new start looks whether the images are still those; an `up` that was cut off may have left the import undone.
    if (!started || !observed.imported.has(node.name)) actions.push({ do: 'import-images', node })
  }
  actions.push({ do: 'wait-server' })
  for (const node of nodes) if (!observed.running.has(agentProcess(node))) actions.push({ do: 'start-agent', node })
  actions.push({ do: 'wait-nodes' })
  return actions
}
