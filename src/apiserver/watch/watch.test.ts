import test from 'ava'
import { configMaps } from '#api/gen/resources.ts'
import { FakeClock } from '#base/clock.ts'
import { openMemoryStore } from '#store/memory/memory.ts'
import { configMap, openWatch, startTrial, type Trial } from '../trial.ts'

const maps = '/api/v1/namespaces/default/configmaps'
const merge = { 'content-type': 'application/merge-patch+json' }

const put = async (trial: Trial, name: string, labels: Record<string, string> = {}): Promise<string> => {
  const { object } = await trial.call('POST', maps, { ...configMap(name), metadata: { name, labels } })
  return object.metadata.resourceVersion
}
const label = async (trial: Trial, name: string, labels: object): Promise<string> => {
  const { object } = await trial.call('PATCH', `${maps}/${name}`, { metadata: { labels } }, merge)
  return object.metadata.resourceVersion
}

test('a watch from a revision shows every later change once, in order', async (t) => {
  await using trial = await startTrial()
  const from = await put(trial, 'a')
  const watch = await openWatch(trial, `${maps}?watch=1&resourceVersion=${from}`)
  await put(trial, 'b')
  const changed = await label(trial, 'a', { x: '1' })
  await trial.call('DELETE', `${maps}/a`)
  t.deepEqual(await watch.take(2), ['ADDED b', 'MODIFIED a'])
  const gone = await watch.next()
  t.is(gone?.type, 'DELETED')
  t.deepEqual(gone?.object.metadata.labels, { x: '1' })
  t.is(gone?.object.metadata.resourceVersion, String(trial.store.revision))
  t.true(Number(gone?.object.metadata.resourceVersion) > Number(changed))
  await watch.stop()
})

test('a watch without a revision shows the present objects first', async (t) => {
  await using trial = await startTrial()
  await put(trial, 'a')
  const watch = await openWatch(trial, `${maps}?watch=true`)
  await put(trial, 'b')
  t.deepEqual(await watch.take(2), ['ADDED a', 'ADDED b'])
  await watch.stop()
})

test('initial events end with their bookmark, also over more objects than fit one batch', async (t) => {
  await using trial = await startTrial()
  for (let i = 0; i < 200; i++) await put(trial, `m${String(i).padStart(3, '0')}`)
  const query = 'watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true'
  const watch = await openWatch(trial, `${maps}?${query}`)
  t.is((await watch.take(200)).at(-1), 'ADDED m199')
  const bookmark = await watch.next()
  t.is(bookmark?.type, 'BOOKMARK')
  t.deepEqual(bookmark?.object.metadata.annotations, { 'k8s.io/initial-events-end': 'true' })
  t.is(bookmark?.object.metadata.resourceVersion, String(trial.store.revision))
  await put(trial, 'z')
  t.deepEqual(await watch.take(1), ['ADDED z'])
  await watch.stop()
  const refused = await trial.call('GET', `${maps}?watch=1&sendInitialEvents=true`)
  t.is(refused.status, 422)
})

test('an object that leaves the selection is deleted, to that watch, and one that enters is added', async (t) => {
  await using trial = await startTrial()
  const from = await put(trial, 'a', { x: '1' })
  const watch = await openWatch(trial, `${maps}?watch=1&resourceVersion=${from}&labelSelector=x%3D1`)
  const exit = await label(trial, 'a', { x: '2' })
  await label(trial, 'a', { y: '1' })
  await label(trial, 'a', { x: '1' })
  const gone = await watch.next()
  t.is(gone?.type, 'DELETED')
  t.deepEqual(gone?.object.metadata.labels, { x: '1' })
  t.is(gone?.object.metadata.resourceVersion, exit)
  t.deepEqual(await watch.take(1), ['ADDED a'])
  await watch.stop()
})

test('a watch goes on after a restart of the server from where it was, and misses nothing', async (t) => {
  const store = openMemoryStore()
  const first = await startTrial({ store })
  await put(first, 'a', { x: '1' })
  const from = await put(first, 'b')
  await label(first, 'a', { x: '2' })
  await first.call('DELETE', `${maps}/b`)
  await put(first, 'c')
  await first.api.close()
  await using second = await startTrial({ store })
  const all = await openWatch(second, `${maps}?watch=1&resourceVersion=${from}`)
  const some = await openWatch(second, `${maps}?watch=1&resourceVersion=${from}&labelSelector=x%3D1`)
  await put(second, 'd')
  t.deepEqual(await all.take(4), ['MODIFIED a', 'DELETED b', 'ADDED c', 'ADDED d'])
  t.deepEqual(await some.take(1), ['DELETED a'])
  await all.stop()
  await some.stop()
})

test('a revision that is no longer kept ends the watch with 410 Expired in the stream', async (t) => {
  const store = openMemoryStore()
  const first = await startTrial({ store })
  const from = await put(first, 'a')
  await put(first, 'b')
  await first.api.close()
  await store.compact(store.revision)
  await using second = await startTrial({ store })
  const watch = await openWatch(second, `${maps}?watch=1&resourceVersion=${from}`)
  const event = await watch.next()
  t.is(event?.type, 'ERROR')
  t.is(event?.object.code, 410)
  t.is(event?.object.reason, 'Expired')
  t.is(await watch.next(), undefined)
})

test('a bookmark comes each minute, and a last one when the time asked for is over', async (t) => {
  const clock = new FakeClock()
  await using trial = await startTrial({ clock })
  const from = trial.store.revision
  const watch = await openWatch(
    trial,
    `${maps}?watch=1&allowWatchBookmarks=true&timeoutSeconds=100&resourceVersion=${from}`,
  )
  const first = watch.next()
  await trial.call('POST', '/api/v1/namespaces/default/secrets', {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 's' },
  })
  clock.advance(60_000)
  const bookmark = await first
  t.is(bookmark?.type, 'BOOKMARK')
  t.is(bookmark?.object.metadata.resourceVersion, String(trial.store.revision))
  clock.advance(40_000)
  t.deepEqual(await watch.take(2), ['BOOKMARK', 'end'])
})

test('a reader that falls too far behind is cut off, not fed from a growing queue', async (t) => {
  await using trial = await startTrial()
  const from = await put(trial, 'a')
  const watch = await openWatch(trial, `${maps}?watch=1&resourceVersion=${from}`)
  const pad = 'x'.repeat(2000)
  for (let i = 0; i < 5000; i += 100) {
    const writes = Array.from({ length: 100 }, (_, k) =>
      trial.call('POST', maps, configMap(`m${i + k}`, { data: { pad } })),
    )
    await Promise.all(writes)
    if (i === 0) t.is((await watch.next())?.type, 'ADDED')
  }
  let seen = 1
  while ((await watch.next()) !== undefined) seen++
  t.true(seen < 5000, `it saw ${seen} events`)
})

test('watches get tables and partial metadata, too', async (t) => {
  await using trial = await startTrial()
  const from = await put(trial, 'a')
  const url = `${maps}?watch=1&resourceVersion=${from}`
  const table = await openWatch(trial, url, { accept: 'application/json;as=Table;v=v1;g=meta.k8s.io' })
  const partial = await openWatch(trial, url, {
    accept: 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io',
  })
  await put(trial, 'b')
  const row = await table.next()
  t.is(row?.object.kind, 'Table')
  t.like(row?.object.rows, [{ cells: ['b'] }])
  const metadata = await partial.next()
  t.is(metadata?.object.kind, 'PartialObjectMetadata')
  t.is(metadata?.object.metadata.name, 'b')
  await table.stop()
  await partial.stop()
})

test('a revision from the future is 410: the client must list anew', async (t) => {
  await using trial = await startTrial()
  const watch = await openWatch(trial, `${maps}?watch=1&resourceVersion=${trial.store.revision + 1000}`)
  t.is((await watch.next())?.object.code, 410)
  t.is(await watch.next(), undefined)
})

test('a watch ends when its resource is served no longer', async (t) => {
  await using trial = await startTrial()
  const watch = await openWatch(trial, `${maps}?watch=1&resourceVersion=${trial.store.revision}`)
  const ended = watch.next()
  trial.api.registry.forget(configMaps)
  t.is(await ended, undefined)
  t.is((await trial.call('GET', maps)).status, 404)
})

test('many events out of the store come through a slow reader, all and in order', async (t) => {
  const store = openMemoryStore()
  const first = await startTrial({ store })
  const from = await put(first, 'a')
  const pad = 'x'.repeat(2000)
  const names = Array.from({ length: 1500 }, (_, i) => `m${String(i).padStart(4, '0')}`)
  for (const name of names) await first.call('POST', maps, configMap(name, { data: { pad } }))
  await first.api.close()
  await using second = await startTrial({ store })
  const watch = await openWatch(second, `${maps}?watch=1&resourceVersion=${from}`)
  t.deepEqual(
    await watch.take(names.length),
    names.map((name) => `ADDED ${name}`),
  )
  await put(second, 'z')
  t.deepEqual(await watch.take(1), ['ADDED z'])
  await watch.stop()
})
