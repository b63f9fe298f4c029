/**
 * Keys, bytes and one global revision; no kinds. Every committed write has a revision of its own, larger than all before,
 * and the store keeps the recent ones, so that a reader can go on from where it was, also across a restart.
 * Two engines: `memory/` and `lmdb/`; `conformance.ts` runs on both.
 */
export interface Store extends AsyncDisposable {
  /** The newest committed revision. Subscribers have been told of everything up to it. */
  readonly revision: number
  /** Nothing is known about changes at or before this revision, except what they left. */
  readonly compactedRevision: number
  /** With `at`: as of that revision. Throws `Compacted` or `FutureRevision`. */
  get(key: string, at?: number): Promise<Entry | undefined>
  /** In the order of the keys' bytes. Throws `Compacted` or `FutureRevision`. */
  range(options: RangeOptions): Promise<Range>
  /**
   * All of the writes or none, in order; resolves with each one's revision once they are on disk, and after every
   * subscriber was told. Throws `CompareFailed`, `Busy`, or `WriteFailed`: then nothing of it was written.
   */
  commit(writes: readonly Write[]): Promise<readonly number[]>
  /** The kept changes after a revision, up to the present one, oldest first. Throws `Compacted`. */
  changes(options: { readonly prefix: string; readonly after: number }): AsyncIterable<readonly Change[]>
  /** Called with every later group of changes, in order, before the writes of that group are answered. */
  subscribe(listener: (changes: readonly Change[]) => void): () => void
  /** Forgets the changes up to a revision; the store also does so by itself. */
  compact(revision: number): Promise<void>
  close(): Promise<void>
}

/** A key as it was at a revision. */
export interface Entry {
  readonly key: string
  readonly value: Uint8Array
  readonly revision: number
}

export interface RangeOptions {
  readonly prefix: string
  /** First key wanted; absent: from the beginning of the prefix. */
  readonly start?: string
  readonly limit?: number
  readonly at?: number
}

/** Keys of a prefix, in order, at one revision. */
export interface Range {
  readonly entries: readonly Entry[]
  /** The revision that the entries are of. */
  readonly revision: number
  /** How many more keys of the prefix come after these. */
  readonly remaining: number
}

/** One compare-and-put of a transaction. */
export interface Write {
  readonly key: string
  /** The revision that the key must have now; 0: it must be absent. */
  readonly expect: number
  /** Undefined deletes. */
  readonly value: Uint8Array | undefined
}

/** What a committed write did. */
export interface Change {
  readonly revision: number
  readonly key: string
  /** Undefined: deleted. */
  readonly value: Uint8Array | undefined
  /** Where the state before can be read (`get(key, previousRevision)`); 0: there was none. */
  readonly previousRevision: number
}

/** Another write came first: the key has revision `actual` (0: absent). */
export class CompareFailed extends Error {
  readonly key: string
  readonly actual: number
  constructor(key: string, expected: number, actual: number) {
    super(`Key ${JSON.stringify(key)} has revision ${actual}, not ${expected}`)
    this.name = 'CompareFailed'
    this.key = key
    this.actual = actual
  }
}

/** The past that was asked for is no longer kept. */
export class Compacted extends Error {
  readonly compactedRevision: number
  constructor(wanted: number, compactedRevision: number) {
    super(`Revision ${wanted} is no longer kept: everything up to ${compactedRevision} was compacted`)
    this.name = 'Compacted'
    this.compactedRevision = compactedRevision
  }
}

/** Nobody has written that revision yet. */
export class FutureRevision extends Error {
  constructor(wanted: number, revision: number) {
    super(`Revision ${wanted} does not exist yet: the newest is ${revision}`)
    this.name = 'FutureRevision'
  }
}

/** Too many writes wait for the disk. Nothing of this one was written; try again. */
export class Busy extends Error {
  constructor(waiting: number) {
    super(`${waiting} writes are waiting for the disk`)
    this.name = 'Busy'
  }
}

/** The disk refused: nothing of it was written. The store stays readable, and later writes are tried again. */
export class WriteFailed extends Error {
  constructor(cause: unknown) {
    super(`Cannot write to the store: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
    this.name = 'WriteFailed'
  }
}
