import { type ClusterLayout, layoutCluster } from '#cli/cluster/layout.ts'
import { weft } from '../cluster/cluster.ts'
import { cut } from './cut.ts'

const name = 't-bench'

export interface BenchCluster {
  readonly layout: ClusterLayout
  /** What `weft up` took. */
  readonly upSeconds: number
  /** The command line, of this cluster. */
  weft(command: string, ...args: string[]): string
}

/** A cluster of the bench's own: up before, and down afterwards whatever happened. */
export async function withCluster<T>(nodes: number, body: (cluster: BenchCluster) => Promise<T>): Promise<T> {
  cut.throwIfAborted()
  const ask = (command: string, ...args: string[]): string => weft(command, '--name', name, ...args)
  try {
    const start = performance.now()
    ask('up', '--nodes', String(nodes))
    const upSeconds = (performance.now() - start) / 1000
    return await body({ layout: layoutCluster(name, nodes), upSeconds, weft: ask })
  } finally {
    ask('down')
  }
}
