import type { Node } from '#api/gen/core-v1.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import type { Datapath } from '#datapath/datapath.ts'
import { Signal } from '../signal.ts'
import { planNodes, unreachableNetworks } from './plan.ts'

export interface NodesOptions {
  readonly nodeName: string
  readonly nodes: Informer<Node>
  readonly datapath: Datapath
  readonly clock: Clock
  readonly log: Log
}

const retryFirstMs = 100
const retryMaxMs = 30_000

/** Nodes as routes: other nodes' pods by their address, this node's own unreachable where no pod has the address. */
export class Nodes {
  readonly #options: NodesOptions
  readonly #wake = new Signal()
  #written = ''
  #trouble: unknown

  constructor(options: NodesOptions) {
    this.#options = options
  }

  status(): { readonly trouble: string } {
    return { trouble: this.#trouble === undefined ? '' : String(this.#trouble) }
  }

  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { nodes, datapath, nodeName, clock, log } = this.#options
    await nodes.whenSynced(signal)
    nodes.onChange(() => this.#wake.raise(), signal)
    const backoff = new Backoff({ firstMs: retryFirstMs, maxMs: retryMaxMs, jitter: 0.2 })
    let first = true
    while (!signal.aborted) {
      const plan = planNodes(nodes.list(), nodeName)
      const text = JSON.stringify(plan.toSorted((a, b) => (a.name < b.name ? -1 : 1)))
      try {
        // Nodes change every few seconds (leases aside, their conditions); their networks hardly ever.
        if (text !== this.#written) {
          await datapath.setNodes(plan)
          this.#written = text
          log.info({ nodes: plan.map((n) => n.name) }, 'routes to nodes are in place')
          const unreachable = plan.flatMap(unreachableNetworks)
          if (unreachable.length > 0)
            log.warn({ unreachable }, 'these nodes have no InternalIP of the family of their pods')
        }
        if (first) started()
        first = false
        this.#trouble = undefined
        backoff.reset()
        await this.#wake.wait(signal)
      } catch (error) {
        if (signal.aborted) break
        this.#trouble = error
        log.error({ err: error }, 'routes to nodes could not be written, trying again')
        await delay(backoff.next(), signal, clock)
      }
    }
  }
}
