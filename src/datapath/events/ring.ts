import type { BpfMap } from '#kernel/bpf/map.ts'
import { Ring } from '#kernel/bpf/ring.ts'
import { openMap } from '../load.ts'
import { eventSize, eventsLostMap, eventsMap } from './event.ts'

/** The node's records as the programs write them, read without being woken. One reader: the agent. */
export class EventRing implements Disposable {
  readonly #ring: Ring
  readonly #lost: BpfMap

  /** Throws where the programs are not loaded. */
  static open(pinDir: string): EventRing {
    using map = openMap(pinDir, eventsMap)
    return new EventRing(new Ring(map, eventSize), openMap(pinDir, eventsLostMap))
  }

  private constructor(ring: Ring, lost: BpfMap) {
    this.#ring = ring
    this.#lost = lost
  }

  /** Copies what is there, oldest first, and returns how many records. Never waits. */
  drain(into: Uint8Array): number {
    return this.#ring.drain(into)
  }

  /** Records for which there was no room, since the programs were loaded. */
  lost(): number {
    const perCpu = this.#lost.lookup(Buffer.alloc(4)) ?? Buffer.alloc(0)
    let sum = 0n
    for (let at = 0; at < perCpu.length; at += 8) sum += perCpu.readBigUInt64LE(at)
    return Number(sum)
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]()
    this.#lost[Symbol.dispose]()
  }
}
