import { mkdirSync, statfsSync } from 'node:fs'
import { type Database, open, type RootDatabase } from 'lmdb'
import type { Ledger } from '../ledger.ts'
import { LocalStore, type LocalStoreOptions } from '../local.ts'
import type { Change, Store } from '../store.ts'

const compactedKey = 'compacted-revision'
const revisionKey = 'revision'
/** With less than this left a failed write is taken for a full disk: a group of writes needs some pages. */
const fullBelowBytes = 1024 * 1024

/**
 * Changes in an LMDB file, numbered by revision: a write is an append, so few pages are touched however many keys there are.
 * A row is: 1 byte (1 put, 0 delete), 8 bytes revision before (double), 2 bytes key length, key, value.
 */
class LmdbLedger implements Ledger {
  readonly #directory: string
  readonly #root: RootDatabase<Buffer, string>
  readonly #rows: Database<Buffer, number>
  readonly #meta: Database<number, string>
  revision: number
  compactedRevision: number

  constructor(directory: string) {
    this.#directory = directory
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    this.#root = open<Buffer, string>({
      path: directory,
      encoding: 'binary',
      cache: false,
      // A commit's promise then means "on disk", not only "visible".
      overlappingSync: false,
      // Otherwise every turn's transaction has a promise of its own that nobody holds: one failed write, on a full disk for
      // instance, would end the process. `batch()` makes the transactions. (With a `commitDelay` it would crash.)
      eventTurnBatching: false,
      commitDelay: 0,
      noMemInit: true,
      maxDbs: 4,
    })
    this.#rows = this.#root.openDB<Buffer, number>('changes', { encoding: 'binary', cache: false })
    this.#meta = this.#root.openDB<number, string>('meta', { encoding: 'json', cache: false })
    this.compactedRevision = this.#meta.get(compactedKey) ?? 0
    const [last] = [...this.#rows.getKeys({ reverse: true, limit: 1 })]
    this.revision = Math.max(last ?? 0, this.compactedRevision, this.#meta.get(revisionKey) ?? 0)
  }

  async append(changes: readonly Change[]): Promise<void> {
    await this.#write(() => {
      for (const change of changes) void this.#rows.put(change.revision, encode(change))
    })
    this.revision = changes.at(-1)?.revision ?? this.revision
  }

  read(revision: number): Change | undefined {
    const row = this.#rows.getBinary(revision)
    return row && decode(revision, row)
  }

  *scan(after: number, through: number): Generator<Change, void> {
    for (const { key, value } of this.#rows.getRange({ start: after + 1, end: through + 1, snapshot: false })) {
      yield decode(key, value)
    }
  }

  async drop(revisions: readonly number[], compactedRevision: number): Promise<void> {
    await this.#write(() => {
      for (const revision of revisions) void this.#rows.remove(revision)
      void this.#meta.put(compactedKey, compactedRevision)
      // The newest row may be a deletion that goes now; its number must not be given out again.
      void this.#meta.put(revisionKey, this.revision)
    })
    this.compactedRevision = compactedRevision
  }

  /** One transaction, on disk when it resolves. */
  async #write(put: () => void): Promise<void> {
    try {
      await this.#root.batch(put)
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  /** LMDB's failed commit carries its reason as a promise, and calls a full disk an input/output error. */
  async #explain(error: unknown): Promise<Error> {
    const reason = (error as { commitError?: Promise<unknown> }).commitError
    const turn = new Promise<void>((resolve) => setImmediate(resolve))
    const cause = reason && (await Promise.race([reason.catch((why: unknown) => why), turn]))
    const { bavail, bsize } = statfsSync(this.#directory)
    if (bavail * bsize < fullBelowBytes) {
      return new Error(`no space left on the disk of ${this.#directory}: make room, then writes work again`, {
        cause: error,
      })
    }
    return cause instanceof Error ? cause : error instanceof Error ? error : new Error(String(error))
  }

  async close(): Promise<void> {
    await this.#root.flushed
    await this.#root.close()
  }
}

const headerBytes = 11

function encode({ key, value, previousRevision }: Change): Buffer {
  const keyBytes = Buffer.byteLength(key)
  const row = Buffer.allocUnsafe(headerBytes + keyBytes + (value?.length ?? 0))
  row[0] = value === undefined ? 0 : 1
  row.writeDoubleLE(previousRevision, 1)
  row.writeUInt16LE(keyBytes, 9)
  row.write(key, headerBytes)
  if (value) row.set(value, headerBytes + keyBytes)
  return row
}

function decode(revision: number, row: Buffer): Change {
  const valueAt = headerBytes + row.readUInt16LE(9)
  return {
    revision,
    key: row.toString('utf8', headerBytes, valueAt),
    value: row[0] === 0 ? undefined : row.subarray(valueAt),
    previousRevision: row.readDoubleLE(1),
  }
}

/** Opens, or makes, the store in a directory. One process at a time. */
export function openLmdbLedger(directory: string): Ledger {
  return new LmdbLedger(directory)
}

export function openLmdbStore(directory: string, options: LocalStoreOptions = {}): Store {
  return new LocalStore(openLmdbLedger(directory), options)
}
