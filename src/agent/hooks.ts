import type { Node } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { EventRecorder } from '#client/events.ts'
import type { Informer } from '#client/informer.ts'
import type { Datapath } from '#datapath/datapath.ts'

/** What is passed by a stranger's program meanwhile meets no policy of ours. */
const everyMs = 5_000
/** Who did it may do it again: it is said for so long after. */
const saidForMs = 600_000

export interface HooksOptions {
  readonly nodeName: string
  readonly nodes: Informer<Node>
  readonly datapath: Pick<Datapath, 'keepFirst'>
  readonly events: EventRecorder
  readonly clock: Clock
  readonly log: Log
}

/**
 * Others attach programs to the same devices. One in front of ours that lets a packet pass has it pass our policies, too: ours
 * is put first again, and whose it was is said in the log, in an event of the node and in the status.
 */
export class Hooks {
  readonly #options: HooksOptions
  #displaced = 0
  #last: { readonly text: string; readonly at: number } | undefined
  #trouble: unknown

  constructor(options: HooksOptions) {
    this.#options = options
  }

  status(): { readonly displaced: number; readonly trouble: string } {
    const { clock } = this.#options
    const recent = this.#last !== undefined && clock.monotonic() - this.#last.at < saidForMs ? this.#last.text : ''
    return { displaced: this.#displaced, trouble: this.#trouble === undefined ? recent : String(this.#trouble) }
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    while (!signal.aborted) {
      try {
        await this.#look()
        this.#trouble = undefined
      } catch (error) {
        this.#trouble = error
        log.warn({ err: error }, 'whether our programs run first could not be seen to')
      }
      await delay(everyMs, signal, clock).catch(() => {})
    }
  }

  async #look(): Promise<void> {
    const { datapath, nodes, nodeName, events, clock, log } = this.#options
    const found = await datapath.keepFirst()
    if (found.length === 0) return
    this.#displaced += found.length
    log.warn({ found }, 'programs of somebody else ran before ours; ours are first again')
    const names = [...new Set(found.map(({ program, id }) => `${program || 'a program'} (${id})`))]
    const others = found.length === 1 ? '' : `, on ${found.length} hooks`
    const text = `${names.join(', ')} had been attached before our ${[...new Set(found.map((f) => f.before))].join(', ')}${others}: what it let pass met no policy; ours are first again`
    this.#last = { text, at: clock.monotonic() }
    const node = nodes.get(nodeName)
    if (node !== undefined) events.record(node, { type: 'Warning', reason: 'ProgramDisplaced', message: text })
  }
}
