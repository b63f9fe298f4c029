import { at, decodeEvent, type Event, eventKinds, eventSize } from '#datapath/events/event.ts'

/** Records as the kernel wrote them, the newest `entriesMax` of them; decoded only when somebody asks. */
export class FlowLog {
  readonly #records: Buffer
  readonly #entriesMax: number
  #written = 0
  readonly #counts = new Map<number, number>()
  #grown = Promise.withResolvers<void>()

  /** The default is what `hubble` users know; a record has 96 bytes. */
  constructor(entriesMax = 4096) {
    this.#entriesMax = entriesMax
    this.#records = Buffer.alloc(entriesMax * eventSize)
  }

  /** How many there ever were: the position behind the newest. */
  get end(): number {
    return this.#written
  }

  /** The position of the oldest that is still there. */
  get start(): number {
    return Math.max(0, this.#written - this.#entriesMax)
  }

  /** `count` records, one after the other. Counts them; nothing else is made of them yet. */
  append(records: Buffer, count: number): void {
    if (count === 0) return
    for (let i = 0; i < count; i++) {
      const o = i * eventSize
      const number =
        ((records[o + at.kind] as number) << 24) |
        ((records[o + at.reason] as number) << 16) |
        ((records[o + at.direction] as number) << 8) |
        (records[o + at.protocol] as number)
      this.#counts.set(number, (this.#counts.get(number) ?? 0) + 1)
    }
    // What would be overwritten within this very call is not copied.
    for (let i = Math.max(0, count - this.#entriesMax); i < count; ) {
      const slot = (this.#written + i) % this.#entriesMax
      const run = Math.min(count - i, this.#entriesMax - slot)
      records.copy(this.#records, slot * eventSize, i * eventSize, (i + run) * eventSize)
      i += run
    }
    this.#written += count
    this.wake()
  }

  /** Undefined where it has been overwritten, or is not there yet. */
  get(position: number): Event | undefined {
    if (position < this.start || position >= this.#written) return undefined
    return decodeEvent(this.#records, (position % this.#entriesMax) * eventSize)
  }

  /** ns of CLOCK_MONOTONIC, without decoding the rest. */
  timeOf(position: number): bigint {
    return this.#records.readBigUInt64LE((position % this.#entriesMax) * eventSize + at.time)
  }

  /** Resolves when there is more than now, or after `wake()`. */
  grown(): Promise<void> {
    return this.#grown.promise
  }

  /** Lets everybody who waits look again. */
  wake(): void {
    this.#grown.resolve()
    this.#grown = Promise.withResolvers()
  }

  /** Sums since the start, by what they were. */
  counts(): { kind: 'connection' | 'drop'; reason: number; direction: number; protocol: number; count: number }[] {
    return [...this.#counts].map(([number, count]) => ({
      kind: number >>> 24 === eventKinds.drop ? 'drop' : 'connection',
      reason: (number >>> 16) & 0xff,
      direction: (number >>> 8) & 0xff,
      protocol: number & 0xff,
      count,
    }))
  }
}
