import type { ExecutionContext, TestFn } from 'ava'
import { FakeClock } from '#base/clock.ts'
import type { LocalStoreOptions } from './local.ts'
import { type Change, Compacted, CompareFailed, FutureRevision, type Store } from './store.ts'

/** How a suite gets at an engine. `reopen` is a restart: what was acknowledged is still there. */
export interface Engine {
  open(options?: LocalStoreOptions): Promise<Store>
  reopen(options?: LocalStoreOptions): Promise<Store>
  clean(): Promise<void>
}

const bytes = (text: string): Buffer => Buffer.from(text)
const text = (value: Uint8Array | undefined): string => Buffer.from(value ?? []).toString()

async function put(store: Store, key: string, value: string, expect = 0): Promise<number> {
  const [revision = 0] = await store.commit([{ key, expect, value: bytes(value) }])
  return revision
}

async function remove(store: Store, key: string, expect: number): Promise<number> {
  const [revision = 0] = await store.commit([{ key, expect, value: undefined }])
  return revision
}

const describe = ({ revision, key, value, previousRevision }: Change): string =>
  `${revision} ${key} ${value === undefined ? 'gone' : text(value)} was ${previousRevision}`

async function changesOf(store: Store, prefix: string, after: number): Promise<string[]> {
  const seen: string[] = []
  for await (const batch of store.changes({ prefix, after })) seen.push(...batch.map(describe))
  return seen
}

const keysOf = (entries: readonly { readonly key: string; readonly value: Uint8Array }[]): string[] =>
  entries.map((entry) => `${entry.key}=${text(entry.value)}`)

/** What every engine must do. */
export function storeConformance(test: TestFn, name: string, create: () => Engine): void {
  const run = (title: string, body: (engine: Engine, t: ExecutionContext) => Promise<void>): void =>
    test(`${name}: ${title}`, async (t) => {
      const engine = create()
      try {
        await body(engine, t)
      } finally {
        await engine.clean()
      }
    })

  run('each write has the next revision, and is read back', async (engine, t) => {
    await using store = await engine.open()
    const first = await put(store, '/a/1', 'one')
    const second = await put(store, '/a/2', 'two')
    t.true(second > first)
    t.is(store.revision, second)
    t.is(text((await store.get('/a/1'))?.value), 'one')
    t.is((await store.get('/a/2'))?.revision, second)
    t.is(await store.get('/a/3'), undefined)
  })

  run('a write that expects another revision is refused, and says which there is', async (engine, t) => {
    await using store = await engine.open()
    const first = await put(store, '/a', 'one')
    const error = await t.throwsAsync(put(store, '/a', 'two'), { instanceOf: CompareFailed })
    t.is(error.actual, first)
    await t.throwsAsync(put(store, '/b', 'x', first), { instanceOf: CompareFailed })
    await put(store, '/a', 'two', first)
    await t.throwsAsync(remove(store, '/a', first), { instanceOf: CompareFailed })
    t.is(text((await store.get('/a'))?.value), 'two')
  })

  run('of writes to one key at the same time one wins', async (engine, t) => {
    await using store = await engine.open()
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => put(store, '/a', String(i))))
    t.is(results.filter((r) => r.status === 'fulfilled').length, 1)
    t.is(text((await store.get('/a'))?.value), '0')
  })

  run('a transaction writes all or none', async (engine, t) => {
    await using store = await engine.open()
    const a = await put(store, '/a', '1')
    await t.throwsAsync(
      store.commit([
        { key: '/a', expect: a, value: bytes('2') },
        { key: '/b', expect: 7, value: bytes('2') },
      ]),
      { instanceOf: CompareFailed },
    )
    t.is(text((await store.get('/a'))?.value), '1')
    const revisions = await store.commit([
      { key: '/a', expect: a, value: undefined },
      { key: '/b', expect: 0, value: bytes('2') },
    ])
    t.is(revisions.length, 2)
    t.is(await store.get('/a'), undefined)
    t.is(text((await store.get('/b'))?.value), '2')
  })

  run('a range is in order, within its prefix, from a start, up to a limit', async (engine, t) => {
    await using store = await engine.open()
    for (const key of ['/p/c', '/p/a', '/q/a', '/p/b', '/o/z']) await put(store, key, key.slice(-1))
    const all = await store.range({ prefix: '/p/' })
    t.deepEqual(keysOf(all.entries), ['/p/a=a', '/p/b=b', '/p/c=c'])
    t.is(all.revision, store.revision)
    const page = await store.range({ prefix: '/p/', limit: 2 })
    t.deepEqual([keysOf(page.entries), page.remaining], [['/p/a=a', '/p/b=b'], 1])
    const rest = await store.range({ prefix: '/p/', start: '/p/b\0' })
    t.deepEqual(keysOf(rest.entries), ['/p/c=c'])
  })

  run('the past can be read while it is kept: values, absent ones, deleted ones', async (engine, t) => {
    await using store = await engine.open()
    const a1 = await put(store, '/p/a', '1')
    const b1 = await put(store, '/p/b', '1')
    const a2 = await put(store, '/p/a', '2', a1)
    await remove(store, '/p/b', b1)
    await put(store, '/p/c', '1')
    t.deepEqual(keysOf((await store.range({ prefix: '/p/', at: a1 })).entries), ['/p/a=1'])
    t.deepEqual(keysOf((await store.range({ prefix: '/p/', at: a2 })).entries), ['/p/a=2', '/p/b=1'])
    t.deepEqual(keysOf((await store.range({ prefix: '/p/' })).entries), ['/p/a=2', '/p/c=1'])
    t.is(text((await store.get('/p/a', b1))?.value), '1')
    t.is(text((await store.get('/p/b', a2))?.value), '1')
    t.is(await store.get('/p/c', a2), undefined)
    await t.throwsAsync(store.get('/p/a', store.revision + 1), { instanceOf: FutureRevision })
  })

  run('changes are told from any kept revision, in order, with what they replaced', async (engine, t) => {
    await using store = await engine.open()
    const a1 = await put(store, '/p/a', '1')
    const x1 = await put(store, '/x', '1')
    const a2 = await put(store, '/p/a', '2', a1)
    const a3 = await remove(store, '/p/a', a2)
    const wanted = [`${a1} /p/a 1 was 0`, `${a2} /p/a 2 was ${a1}`, `${a3} /p/a gone was ${a2}`]
    t.deepEqual(await changesOf(store, '/p/', 0), wanted)
    t.deepEqual(await changesOf(store, '/p/', x1), wanted.slice(1))
    t.deepEqual(await changesOf(store, '/p/', a3), [])
  })

  run('subscribers hear of every change, in order, before its writer does', async (engine, t) => {
    await using store = await engine.open()
    const heard: string[] = []
    const stop = store.subscribe((changes) => heard.push(...changes.map(({ key }) => key)))
    await Promise.all(
      ['/1', '/2', '/3'].map(async (key) => {
        await put(store, key, '')
        heard.push(`answered ${key}`)
      }),
    )
    t.deepEqual(heard.slice(0, 3), ['/1', '/2', '/3'])
    t.is(heard.length, 6)
    stop()
    await put(store, '/4', '')
    t.is(heard.length, 6)
  })

  run(
    'after a restart everything acknowledged is there, and the changes before it can still be followed',
    async (engine, t) => {
      const before = await engine.open()
      const a1 = await put(before, '/p/a', '1')
      const a2 = await put(before, '/p/a', '2', a1)
      const b1 = await put(before, '/p/b', 'ü')
      const b2 = await remove(before, '/p/b', b1)
      await before.close()
      await using after = await engine.reopen()
      t.is(after.revision, b2)
      t.deepEqual(keysOf((await after.range({ prefix: '/' })).entries), ['/p/a=2'])
      t.deepEqual(await changesOf(after, '/p/', a1), [
        `${a2} /p/a 2 was ${a1}`,
        `${b1} /p/b ü was 0`,
        `${b2} /p/b gone was ${b1}`,
      ])
      t.true((await put(after, '/p/b', 'again')) > b2)
    },
  )

  run('compaction forgets what was replaced or deleted, keeps the present, and says so', async (engine, t) => {
    const store = await engine.open()
    const a1 = await put(store, '/p/a', '1')
    const a2 = await put(store, '/p/a', '2', a1)
    const b1 = await put(store, '/p/b', '1')
    const b2 = await remove(store, '/p/b', b1)
    const a3 = await put(store, '/p/a', '3', a2)
    await store.compact(b2)
    t.is(store.compactedRevision, b2)
    t.deepEqual(keysOf((await store.range({ prefix: '/p/' })).entries), ['/p/a=3'])
    t.deepEqual(keysOf((await store.range({ prefix: '/p/', at: b2 })).entries), ['/p/a=2'])
    await t.throwsAsync(store.range({ prefix: '/p/', at: b1 }), { instanceOf: Compacted })
    await t.throwsAsync(changesOf(store, '/p/', a1), { instanceOf: Compacted })
    t.deepEqual(await changesOf(store, '/p/', b2), [`${a3} /p/a 3 was ${a2}`])
    await store.close()
    await using after = await engine.reopen()
    t.is(after.compactedRevision, b2)
    t.deepEqual(keysOf((await after.range({ prefix: '/p/' })).entries), ['/p/a=3'])
  })

  run('a compacted last deletion does not give its revision out again', async (engine, t) => {
    const store = await engine.open()
    const a1 = await put(store, '/a', '1')
    const a2 = await remove(store, '/a', a1)
    await store.compact(a2)
    await store.close()
    await using after = await engine.reopen()
    t.true((await put(after, '/a', '2')) > a2)
  })

  run('it compacts by itself: what is older than it must keep, and more than it may', async (engine, t) => {
    const clock = new FakeClock()
    const keep = { clock, keepMs: 300_000, compactEveryMs: 30_000, keepRevisionsMax: 50 }
    await using store = await engine.open(keep)
    let revision = await put(store, '/a', '0')
    for (let minute = 1; minute <= 4; minute++) {
      clock.advance(60_000)
      revision = await put(store, '/a', String(minute), revision)
      t.is(store.compactedRevision, 0)
    }
    clock.advance(180_000)
    await store.compact(0)
    t.true(store.compactedRevision > 0 && store.compactedRevision < revision)
    for (let i = 0; i < 100; i++) revision = await put(store, '/a', 'x', revision)
    clock.advance(30_000)
    await store.compact(0)
    t.is(store.compactedRevision, revision - 50)
    t.is(text((await store.get('/a'))?.value), 'x')
  })
}
