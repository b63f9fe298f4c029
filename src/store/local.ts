import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import { compareText } from '#base/order.ts'
import type { Ledger } from './ledger.ts'
import {
  Busy,
  type Change,
  Compacted,
  CompareFailed,
  type Entry,
  FutureRevision,
  type Range,
  type RangeOptions,
  type Store,
  type Write,
  WriteFailed,
} from './store.ts'

export interface LocalStoreOptions {
  readonly clock?: Clock
  readonly log?: Log
  /** How long a change stays readable. Upstream compacts every five minutes. */
  readonly keepMs?: number
  /** At most so many changes are kept, however young: bounds the disk and the time of a restart. */
  readonly keepRevisionsMax?: number
  /** How often compaction looks. */
  readonly compactEveryMs?: number
}

interface Commit {
  readonly writes: readonly Write[]
  readonly resolve: (revisions: readonly number[]) => void
  readonly reject: (error: unknown) => void
}

/** One flush carries at most so many commits: more would only make the first of them wait longer. */
const groupCommitsMax = 1024
/** Commits that may wait for the disk; about a second's worth. */
const waitingCommitsMax = 20_000
/** Changes handed out at once by `changes()`, so that a long replay lets others run. */
const replayBatch = 256

/**
 * A store on this machine. Writes are grouped: while one group is being flushed the next one collects. When a group is on
 * disk: index, subscribers, answers, in that order. So what a client was told is durable, and whoever asks after the
 * answer sees it.
 *
 * The index (key -> revision of its newest change; negative: deleted then) is all that is held in memory. Every change
 * names the one before it of the same key, so the past is read by going back along that chain.
 */
export class LocalStore implements Store {
  readonly #ledger: Ledger
  readonly #log: Log
  readonly #clock: Clock
  readonly #options: Required<Omit<LocalStoreOptions, 'clock' | 'log'>>
  readonly #index = new Map<string, number>()
  readonly #listeners = new Set<(changes: readonly Change[]) => void>()
  /** When the store was at which revision; compaction goes by it. */
  readonly #marks: { readonly at: number; readonly revision: number }[] = []
  #sortedKeys: string[] | undefined
  #waiting: Commit[] = []
  #writing: Promise<void> | undefined
  #compacting: Promise<void> = Promise.resolve()
  #revision: number
  #nextRevision: number
  #compactedRevision: number
  #closed = false
  #cancelTimer: () => void = () => {}

  constructor(ledger: Ledger, options: LocalStoreOptions = {}) {
    this.#ledger = ledger
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    this.#options = {
      keepMs: options.keepMs ?? 300_000,
      keepRevisionsMax: options.keepRevisionsMax ?? 200_000,
      compactEveryMs: options.compactEveryMs ?? 30_000,
    }
    for (const change of ledger.scan(0, Number.MAX_SAFE_INTEGER)) this.#remember(change)
    this.#revision = ledger.revision
    this.#nextRevision = this.#revision + 1
    this.#compactedRevision = ledger.compactedRevision
    this.#scheduleCompaction()
  }

  get revision(): number {
    return this.#revision
  }

  get compactedRevision(): number {
    return this.#compactedRevision
  }

  async get(key: string, at?: number): Promise<Entry | undefined> {
    if (at !== undefined) this.#checkKept(at)
    const direct = at === undefined || at === 0 ? undefined : this.#ledger.read(at)
    let revision = direct?.key === key ? direct.revision : Math.abs(this.#index.get(key) ?? 0)
    while (revision > 0) {
      const change = this.#ledger.read(revision)
      if (change === undefined) return undefined
      if (at === undefined || change.revision <= at) return entryOf(change)
      revision = change.previousRevision
    }
    return undefined
  }

  async range(options: RangeOptions): Promise<Range> {
    const { prefix, start, limit = Number.POSITIVE_INFINITY, at = this.#revision } = options
    this.#checkKept(at)
    const changedSince = at === this.#revision ? undefined : this.#revisionsAt(prefix, at)
    const keys = this.#keysOf(prefix)
    if (changedSince) {
      const gone = [...changedSince.keys()].filter((key) => (this.#index.get(key) ?? -1) < 0)
      if (gone.length > 0) {
        keys.push(...gone)
        keys.sort(compareText)
      }
    }
    const entries: Entry[] = []
    let remaining = 0
    for (const key of keys) {
      if (start !== undefined && compareText(key, start) < 0) continue
      const revision = changedSince?.get(key) ?? this.#index.get(key) ?? 0
      if (revision <= 0) continue
      if (entries.length >= limit) {
        remaining++
        continue
      }
      const change = this.#ledger.read(revision)
      const entry = change && entryOf(change)
      if (entry) entries.push(entry)
    }
    return { entries, revision: at, remaining }
  }

  commit(writes: readonly Write[]): Promise<readonly number[]> {
    if (this.#closed) return Promise.reject(new WriteFailed(new Error('the store is closed')))
    if (this.#waiting.length >= waitingCommitsMax) return Promise.reject(new Busy(this.#waiting.length))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ writes, resolve, reject })
      this.#writing ??= this.#write()
    })
  }

  async *changes(options: {
    readonly prefix: string
    readonly after: number
  }): AsyncGenerator<readonly Change[], void> {
    const { prefix, after } = options
    const through = this.#revision
    if (after > through) throw new FutureRevision(after, through)
    let from = after
    while (from < through) {
      // Compaction may overtake a slow reader.
      if (from < this.#compactedRevision) throw new Compacted(from, this.#compactedRevision)
      const batch: Change[] = []
      let seen = 0
      for (const change of this.#ledger.scan(from, through)) {
        from = change.revision
        if (change.key.startsWith(prefix)) batch.push(change)
        if (++seen >= replayBatch) break
      }
      if (seen < replayBatch) from = through
      if (batch.length > 0) yield batch
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }

  subscribe(listener: (changes: readonly Change[]) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  compact(revision: number): Promise<void> {
    this.#compacting = this.#compacting.then(() => this.#compact(Math.min(revision, this.#revision)))
    return this.#compacting
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#cancelTimer()
    await this.#writing
    await this.#compacting.catch(() => {})
    await this.#ledger.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** One group after the other until nothing waits. */
  async #write(): Promise<void> {
    // Requests that arrived in the same turn of the event loop go into the first group together.
    await new Promise<void>((resolve) => setImmediate(resolve))
    while (this.#waiting.length > 0) await this.#writeGroup(this.#waiting.splice(0, groupCommitsMax))
    this.#writing = undefined
  }

  async #writeGroup(commits: readonly Commit[]): Promise<void> {
    const changes: Change[] = []
    const pending = new Map<string, number>()
    const outcomes = commits.map((commit) => this.#plan(commit.writes, pending, changes))
    if (changes.length > 0) {
      try {
        await this.#ledger.append(changes)
      } catch (error) {
        this.#log.error({ err: error, writes: changes.length }, 'cannot write to the store')
        // Comparisons that failed may have failed against this very group, so they are not known either.
        for (const commit of commits) commit.reject(new WriteFailed(error))
        return
      }
      for (const change of changes) this.#remember(change)
      this.#revision = changes.at(-1)?.revision ?? this.#revision
      for (const listener of this.#listeners) listener(changes)
    }
    for (const [i, commit] of commits.entries()) {
      const outcome = outcomes[i]
      if (outcome instanceof CompareFailed) commit.reject(outcome)
      else commit.resolve(outcome ?? [])
    }
  }

  /** Compares against the index and what the group has so far; adds the changes, or says why not. */
  #plan(writes: readonly Write[], pending: Map<string, number>, changes: Change[]): readonly number[] | CompareFailed {
    for (const { key, expect } of writes) {
      const actual = Math.max(0, pending.get(key) ?? this.#index.get(key) ?? 0)
      if (actual !== expect) return new CompareFailed(key, expect, actual)
    }
    return writes.map(({ key, value, expect }) => {
      const revision = this.#nextRevision++
      changes.push({ revision, key, value, previousRevision: expect })
      pending.set(key, value === undefined ? -revision : revision)
      return revision
    })
  }

  #remember({ key, revision, value }: Change): void {
    const known = this.#index.get(key) ?? 0
    const live = value !== undefined
    if (known > 0 !== live) this.#sortedKeys = undefined
    this.#index.set(key, live ? revision : -revision)
  }

  #keysOf(prefix: string): string[] {
    this.#sortedKeys ??= [...this.#index]
      .filter(([, r]) => r > 0)
      .map(([key]) => key)
      .sort(compareText)
    const keys = this.#sortedKeys
    let low = 0
    let high = keys.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (compareText(keys[middle] ?? '', prefix) < 0) low = middle + 1
      else high = middle
    }
    let end = low
    while (end < keys.length && keys[end]?.startsWith(prefix)) end++
    return keys.slice(low, end)
  }

  /** For each key that changed after `at`: the revision it had then, 0 for none. */
  #revisionsAt(prefix: string, at: number): Map<string, number> {
    const then = new Map<string, number>()
    for (const change of this.#ledger.scan(at, this.#revision)) {
      if (!change.key.startsWith(prefix) || then.has(change.key)) continue
      then.set(change.key, change.previousRevision)
    }
    return then
  }

  #checkKept(at: number): void {
    if (at < this.#compactedRevision) throw new Compacted(at, this.#compactedRevision)
    if (at > this.#revision) throw new FutureRevision(at, this.#revision)
  }

  #scheduleCompaction(): void {
    this.#cancelTimer = this.#clock.schedule(this.#options.compactEveryMs, () => {
      this.#compacting = this.#compacting
        .then(() => this.#compact(this.#compactionTarget()))
        .catch((error: unknown) => this.#log.error({ err: error }, 'cannot compact the store'))
        .then(() => {
          if (!this.#closed) this.#scheduleCompaction()
        })
    })
  }

  #compactionTarget(): number {
    const now = this.#clock.monotonic()
    this.#marks.push({ at: now, revision: this.#revision })
    let target = this.#revision - this.#options.keepRevisionsMax
    while (this.#marks[0] && this.#marks[0].at <= now - this.#options.keepMs) {
      target = Math.max(target, this.#marks.shift()?.revision ?? 0)
    }
    return target
  }

  /** What a change up to `target` replaced is dropped, and so are the deletions themselves. */
  async #compact(target: number): Promise<void> {
    if (target <= this.#compactedRevision || this.#closed) return
    const drop: number[] = []
    for (const { revision, key, value, previousRevision } of this.#ledger.scan(this.#compactedRevision, target)) {
      if (previousRevision > 0) drop.push(previousRevision)
      if (value === undefined) {
        drop.push(revision)
        if (this.#index.get(key) === -revision) this.#index.delete(key)
      }
    }
    this.#compactedRevision = target
    await this.#ledger.drop(drop, target)
    this.#log.debug({ revision: target, dropped: drop.length }, 'compacted the store')
  }
}

const entryOf = ({ key, value, revision }: Change): Entry | undefined =>
  value === undefined ? undefined : { key, value, revision }

/** Keys are ASCII where it matters; UTF-16 order equals byte order there. */
