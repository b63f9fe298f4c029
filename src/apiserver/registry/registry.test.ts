import test from 'ava'
import type { KubeObject } from '#api/meta/resource.ts'
import { openMemoryStore } from '#store/memory/memory.ts'
import { configMap, type Shown, startTrial, type Trial } from '../trial.ts'

const maps = '/api/v1/namespaces/default/configmaps'
const merge = { 'content-type': 'application/merge-patch+json' }

async function create(trial: Trial, name: string, more: object = {}): Promise<Shown> {
  const answer = await trial.call('POST', maps, configMap(name, more))
  if (answer.status !== 201) throw new Error(answer.text)
  return answer.object
}

const namesOf = ({ items }: Shown): string[] => items?.map((item) => item.metadata.name) ?? []

test('create fills in what the server must, and a second one of the same name is refused', async (t) => {
  await using trial = await startTrial()
  const { metadata } = await create(trial, 'a', { data: { k: 'v' } })
  t.regex(metadata.uid, /^[0-9a-f-]{36}$/)
  t.regex(metadata.creationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
  t.is(metadata.namespace, 'default')
  t.is(metadata.managedFields?.[0]?.operation, 'Update')
  const again = await trial.call('POST', maps, configMap('a'))
  t.is(again.status, 409)
  t.is(again.object.reason, 'AlreadyExists')
  t.is(again.object.message, 'configmaps "a" already exists')
})

test('generateName gives each its own name', async (t) => {
  await using trial = await startTrial()
  const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { generateName: 'gen-' } }
  const answers = await Promise.all(Array.from({ length: 20 }, () => trial.call('POST', maps, body)))
  const names = answers.map((answer) => answer.object.metadata.name)
  t.is(new Set(names).size, 20)
  t.true(names.every((name) => /^gen-[a-z0-9]{5}$/.test(name)))
})

test('a stale update is a conflict, an update without a version is not, and one that changes nothing writes nothing', async (t) => {
  await using trial = await startTrial()
  const first = await create(trial, 'a', { data: { k: '1' } })
  const second = await trial.call('PUT', `${maps}/a`, { ...first, data: { k: '2' } })
  t.is(second.status, 200)
  const stale = await trial.call('PUT', `${maps}/a`, { ...first, data: { k: '3' } })
  t.is(stale.status, 409)
  t.regex(stale.object.message ?? '', /the object has been modified; please apply your changes to the latest version/)
  const revision = trial.store.revision
  const same = await trial.call('PUT', `${maps}/a`, { ...second.object, metadata: { name: 'a' } })
  t.is(same.object.metadata.resourceVersion, second.object.metadata.resourceVersion)
  t.is(trial.store.revision, revision)
  const free = await trial.call('PUT', `${maps}/a`, configMap('a', { data: { k: '4' } }))
  t.is(free.status, 200)
  t.is(free.object.metadata.uid, first.metadata.uid)
  const other = await trial.call('PUT', `${maps}/a`, configMap('b'))
  t.is(other.status, 400)
  t.is((await trial.call('PUT', `${maps}/none`, configMap('none'))).status, 404)
})

test('patches in three forms; patches at the same time all come through', async (t) => {
  await using trial = await startTrial()
  await create(trial, 'a', { data: { k: '1' } })
  const json = { 'content-type': 'application/json-patch+json' }
  const strategic = { 'content-type': 'application/strategic-merge-patch+json' }
  t.is((await trial.call('PATCH', `${maps}/a`, [{ op: 'add', path: '/data/j', value: '1' }], json)).status, 200)
  t.is((await trial.call('PATCH', `${maps}/a`, { data: { s: '1' } }, strategic)).status, 200)
  const together = Array.from({ length: 5 }, (_, i) =>
    trial.call('PATCH', `${maps}/a`, { data: { [`p${i}`]: '1' } }, merge),
  )
  t.deepEqual(
    (await Promise.all(together)).map((a) => a.status),
    [200, 200, 200, 200, 200],
  )
  const { object } = await trial.call('GET', `${maps}/a`)
  t.deepEqual(Object.keys(object.data as object).toSorted(), ['j', 'k', 'p0', 'p1', 'p2', 'p3', 'p4', 's'])
  const version = { metadata: { resourceVersion: '1' } }
  t.is((await trial.call('PATCH', `${maps}/a`, version, merge)).status, 409)
  t.is((await trial.call('PATCH', `${maps}/a`, { data: {} }, { 'content-type': 'text/plain' })).status, 415)
})

test('dryRun answers as if, and writes nothing', async (t) => {
  await using trial = await startTrial()
  const revision = trial.store.revision
  const made = await trial.call('POST', `${maps}?dryRun=All`, configMap('a'))
  t.is(made.status, 201)
  t.truthy(made.object.metadata.uid)
  t.false('resourceVersion' in made.object.metadata)
  t.is((await trial.call('GET', `${maps}/a`)).status, 404)
  t.is(trial.store.revision, revision)
  t.is((await trial.call('POST', `${maps}?dryRun=Some`, configMap('a'))).status, 422)
})

test('status and spec are each written through their own door, and generation counts changes of the spec', async (t) => {
  await using trial = await startTrial()
  const deployments = '/apis/apps/v1/namespaces/default/deployments'
  const selector = { matchLabels: { a: 'b' } }
  const template = { metadata: { labels: { a: 'b' } }, spec: { containers: [] } }
  const body = {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'd' },
    spec: { replicas: 1, selector, template },
  }
  const made = await trial.call('POST', deployments, body)
  t.is(made.object.metadata.generation, 1)
  const status = await trial.call(
    'PATCH',
    `${deployments}/d/status`,
    { spec: { replicas: 9 }, status: { replicas: 3 } },
    merge,
  )
  t.is((status.object.spec as { replicas: number }).replicas, 1)
  t.is((status.object.status as unknown as { replicas: number }).replicas, 3)
  t.is(status.object.metadata.generation, 1)
  const spec = await trial.call('PATCH', `${deployments}/d`, { spec: { replicas: 2 } }, merge)
  t.is(spec.object.metadata.generation, 2)
  const label = await trial.call('PATCH', `${deployments}/d`, { metadata: { labels: { x: 'y' } } }, merge)
  t.is(label.object.metadata.generation, 2)
})

test('finalizers hold a deleted object until the last is gone, and none can be added meanwhile', async (t) => {
  await using trial = await startTrial()
  await trial.call('POST', maps, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'a', finalizers: ['x/y', 'x/z'] },
  })
  const deleted = await trial.call('DELETE', `${maps}/a`)
  t.is(deleted.status, 200)
  t.truthy(deleted.object.metadata.deletionTimestamp)
  const added = await trial.call('PATCH', `${maps}/a`, { metadata: { finalizers: ['x/y', 'x/z', 'x/new'] } }, merge)
  t.is(added.status, 422)
  t.regex(added.object.message ?? '', /no new finalizers can be added if the object is being deleted/)
  await trial.call('PATCH', `${maps}/a`, { metadata: { finalizers: ['x/y'] } }, merge)
  t.is((await trial.call('GET', `${maps}/a`)).status, 200)
  const revision = trial.store.revision
  t.is((await trial.call('DELETE', `${maps}/a`)).status, 200)
  t.is(trial.store.revision, revision)
  await trial.call('PATCH', `${maps}/a`, { metadata: { finalizers: null } }, merge)
  t.is((await trial.call('GET', `${maps}/a`)).status, 404)
})

test('delete checks its preconditions, and puts the finalizer of its propagation policy', async (t) => {
  await using trial = await startTrial()
  const { metadata } = await create(trial, 'a')
  const wrong = await trial.call('DELETE', `${maps}/a`, { preconditions: { uid: 'other' } })
  t.is(wrong.status, 409)
  t.regex(wrong.object.message ?? '', /Precondition failed: UID in precondition: other, UID in object meta: /)
  t.is((await trial.call('DELETE', `${maps}/a`, { propagationPolicy: 'Sideways' })).status, 422)
  const foreground = await trial.call('DELETE', `${maps}/a`, { propagationPolicy: 'Foreground' })
  t.is(foreground.status, 202)
  t.deepEqual(foreground.object.metadata.finalizers, ['foregroundDeletion'])
  await trial.call('PATCH', `${maps}/a`, { metadata: { finalizers: null } }, merge)
  await create(trial, 'b')
  const plain = await trial.call('DELETE', `${maps}/b?propagationPolicy=Background`)
  t.is(plain.object.kind, 'Status')
  const { metadata: next } = await create(trial, 'a')
  t.not(next.uid, metadata.uid)
})

test('deletecollection takes what is selected and leaves the rest', async (t) => {
  await using trial = await startTrial()
  for (const i of [1, 2, 3])
    await trial.call('POST', maps, { ...configMap(`a${i}`), metadata: { name: `a${i}`, labels: { n: String(i) } } })
  const answer = await trial.call('DELETE', `${maps}?labelSelector=n+in+(1,3)`)
  t.deepEqual(namesOf(answer.object), ['a1', 'a3'])
  t.deepEqual(namesOf((await trial.call('GET', maps)).object), ['a2'])
})

test('lists are in order and selected by labels and fields', async (t) => {
  await using trial = await startTrial()
  for (const name of ['c', 'a', 'b']) {
    await trial.call('POST', maps, {
      ...configMap(name),
      metadata: { name, labels: { name, even: String(name !== 'b') } },
    })
  }
  t.deepEqual(namesOf((await trial.call('GET', maps)).object), ['a', 'b', 'c'])
  t.deepEqual(namesOf((await trial.call('GET', `${maps}?labelSelector=even%3Dtrue`)).object), ['a', 'c'])
  t.deepEqual(namesOf((await trial.call('GET', `${maps}?fieldSelector=metadata.name%3Db`)).object), ['b'])
  t.deepEqual(namesOf((await trial.call('GET', `${maps}?fieldSelector=metadata.name!%3Db`)).object), ['a', 'c'])
  t.is((await trial.call('GET', `${maps}?labelSelector=a%3D%3D%3D`)).status, 400)
  t.is((await trial.call('GET', `${maps}?fieldSelector=spec.x%3D1`)).status, 400)
})

test('more objects than one chunk holds stay in order through inserts and deletes', async (t) => {
  await using trial = await startTrial()
  const name = (i: number): string => `m-${String((i * 7919) % 1000).padStart(4, '0')}`
  const all = Array.from({ length: 1000 }, (_, i) => name(i))
  for (let at = 0; at < all.length; at += 100)
    await Promise.all(all.slice(at, at + 100).map((each) => create(trial, each)))
  t.deepEqual(namesOf((await trial.call('GET', maps)).object), all.toSorted())
  for (const each of all.slice(0, 400)) await trial.call('DELETE', `${maps}/${each}`)
  await create(trial, 'a-first')
  await create(trial, 'z-last')
  const left = ['a-first', ...all.slice(400).toSorted(), 'z-last']
  t.deepEqual(namesOf((await trial.call('GET', maps)).object), left)
  t.deepEqual(
    namesOf((await trial.call('GET', '/api/v1/configmaps')).object).filter(
      (n) => n !== 'kube-root-ca.crt' && !n.startsWith('cluster') && !n.startsWith('extension'),
    ),
    left,
  )
})

test('pages are of the revision that the first one had, whatever is written between them', async (t) => {
  await using trial = await startTrial()
  for (const name of ['a', 'b', 'c', 'd', 'e']) await create(trial, name)
  const one = await trial.call('GET', `${maps}?limit=2`)
  t.deepEqual(namesOf(one.object), ['a', 'b'])
  const metadata = one.object.metadata as { continue?: string; remainingItemCount?: number; resourceVersion: string }
  t.is(metadata.remainingItemCount, 3)
  await trial.call('DELETE', `${maps}/c`)
  await create(trial, 'bb')
  const two = await trial.call('GET', `${maps}?limit=2&continue=${metadata.continue}`)
  t.deepEqual(namesOf(two.object), ['c', 'd'])
  t.is(two.object.metadata.resourceVersion, metadata.resourceVersion)
  const next = (two.object.metadata as { continue?: string }).continue
  const three = await trial.call('GET', `${maps}?limit=2&continue=${next}`)
  t.deepEqual(namesOf(three.object), ['e'])
  t.is((three.object.metadata as { continue?: string }).continue, undefined)
  const exact = await trial.call(
    'GET',
    `${maps}?resourceVersion=${metadata.resourceVersion}&resourceVersionMatch=Exact`,
  )
  t.deepEqual(namesOf(exact.object), ['a', 'b', 'c', 'd', 'e'])
  t.is((await trial.call('GET', `${maps}?resourceVersion=5&continue=${next}`)).status, 400)
  t.is((await trial.call('GET', `${maps}?continue=rubbish`)).status, 400)
})

test('a continue token that was compacted away is 410 with another token, for an inconsistent rest', async (t) => {
  await using trial = await startTrial()
  for (const name of ['a', 'b', 'c']) await create(trial, name)
  const one = await trial.call('GET', `${maps}?limit=1`)
  const token = (one.object.metadata as { continue?: string }).continue
  await create(trial, 'd')
  await trial.store.compact(trial.store.revision)
  const gone = await trial.call('GET', `${maps}?limit=1&continue=${token}`)
  t.is(gone.status, 410)
  t.is(gone.object.reason, 'Expired')
  const rest = await trial.call('GET', `${maps}?continue=${(gone.object.metadata as { continue?: string }).continue}`)
  t.deepEqual(namesOf(rest.object), ['b', 'c', 'd'])
})

test('versions: the future is a Timeout that says so, and the combinations that make no sense are refused', async (t) => {
  await using trial = await startTrial()
  const future = await trial.call('GET', `${maps}?resourceVersion=999999`)
  t.is(future.status, 504)
  t.is(future.object.details?.causes?.[0]?.reason, 'ResourceVersionTooLarge')
  t.is((await trial.call('GET', `${maps}?resourceVersionMatch=Exact`)).status, 422)
  t.is((await trial.call('GET', `${maps}?resourceVersionMatch=Exact&resourceVersion=0`)).status, 422)
  t.is((await trial.call('GET', `${maps}?resourceVersion=abc`)).status, 422)
  t.is((await trial.call('GET', `${maps}?sendInitialEvents=true`)).status, 422)
  await create(trial, 'a')
  await create(trial, 'b')
  t.deepEqual(namesOf((await trial.call('GET', `${maps}?resourceVersion=0&limit=1`)).object), ['a', 'b'])
})

test('tables and partial metadata are made from the same objects', async (t) => {
  await using trial = await startTrial()
  await create(trial, 'a', { data: { k: 'v' } })
  const table = await trial.call('GET', maps, undefined, {
    accept: 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json',
  })
  t.is(table.object.kind, 'Table')
  const [row] = table.object.rows as { cells: unknown[]; object: KubeObject & { data?: unknown } }[]
  t.is(row?.cells[0], 'a')
  t.is(row?.object.kind, 'PartialObjectMetadata')
  const full = await trial.call('GET', `${maps}/a?includeObject=Object`, undefined, {
    accept: 'application/json;as=Table;v=v1;g=meta.k8s.io',
  })
  t.deepEqual((full.object.rows as { object: { data?: unknown } }[])[0]?.object.data, { k: 'v' })
  const partial = await trial.call('GET', maps, undefined, {
    accept: 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io',
  })
  t.is(partial.object.kind, 'PartialObjectMetadataList')
  const [item] = partial.object.items as (KubeObject & { data?: unknown })[]
  t.deepEqual([item?.kind, item?.metadata.name, item?.data], ['PartialObjectMetadata', 'a', undefined])
  const yaml = await trial.call('GET', `${maps}/a`, undefined, { accept: 'application/yaml' })
  t.regex(yaml.text, /^kind: ConfigMap\n/)
  t.is((await trial.call('GET', maps, undefined, { accept: 'application/vnd.kubernetes.protobuf' })).status, 406)
})

test('fieldValidation: unknown fields are refused, told of, or ignored', async (t) => {
  await using trial = await startTrial()
  const strict = await trial.call('POST', `${maps}?fieldValidation=Strict`, configMap('a', { foo: 1 }))
  t.is(strict.status, 400)
  t.regex(strict.object.message ?? '', /strict decoding error: unknown field "foo"/)
  const warned = await trial.call('POST', maps, configMap('a', { foo: 1 }))
  t.is(warned.status, 201)
  t.is(warned.headers.warning, '299 - "unknown field \\"foo\\""')
  const ignored = await trial.call('POST', `${maps}?fieldValidation=Ignore`, configMap('b', { foo: 1 }))
  t.is(ignored.headers.warning, undefined)
})

test('a namespace goes only when its own finalizer was taken off through /finalize', async (t) => {
  await using trial = await startTrial()
  const body = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'n' }, spec: { finalizers: ['kubernetes'] } }
  await trial.call('POST', '/api/v1/namespaces', body)
  const deleted = await trial.call('DELETE', '/api/v1/namespaces/n')
  t.is((deleted.object.status as unknown as { phase: string }).phase, 'Terminating')
  t.is((await trial.call('PUT', '/api/v1/namespaces/n/finalize', { ...body, spec: { finalizers: [] } })).status, 200)
  t.is((await trial.call('GET', '/api/v1/namespaces/n')).status, 404)
})

test('objects are there again after a restart, and so is every revision', async (t) => {
  const store = openMemoryStore()
  const first = await startTrial({ store })
  const made = await create(first, 'a', { data: { k: 'ü' } })
  await first.api.close()
  await using second = await startTrial({ store })
  const { object } = await second.call('GET', `${maps}/a`)
  t.deepEqual(object, made)
})

test('what has a namespace is written in one, and what has none is not found in one', async (t) => {
  await using trial = await startTrial()
  t.is((await trial.call('POST', '/api/v1/configmaps', configMap('a'))).status, 405)
  t.is((await trial.call('DELETE', '/api/v1/configmaps')).status, 405)
  t.is((await trial.call('GET', '/api/v1/configmaps/a')).status, 404)
  t.is((await trial.call('GET', '/api/v1/namespaces/default/nodes')).status, 404)
  const other = { ...configMap('a'), metadata: { name: 'a', namespace: 'other' } }
  t.is((await trial.call('POST', maps, other)).status, 400)
})

test('partial metadata is the whole metadata, whatever is in its strings', async (t) => {
  await using trial = await startTrial()
  const annotations = { a: 'ü{"}\\"', b: '\\\\', c: '"', d: '}}}', 'e/f': '{"metadata":{}}' }
  await trial.call('POST', maps, { ...configMap('a', { data: { k: 'v' } }), metadata: { name: 'a', annotations } })
  const { object } = await trial.call('GET', `${maps}/a`)
  const accept = 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io'
  const partial = await trial.call('GET', `${maps}/a`, undefined, { accept })
  t.deepEqual(partial.object.metadata, object.metadata)
  t.deepEqual(partial.object.metadata.annotations, annotations)
  t.deepEqual(Object.keys(partial.object), ['kind', 'apiVersion', 'metadata'])
})
