import test from 'ava'
import type { ConfigMap, Event, Pod } from '#api/gen/core-v1.ts'
import { configMaps, events, pods } from '#api/gen/resources.ts'
import { isStatus, serviceUnavailable } from '#api/meta/status.ts'
import { Scope } from '#base/async/scope.ts'
import { FakeClock } from '#base/clock.ts'
import { EventRecorder } from './events.ts'
import { eventually } from './eventually.ts'
import { FakeClient } from './fake.ts'
import { Informer, Informers, nodeOfPod } from './informer.ts'
import { type Change, follow, initialState, type State, step } from './watch.ts'

const map = (name: string, data: Record<string, string> = {}) => ({ metadata: { namespace: 'a', name }, data })

test('step() shows the objects of a streamed list when its bookmark comes', (t) => {
  const object = { metadata: { name: 'x', resourceVersion: '3' } } as ConfigMap
  const one = step(initialState<ConfigMap>(), { type: 'event', event: { type: 'ADDED', object } })
  t.is(one.change, undefined)
  const two = step(one.state, {
    type: 'event',
    event: { type: 'BOOKMARK', resourceVersion: '7', initialEventsEnd: true },
  })
  t.deepEqual(two.change, { type: 'replace', objects: [object], revision: '7' })
  t.deepEqual(two.state, { at: 'following', source: 'stream', revision: '7' })
})

test('step() falls back to lists where the stream stalls, and keeps to them', (t) => {
  const { state } = step(initialState<ConfigMap>(), { type: 'stalled' })
  t.deepEqual(state, { at: 'fetching', source: 'list', objects: [] })
  const listed = step(state, { type: 'page', page: { metadata: { resourceVersion: '9' }, items: [] } })
  t.deepEqual(listed.state, { at: 'following', source: 'list', revision: '9' })
})

test('step() goes on at its revision after trouble, without looking at everything again', (t) => {
  const following: State<ConfigMap> = { at: 'following', source: 'stream', revision: '12' }
  const error = serviceUnavailable('down')
  const { state, change } = step(following, { type: 'failed', error })
  t.deepEqual(state, { at: 'waiting', next: following })
  t.deepEqual(change, { type: 'trouble', error })
  t.deepEqual(step(state, { type: 'waited' }).state, following)
})

test('follow() relists after 410 and resumes by itself after a disconnect', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  await client.create(configMaps, map('one'))
  const seen: string[] = []
  const words = (c: Change<ConfigMap>) =>
    c.type === 'replace'
      ? `replace ${c.objects.map((o) => o.metadata.name)}`
      : c.type === 'trouble' || c.type === 'progress'
        ? c.type
        : `${c.type} ${c.object.metadata.name}`
  await using scope = new Scope()
  scope.start(async (signal) => {
    for await (const change of follow(client, configMaps, { signal, clock, random: () => 0 })) seen.push(words(change))
  })
  await eventually(() => seen.length === 1)
  client.storage.disconnect(serviceUnavailable('gone'))
  await eventually(() => seen.length === 2)
  await client.create(configMaps, map('two'))
  clock.advance(1_000)
  await eventually(() => seen.length === 3)
  client.storage.disconnect(serviceUnavailable('gone'))
  await eventually(() => seen.length === 4)
  await client.delete(configMaps, { namespace: 'a', name: 'one' })
  client.storage.compact()
  clock.advance(2_000)
  await eventually(() => seen.length === 5)
  t.deepEqual(seen, ['replace one', 'trouble', 'changed two', 'trouble', 'replace two'])
})

test('follow() uses lists in pages where the server has no streaming list', async (t) => {
  const client = new FakeClient({ watchList: false })
  for (let i = 0; i < 1_001; i++) client.seed(configMaps, map(`m${i}`))
  const stop = new AbortController()
  for await (const change of follow(client, configMaps, { signal: stop.signal })) {
    if (change.type === 'replace') {
      t.is(change.objects.length, 1_001)
      stop.abort()
    }
  }
})

test('an Informer tells of what vanished during a gap, and of one that was replaced by its namesake', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  await client.create(configMaps, map('gone'))
  await client.create(configMaps, map('again'))
  const informer = new Informer(client, configMaps, { clock })
  const told: string[] = []
  informer.onChange((next, old) =>
    told.push(`${old?.metadata.name ?? '-'}:${old?.metadata.uid ?? ''} -> ${next?.metadata.uid ?? '-'}`),
  )
  await using scope = new Scope()
  scope.start((signal) => informer.run(signal))
  await informer.whenSynced(scope.signal)
  client.storage.disconnect(serviceUnavailable('down'))
  await eventually(() => informer.status().trouble !== undefined)
  await client.delete(configMaps, { namespace: 'a', name: 'gone' })
  await client.delete(configMaps, { namespace: 'a', name: 'again' })
  const { metadata } = await client.create(configMaps, map('again'))
  client.storage.compact()
  clock.advance(1_000)
  await informer.whenSeen(metadata.resourceVersion, scope.signal)
  t.deepEqual(told, ['-: -> uid-1', '-: -> uid-2', 'gone:uid-1 -> -', 'again:uid-2 -> -', '-: -> uid-3'])
  t.is(informer.size, 1)
})

test('an Informer keeps its indexes right and its objects frozen', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n1' } })
  const informer = new Informer(client, pods)
  const byNode = informer.index('node', nodeOfPod)
  await using scope = new Scope()
  scope.start((signal) => informer.run(signal))
  await informer.whenSynced(scope.signal)
  t.deepEqual(
    byNode.get('n1').map((p) => p.metadata.name),
    ['p'],
  )
  const cached = informer.get('a/p')
  t.throws(() => Object.assign(cached?.spec ?? {}, { nodeName: 'n2' }), { instanceOf: TypeError })
  const moved = await client.update(pods, { ...pod, spec: { ...pod.spec, nodeName: 'n2' } })
  await informer.whenSeen(moved.metadata.resourceVersion, scope.signal)
  t.deepEqual([...byNode.values()], ['n2'])
  t.is(informer.list('a').length, 1)
  t.is(informer.list('b').length, 0)
})

test('Informers share one watch between all who ask for the same', async (t) => {
  const client = new FakeClient()
  let watches = 0
  client.rule((call) => {
    if (call.verb === 'watch') watches++
    return undefined
  })
  await using informers = new Informers({ client })
  t.is(informers.of(pods), informers.of(pods))
  t.not(informers.of(pods) as unknown, informers.of(pods, { labelSelector: 'a=b' }))
  await informers.whenSynced(new AbortController().signal)
  t.is(watches, 2)
})

test('the fake counts generations, keeps status apart and refuses stale updates', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n' } })
  const status = { ...pod, spec: { nodeName: 'x' }, status: { phase: 'Running' } } as unknown as Pod
  const running = await client.update(pods, status, { subresource: 'status' })
  t.is(running.status.phase, 'Running')
  t.is(running.spec.nodeName, 'n')
  t.is(running.metadata.generation, 1)
  t.true(isStatus(await t.throwsAsync(client.update(pods, pod)), 'Conflict'))
  const patched = await client.patch<Pod>(pods, pod.metadata, 'merge', { spec: { schedulerName: 's' } })
  t.is(patched.metadata.generation, 2)
  t.is(patched.status.phase, 'Running')
})

test('the fake gives a bound pod its grace, and honours finalizers and preconditions', async (t) => {
  const client = new FakeClient()
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' }, spec: { nodeName: 'n' } })
  await client.delete(pods, pod.metadata)
  t.is((await client.get(pods, pod.metadata)).metadata.deletionGracePeriodSeconds, 30)
  const wrong = client.delete(pods, pod.metadata, { gracePeriodSeconds: 0, preconditions: { uid: 'other' } })
  t.true(isStatus(await t.throwsAsync(wrong), 'Conflict'))
  await client.delete(pods, pod.metadata, { gracePeriodSeconds: 0 })
  t.true(isStatus(await t.throwsAsync(client.get(pods, pod.metadata)), 'NotFound'))
  const held = await client.create(configMaps, { metadata: { namespace: 'a', name: 'm', finalizers: ['x/y'] } })
  await client.delete(configMaps, held.metadata)
  t.truthy((await client.get(configMaps, held.metadata)).metadata.deletionTimestamp)
  await client.patch(configMaps, held.metadata, 'merge', { metadata: { finalizers: null } })
  t.true(isStatus(await t.throwsAsync(client.get(configMaps, held.metadata)), 'NotFound'))
})

test('an EventRecorder counts what is identical and combines what is similar', async (t) => {
  const clock = new FakeClock()
  const client = new FakeClient({ clock })
  const pod = await client.create<Pod>(pods, { metadata: { namespace: 'a', name: 'p' } })
  const recorder = new EventRecorder({ client, component: 'test', clock })
  await using scope = new Scope()
  scope.start((signal) => recorder.run(signal))
  for (let i = 0; i < 3; i++) recorder.record(pod, { type: 'Normal', reason: 'Same', message: 'again' })
  for (let i = 0; i < 13; i++) recorder.record(pod, { type: 'Warning', reason: 'Many', message: `number ${i}` })
  await eventually(() => client.calls.filter((c) => c.resource === 'events').length === 16)
  const { items } = await client.list<Event>(events, { namespace: 'a' })
  const same = items.find((e) => e.reason === 'Same')
  t.is(same?.count, 3)
  t.is(same?.involvedObject.uid, pod.metadata.uid)
  t.is(items.length, 1 + 10 + 1)
  t.is(items.find((e) => e.message?.startsWith('(combined'))?.count, 3)
})

test('an EventRecorder never waits: what is too much is dropped and counted', (t) => {
  const recorder = new EventRecorder({ client: new FakeClient(), component: 'test', clock: new FakeClock() })
  const about = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', uid: 'u' } } as Pod
  for (let i = 0; i < 40; i++) recorder.record(about, { type: 'Normal', reason: 'R', message: 'm' })
  t.is(recorder.dropped, 15)
})
