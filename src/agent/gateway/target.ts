import type { Node } from '#api/gen/core-v1.ts'
import { nodes } from '#api/gen/resources.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import type { Informer } from '#client/informer.ts'
import { type Acknowledgement, acknowledgement, formatAcknowledgement } from '#gateway/acknowledge.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'

export interface AcknowledgerOptions {
  readonly client: Client
  readonly nodeName: string
  readonly nodes: Informer<Node>
  readonly clock: Clock
  readonly log: Log
}

/** Writes on the node's own Node what its engine has in force; one write at a time, the latest word only. */
export class Acknowledger {
  readonly #options: AcknowledgerOptions
  readonly #wake = new Signal()
  #wanted: string | undefined
  #written: string | undefined

  constructor(options: AcknowledgerOptions) {
    this.#options = options
  }

  say(said: Acknowledgement): void {
    const text = formatAcknowledgement(said)
    if (text === this.#wanted) return
    this.#wanted = text
    this.#wake.raise()
  }

  async run(signal: AbortSignal): Promise<void> {
    const { client, nodeName, nodes: copies, clock, log } = this.#options
    copies.onChange((next) => {
      if (next?.metadata.name !== nodeName || next.metadata.annotations?.[acknowledgement] === this.#written) return
      // A Node that was deleted and made again knows nothing of it; nor must somebody else's words stay.
      this.#written = undefined
      this.#wake.raise()
    }, signal)
    const write = async (): Promise<void> => {
      const text = this.#wanted
      if (text === undefined || text === this.#written) return
      const patch = { metadata: { annotations: { [acknowledgement]: text } } }
      await client.patch(nodes, { name: nodeName }, 'merge', patch, { signal })
      this.#written = text
    }
    const sentence = 'what the gateway has in force could not be said on the Node, trying again'
    await writeLoop({ wake: this.#wake, write, tell: () => {}, sentence, clock, log }, signal, () => {})
  }
}
