import type { Node } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { EventRecorder } from '#client/events.ts'
import type { Informer } from '#client/informer.ts'
import type { Datapath } from '#datapath/datapath.ts'

/** A lease that was not renewed, an operator's `ip address`: seldom, and pods do not reach the outside until it is seen. */
const everyMs = 5_000

export interface UplinkOptions {
  readonly nodeName: string
  readonly nodes: Informer<Node>
  readonly datapath: Pick<Datapath, 'followNode'>
  readonly events: EventRecorder
  readonly clock: Clock
  readonly log: Log
}

/**
 * The node's addresses on its uplink may change: the programs are told. What the cluster takes them for is in the Node, which is
 * its kubelet's to say: where that names an address that the node no longer has, an event and the status say so.
 */
export class Uplink {
  readonly #options: UplinkOptions
  #trouble = ''

  constructor(options: UplinkOptions) {
    this.#options = options
  }

  status(): { readonly trouble: string } {
    return { trouble: this.#trouble }
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    while (!signal.aborted) {
      try {
        this.#tell(await this.#follow())
      } catch (error) {
        log.warn({ err: error }, 'the addresses of the uplink could not be followed')
        this.#tell(String(error))
      }
      await delay(everyMs, signal, clock).catch(() => {})
    }
  }

  /** Returns what is wrong, or nothing. */
  async #follow(): Promise<string> {
    const { datapath, nodes, nodeName, log } = this.#options
    const { all, changed } = await datapath.followNode()
    if (changed !== undefined) log.info(changed, 'the node has other addresses on its uplink; the programs know them')
    return staleAddresses(nodes.get(nodeName), all)
  }

  #tell(trouble: string): void {
    const { nodes, nodeName, events } = this.#options
    if (trouble === this.#trouble) return
    this.#trouble = trouble
    const node = nodes.get(nodeName)
    if (trouble !== '' && node !== undefined)
      events.record(node, { type: 'Warning', reason: 'NodeAddressGone', message: trouble })
  }
}

/** What of the Node's own addresses is nowhere on this machine, as a sentence; empty: nothing. Pure. */
export function staleAddresses(node: Node | undefined, present: readonly string[]): string {
  const named = (node?.status?.addresses ?? []).flatMap((a) => (a.type === 'InternalIP' ? [a.address] : []))
  const gone = named.filter((address) => !present.includes(address))
  return gone.length === 0
    ? ''
    : `the Node's InternalIP ${gone.join(', ')} is not on this machine any more: other nodes send there, and node ports answer at the Node's addresses; start the agent again with --node-ip`
}
