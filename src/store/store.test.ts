import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { type Engine, storeConformance } from './conformance.ts'
import type { Ledger } from './ledger.ts'
import { openLmdbLedger, openLmdbStore } from './lmdb/lmdb.ts'
import { LocalStore } from './local.ts'
import { MemoryLedger, openMemoryStore } from './memory/memory.ts'
import { type Change, WriteFailed } from './store.ts'

function memoryEngine(): Engine {
  const ledger = new MemoryLedger()
  return {
    open: async (options) => openMemoryStore({ ...options, ledger }),
    reopen: async (options) => openMemoryStore({ ...options, ledger }),
    clean: async () => {},
  }
}

const temporary = (): string => mkdtempSync(join(tmpdir(), 'weft-store-'))

function lmdbEngine(): Engine {
  const directory = temporary()
  return {
    open: async (options) => openLmdbStore(directory, options),
    reopen: async (options) => openLmdbStore(directory, options),
    clean: async () => rmSync(directory, { recursive: true }),
  }
}

storeConformance(test, 'memory', memoryEngine)
storeConformance(test, 'lmdb', lmdbEngine)

/** A disk that is as slow, or as full, as a test wants. */
class HeldLedger implements Ledger {
  readonly #inner: Ledger
  readonly appended: (readonly Change[])[] = []
  flush: () => Promise<void> = async () => {}

  constructor(inner: Ledger) {
    this.#inner = inner
  }
  get revision(): number {
    return this.#inner.revision
  }
  get compactedRevision(): number {
    return this.#inner.compactedRevision
  }
  async append(changes: readonly Change[]): Promise<void> {
    this.appended.push(changes)
    await this.flush()
    await this.#inner.append(changes)
  }
  read(revision: number): Change | undefined {
    return this.#inner.read(revision)
  }
  scan(after: number, through: number): Iterable<Change> {
    return this.#inner.scan(after, through)
  }
  drop(revisions: readonly number[], compactedRevision: number): Promise<void> {
    return this.#inner.drop(revisions, compactedRevision)
  }
  close(): Promise<void> {
    return this.#inner.close()
  }
}

const write = (key: string) => [{ key, expect: 0, value: Buffer.from('x') }]
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

test('nobody is answered, and nothing is seen, before the flush; what came meanwhile goes together in the next group', async (t) => {
  const directory = temporary()
  const ledger = new HeldLedger(openLmdbLedger(directory))
  const store = new LocalStore(ledger)
  const flushed = Promise.withResolvers<void>()
  ledger.flush = () => flushed.promise
  const told: string[] = []
  store.subscribe((changes) => told.push(...changes.map(({ key }) => key)))
  const answered: string[] = []
  const writes = ['/a', '/b', '/c'].map((key) => store.commit(write(key)).then(() => answered.push(key)))
  await turns(20)
  const late = ['/d', '/e'].map((key) => store.commit(write(key)).then(() => answered.push(key)))
  await turns(50)
  t.deepEqual([answered, told, store.revision], [[], [], 0])
  t.is(await store.get('/a'), undefined)
  flushed.resolve()
  await Promise.all([...writes, ...late])
  t.deepEqual(answered, ['/a', '/b', '/c', '/d', '/e'])
  t.deepEqual(
    ledger.appended.map((group) => group.map(({ key }) => key)),
    [
      ['/a', '/b', '/c'],
      ['/d', '/e'],
    ],
  )
  await store.close()
  rmSync(directory, { recursive: true })
})

test('when the disk is full writes fail clearly, reads go on, and writes work again when there is room', async (t) => {
  const ledger = new HeldLedger(new MemoryLedger())
  const store = new LocalStore(ledger)
  await store.commit(write('/before'))
  ledger.flush = () => Promise.reject(Object.assign(new Error('No space left on device'), { code: 'ENOSPC' }))
  const error = await t.throwsAsync(store.commit(write('/a')), { instanceOf: WriteFailed })
  t.regex(error.message, /Cannot write to the store: No space left on device/)
  t.truthy(await store.get('/before'))
  t.is(await store.get('/a'), undefined)
  ledger.flush = async () => {}
  await store.commit(write('/a'))
  t.truthy(await store.get('/a'))
  await store.close()
})
