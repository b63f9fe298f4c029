import type { Node } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { compareText } from '#base/order.ts'
import type { Informer } from '#client/informer.ts'
import type { Datapath } from '#datapath/datapath.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'
import { planNodes, unreachableNetworks } from './plan.ts'

/** Who else manages networks on this machine may take away routes that he did not make: they are put back this often. */
const lookAgainMs = 30_000

export interface NodesOptions {
  readonly nodeName: string
  readonly nodes: Informer<Node>
  readonly datapath: Datapath
  readonly clock: Clock
  readonly log: Log
}

/** Nodes as routes: other nodes' pods by their address, this node's own unreachable where no pod has the address. */
export class Nodes {
  readonly #options: NodesOptions
  readonly #wake = new Signal()
  #written = ''
  #isDue = false
  #trouble: unknown

  constructor(options: NodesOptions) {
    this.#options = options
  }

  status(): { readonly nodes: number; readonly trouble: string } {
    return { nodes: this.#options.nodes.size, trouble: this.#trouble === undefined ? '' : String(this.#trouble) }
  }

  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { nodes, clock, log } = this.#options
    await nodes.whenSynced(signal)
    nodes.onChange(() => this.#wake.raise(), signal)
    const tell = (trouble: unknown): void => {
      this.#trouble = trouble
    }
    const sentence = 'routes to nodes could not be written, trying again'
    const write = (): Promise<void> => this.#write()
    const looking = this.#lookAgain(signal)
    await writeLoop({ wake: this.#wake, write, tell, sentence, clock, log }, signal, started)
    await looking
  }

  async #lookAgain(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(lookAgainMs, signal, this.#options.clock).catch(() => {})
      this.#isDue = true
      this.#wake.raise()
    }
  }

  /** Nodes change every few seconds (leases aside, their conditions); their networks hardly ever. */
  async #write(): Promise<void> {
    const { nodes, datapath, nodeName, log } = this.#options
    const plan = planNodes(nodes.list(), nodeName)
    const text = JSON.stringify(plan.toSorted((a, b) => compareText(a.name, b.name)))
    const isNew = text !== this.#written
    if (!isNew && !this.#isDue) return
    // Writes what is not there as it should be, and nothing else.
    await datapath.setNodes(plan)
    this.#written = text
    this.#isDue = false
    if (!isNew) return
    log.info({ nodes: plan.map((n) => n.name) }, 'routes to nodes are in place')
    const unreachable = plan.flatMap(unreachableNetworks)
    if (unreachable.length > 0) log.warn({ unreachable }, 'these nodes have no InternalIP of the family of their pods')
  }
}
