import { watchEmptied } from '#kernel/inotify.ts'
import type { NodeContext } from './node-context.ts'

/** The runtime may hear of an exit a little after the kernel has told us: looks again after 3, 6, 12 … ms. */
const lookFirstMs = 3
const looksMax = 8

/** Watches the cgroups of a pod's living containers; an empty one is an exit, and wakes the pod's loop. */
export class Exits {
  readonly #context: Pick<NodeContext, 'cgroups' | 'podsCgroup' | 'clock'>
  readonly #podUid: string
  readonly #wake: () => void
  /** Container id -> how to stop watching. */
  readonly #watches = new Map<string, () => void>()
  /** Containers whose cgroup is empty, and how often the loop has looked since whether the runtime says so too. */
  readonly #emptied = new Map<string, number>()

  constructor(context: Pick<NodeContext, 'cgroups' | 'podsCgroup' | 'clock'>, podUid: string, wake: () => void) {
    this.#context = context
    this.#podUid = podUid
    this.#wake = wake
  }

  /**
   * Watches exactly the containers that the runtime has as living. Returns when to look again, where the kernel has
   * seen an end that the runtime has not.
   */
  follow(live: readonly string[]): number | undefined {
    const { cgroups, podsCgroup, clock } = this.#context
    if (cgroups === undefined) return undefined
    for (const [id, stop] of this.#watches) {
      if (live.includes(id)) continue
      stop()
      this.#watches.delete(id)
      this.#emptied.delete(id)
    }
    let lookAgainAt: number | undefined
    for (const id of live) {
      const looks = this.#emptied.get(id)
      if (looks !== undefined) {
        // The slow relist goes on where we give up.
        if (looks >= looksMax) continue
        this.#emptied.set(id, looks + 1)
        const at = clock.now() + lookFirstMs * 2 ** looks
        lookAgainAt = lookAgainAt === undefined ? at : Math.min(lookAgainAt, at)
      } else if (!this.#watches.has(id)) {
        const emptied = () => {
          this.#emptied.set(id, 0)
          this.#wake()
        }
        this.#watches.set(id, watchEmptied(cgroups, `${podsCgroup}/${this.#podUid}/${id}`, emptied))
      }
    }
    return lookAgainAt
  }

  stop(): void {
    for (const stop of this.#watches.values()) stop()
    this.#watches.clear()
  }
}
