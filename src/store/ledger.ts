import type { Change } from './store.ts'

/**
 * What an engine on this machine must do: keep numbered changes. `local.ts` makes a store of it.
 * Reads are synchronous: they come from memory or from mapped pages.
 */
export interface Ledger {
  /** The highest revision that was ever given out and is known here; new ones start after it. */
  readonly revision: number
  readonly compactedRevision: number
  /** Appends all or none. Resolves when they are on disk, not before. */
  append(changes: readonly Change[]): Promise<void>
  read(revision: number): Change | undefined
  /** In order of revision, `after` excluded, `through` included. */
  scan(after: number, through: number): Iterable<Change>
  /** Forgets these revisions and remembers the new compacted one, in one step. */
  drop(revisions: readonly number[], compactedRevision: number): Promise<void>
  close(): Promise<void>
}
