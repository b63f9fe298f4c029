import test from 'ava'
import type { ObjectMeta, OwnerReference } from '#api/gen/meta-v1.ts'
import {
  configMaps,
  customResourceDefinitions,
  events,
  namespaces,
  pods,
  replicaSets,
  serviceAccounts,
} from '#api/gen/resources.ts'
import { FakeClient } from '#client/fake.ts'
import { Graph } from './graph.ts'
import { dropFinalizer, dropOwners, type KnownOwner, planItem, unblockOwners } from './plan.ts'
import { garbageCollectorScenarios } from './scenarios.ts'

const owner = (uid: string, blockOwnerDeletion = false): OwnerReference => ({
  apiVersion: 'v1',
  kind: 'Pod',
  name: uid,
  uid,
  blockOwnerDeletion,
})
const meta = (uid: string, owners: OwnerReference[] = [], more: Partial<ObjectMeta> = {}): ObjectMeta =>
  ({ uid, name: uid, namespace: 'a', resourceVersion: '1', ownerReferences: owners, ...more }) as ObjectMeta
const known = (uid: string, state: KnownOwner['state']): KnownOwner => ({ reference: owner(uid), state })
const none = { count: 0, anyWaits: false }

test('planItem() deletes what has no owner left, as it was told to be deleted', (t) => {
  t.deepEqual(planItem(meta('x'), [], none), { do: 'nothing' })
  t.deepEqual(planItem(meta('x'), [known('a', 'solid')], none), { do: 'nothing' })
  const absent = [known('a', 'absent')]
  t.deepEqual(planItem(meta('x'), absent, none), { do: 'delete', policy: 'Background', unblock: false })
  t.like(planItem(meta('x', [], { finalizers: ['orphan'] }), absent, none), { policy: 'Orphan' })
  t.like(planItem(meta('x', [], { finalizers: ['foregroundDeletion'] }), absent, none), { policy: 'Foreground' })
})

test('planItem() only drops references where somebody else still owns the object', (t) => {
  const owners = [known('a', 'absent'), known('b', 'solid'), known('c', 'waiting')]
  t.deepEqual(planItem(meta('x'), owners, none), { do: 'drop-owners', uids: ['a', 'c'] })
})

test('planItem() deletes in the foreground what is waited for and has dependents itself', (t) => {
  const owners = [known('a', 'waiting')]
  t.like(planItem(meta('x'), owners, none), { policy: 'Background' })
  t.deepEqual(planItem(meta('x'), owners, { count: 1, anyWaits: true }), {
    do: 'delete',
    policy: 'Foreground',
    unblock: true,
  })
})

test('the patches are refused when the object has changed since', (t) => {
  const object = meta('x', [owner('a', true), owner('b')], { finalizers: ['orphan', 'other'] })
  t.deepEqual(dropOwners(object, ['a']), {
    metadata: { uid: 'x', resourceVersion: '1', ownerReferences: [owner('b')] },
  })
  t.deepEqual(dropOwners(object, ['a', 'b']), { metadata: { uid: 'x', resourceVersion: '1', ownerReferences: null } })
  t.deepEqual(dropFinalizer(object, 'orphan'), { metadata: { uid: 'x', resourceVersion: '1', finalizers: ['other'] } })
  t.like(unblockOwners(object), { metadata: { ownerReferences: [owner('a'), owner('b')] } })
})

test('a Graph looks at dependents when their owner goes, whichever was seen first', (t) => {
  const graph = new Graph()
  t.deepEqual(graph.upsert(pods, meta('child', [owner('parent')])).look, ['child'])
  t.is(graph.get('parent')?.resource, undefined)
  t.deepEqual(graph.upsert(pods, meta('parent')).look, [])
  t.deepEqual(graph.remove('parent').look, ['child'])
  graph.remove('child')
  t.is(graph.size, 0)
})

test('a Graph looks at a waiting owner when one that blocked it is gone, or no longer blocks', (t) => {
  const graph = new Graph()
  const going = { deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['foregroundDeletion'] }
  graph.upsert(pods, meta('parent'))
  graph.upsert(pods, meta('one', [owner('parent', true)]))
  graph.upsert(pods, meta('two', [owner('parent', true)]))
  t.deepEqual(graph.upsert(pods, meta('parent', [], going)).look, ['parent', 'one', 'two'])
  t.deepEqual(graph.upsert(pods, meta('parent', [], going)).look, [])
  t.deepEqual(graph.remove('one').look, ['parent'])
  t.deepEqual(graph.upsert(pods, meta('two', [owner('parent')])).look, ['parent', 'two'])
})

test('a Graph tells once that dependents are to be let go', (t) => {
  const graph = new Graph()
  const going = { deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['orphan'] }
  t.deepEqual(graph.upsert(pods, meta('x', [], going)).orphan, ['x'])
  t.deepEqual(graph.upsert(pods, meta('x', [], going)).orphan, [])
})

const serves = [configMaps, customResourceDefinitions, events, namespaces, pods, replicaSets, serviceAccounts]
for (const { name, run } of garbageCollectorScenarios)
  test(name, async (t) => {
    const admin = new FakeClient({ serves })
    await t.notThrowsAsync(run(async (user) => (user === undefined ? admin : admin.as(user))))
  })
