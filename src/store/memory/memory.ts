import type { Ledger } from '../ledger.ts'
import { LocalStore, type LocalStoreOptions } from '../local.ts'
import type { Change, Store } from '../store.ts'

/** Changes in an array of this process: for tests and trials. Survives a "restart" when the same ledger is opened again. */
export class MemoryLedger implements Ledger {
  /** Sorted by revision. */
  readonly #changes = new Map<number, Change>()
  revision = 0
  compactedRevision = 0

  async append(changes: readonly Change[]): Promise<void> {
    for (const change of changes) {
      this.#changes.set(change.revision, change)
      this.revision = change.revision
    }
  }

  read(revision: number): Change | undefined {
    return this.#changes.get(revision)
  }

  *scan(after: number, through: number): Generator<Change, void> {
    const end = Math.min(through, this.revision)
    if (end - after > this.#changes.size) {
      for (const change of this.#changes.values()) if (change.revision > after && change.revision <= end) yield change
      return
    }
    for (let revision = after + 1; revision <= end; revision++) {
      const change = this.#changes.get(revision)
      if (change) yield change
    }
  }

  async drop(revisions: readonly number[], compactedRevision: number): Promise<void> {
    for (const revision of revisions) this.#changes.delete(revision)
    this.compactedRevision = compactedRevision
  }

  async close(): Promise<void> {}
}

export function openMemoryStore(options: LocalStoreOptions & { readonly ledger?: Ledger } = {}): Store {
  return new LocalStore(options.ledger ?? new MemoryLedger(), options)
}
