import { strict as assert } from 'node:assert'
import type { Deployment } from '#api/gen/apps-v1.ts'
import type { ConfigMap, Pod } from '#api/gen/core-v1.ts'
import type { PartialObjectMetadata } from '#api/gen/meta-v1.ts'
import { configMaps, deployments, namespaces, nodes, pods, serviceAccounts } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { isStatus, StatusError } from '#api/meta/status.ts'
import type { Client, Draft, WatchEvent, WatchOptions } from './client.ts'
import { discover } from './discovery.ts'
import { compareRevisions } from './key.ts'

/** A case of the suite that every Client passes: the fake, the direct one, the one through a port, the one over HTTP. */
export interface ConformanceCase {
  readonly name: string
  /** `client` may do everything. The case works in a namespace of its own. */
  run(client: Client): Promise<void>
}

interface Here {
  readonly client: Client
  readonly namespace: string
}

let serial = 0

const conforms = (name: string, body: (here: Here) => Promise<void>): ConformanceCase => ({
  name,
  async run(client) {
    const namespace = `conformance-${process.pid}-${++serial}`
    await client.create(namespaces, { metadata: { name: namespace } })
    await client
      .create(serviceAccounts, { metadata: { namespace, name: 'default' } })
      .catch((error: unknown) => assert.ok(isStatus(error, 'AlreadyExists'), String(error)))
    await body({ client, namespace })
  },
})

const refuses = (promise: Promise<unknown>, reason: string): Promise<void> =>
  assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof StatusError, `${error}`)
    assert.equal(error.reason, reason)
    return true
  })

const map = (namespace: string, name: string, data: Record<string, string> = {}): Draft<ConfigMap> => ({
  metadata: { namespace, name, labels: { app: name.slice(0, 1) } },
  data,
})

const podSpec = { containers: [{ name: 'main', image: 'example.com/app' }] }

const deployment = (namespace: string, name: string): Draft<Deployment> => ({
  metadata: { namespace, name },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: name } },
    template: { metadata: { labels: { app: name } }, spec: podSpec },
  },
})

/** The first `count` events, in words; the watch is ended afterwards. */
async function words<K extends KubeObject>(
  { client }: Here,
  resource: Resource<K>,
  options: Omit<WatchOptions, 'signal'>,
  count: number,
): Promise<string[]> {
  const stop = new AbortController()
  const timer = setTimeout(() => stop.abort(new Error('the events did not come')), 10_000)
  const seen: string[] = []
  try {
    for await (const event of client.watch(resource, { ...options, signal: stop.signal })) {
      seen.push(wordOf(event))
      if (seen.length === count) break
    }
  } finally {
    clearTimeout(timer)
  }
  return seen
}

const wordOf = (event: WatchEvent<KubeObject>): string =>
  event.type === 'BOOKMARK' ? `BOOKMARK ${event.initialEventsEnd}` : `${event.type} ${event.object.metadata.name}`

export const clientConformance: readonly ConformanceCase[] = [
  conforms('create() fills in what the server does', async ({ client, namespace }) => {
    const made = await client.create(configMaps, map(namespace, 'a', { k: 'v' }))
    assert.equal(made.kind, 'ConfigMap')
    assert.equal(made.apiVersion, 'v1')
    assert.ok(made.metadata.uid)
    assert.ok(Number(made.metadata.resourceVersion) > 0)
    assert.match(made.metadata.creationTimestamp, /^\d{4}-.*Z$/)
    assert.deepEqual(await client.get(configMaps, made.metadata), made)
    const one = await client.create(configMaps, { metadata: { namespace, generateName: 'gen-' } })
    const two = await client.create(configMaps, { metadata: { namespace, generateName: 'gen-' } })
    assert.match(one.metadata.name, /^gen-.{5}$/)
    assert.notEqual(one.metadata.name, two.metadata.name)
  }),

  conforms('refusals are StatusErrors with their reasons', async ({ client, namespace }) => {
    const made = await client.create(configMaps, map(namespace, 'a'))
    await refuses(client.create(configMaps, map(namespace, 'a')), 'AlreadyExists')
    await refuses(client.get(configMaps, { namespace, name: 'b' }), 'NotFound')
    await refuses(client.delete(configMaps, { namespace, name: 'b' }), 'NotFound')
    await refuses(client.patch(configMaps, { namespace, name: 'b' }, 'merge', {}), 'NotFound')
    await refuses(client.raw('GET', '/no/such/path'), 'NotFound')
    const error: unknown = await client.get(configMaps, { namespace, name: 'b' }).catch((e: unknown) => e)
    assert.equal((error as StatusError).message, 'configmaps "b" not found')
    assert.equal((error as StatusError).code, 404)
    await client.update(configMaps, { ...made, data: { a: 'b' } })
    await refuses(client.update(configMaps, { ...made, data: { a: 'c' } }), 'Conflict')
  }),

  conforms('update() counts revisions and generations, and not for nothing', async ({ client, namespace }) => {
    const made = await client.create(deployments, deployment(namespace, 'd'))
    assert.equal(made.metadata.generation, 1)
    const same = await client.update(deployments, made)
    assert.equal(same.metadata.resourceVersion, made.metadata.resourceVersion)
    const labelled = await client.update(deployments, { ...made, metadata: { ...made.metadata, labels: { a: 'b' } } })
    assert.ok(compareRevisions(labelled.metadata.resourceVersion, made.metadata.resourceVersion) > 0)
    assert.equal(labelled.metadata.generation, 1)
    const scaled = await client.update(deployments, { ...labelled, spec: { ...labelled.spec, replicas: 3 } })
    assert.equal(scaled.metadata.generation, 2)
  }),

  conforms('status is written by its own door, and only there', async ({ client, namespace }) => {
    const made = await client.create(deployments, deployment(namespace, 'd'))
    const wrong = await client.update(deployments, { ...made, status: { ...made.status, replicas: 7 } })
    assert.notEqual(wrong.status.replicas, 7)
    const written = await client.update(
      deployments,
      { ...wrong, spec: { ...wrong.spec, replicas: 9 }, status: { ...wrong.status, replicas: 7 } },
      { subresource: 'status' },
    )
    assert.equal(written.status.replicas, 7)
    assert.equal(written.spec.replicas, 1)
    assert.equal(written.metadata.generation, 1)
    const patch = { status: { readyReplicas: 5 } }
    const patched = await client.patch<Deployment>(deployments, made.metadata, 'merge', patch, {
      subresource: 'status',
    })
    assert.equal(patched.status.readyReplicas, 5)
  }),

  conforms('patch() of three kinds, with a revision as a condition', async ({ client, namespace }) => {
    const made = await client.create(configMaps, map(namespace, 'a', { one: '1', two: '2' }))
    const merged = await client.patch<ConfigMap>(configMaps, made.metadata, 'merge', {
      data: { one: null, three: '3' },
    })
    assert.deepEqual(merged.data, { two: '2', three: '3' })
    const operations = [{ op: 'replace', path: '/data/two', value: 'x' }]
    const replaced = await client.patch<ConfigMap>(configMaps, made.metadata, 'json', operations)
    assert.equal(replaced.data?.two, 'x')
    const { resourceVersion } = made.metadata
    const stale = { metadata: { resourceVersion }, data: { four: '4' } }
    await refuses(client.patch(configMaps, made.metadata, 'merge', stale), 'Conflict')
    const d = await client.create(deployments, deployment(namespace, 'd'))
    const containers = [{ name: 'side', image: 'example.com/side' }]
    const strategic = { spec: { template: { spec: { containers } } } }
    const both = await client.patch<Deployment>(deployments, d.metadata, 'strategic', strategic)
    assert.deepEqual(both.spec.template.spec?.containers.map((c) => c.name).toSorted(), ['main', 'side'])
  }),

  conforms('list() selects, pages and says what its items are', async ({ client, namespace }) => {
    for (const name of ['a1', 'a2', 'a3', 'b1']) await client.create(configMaps, map(namespace, name))
    const names = async (options: object) => {
      const { items } = await client.list(configMaps, { namespace, ...options })
      return items.map((i) => i.metadata.name).filter((name) => name !== 'kube-root-ca.crt')
    }
    assert.deepEqual(await names({ labelSelector: 'app=a' }), ['a1', 'a2', 'a3'])
    assert.deepEqual(await names({ labelSelector: 'app notin (a)' }).then((n) => n.includes('b1')), true)
    assert.deepEqual(await names({ fieldSelector: 'metadata.name=a2' }), ['a2'])
    const first = await client.list(configMaps, { namespace, labelSelector: 'app=a', limit: 2 })
    assert.equal(first.items.length, 2)
    assert.ok(first.metadata.continue)
    const rest = await client.list(configMaps, {
      namespace,
      labelSelector: 'app=a',
      limit: 2,
      continue: first.metadata.continue,
    })
    assert.deepEqual(
      rest.items.map((i) => i.metadata.name),
      ['a3'],
    )
    assert.equal(rest.items[0]?.kind, 'ConfigMap')
    assert.equal(rest.items[0]?.apiVersion, 'v1')
    const everywhere = await client.list(configMaps, { labelSelector: 'app=b' })
    assert.ok(everywhere.items.some((i) => i.metadata.namespace === namespace))
  }),

  conforms('metadataOnly gives metadata and nothing else', async ({ client, namespace }) => {
    await client.create(configMaps, map(namespace, 'a', { secret: 'x' }))
    const metadata = configMaps as unknown as Resource<PartialObjectMetadata>
    const { items } = await client.list(metadata, { namespace, labelSelector: 'app=a', metadataOnly: true })
    assert.deepEqual(Object.keys(items[0] ?? {}).toSorted(), ['apiVersion', 'kind', 'metadata'])
    assert.equal(items[0]?.kind, 'PartialObjectMetadata')
    const stop = new AbortController()
    const options = {
      namespace,
      sendInitialEvents: true,
      metadataOnly: true,
      labelSelector: 'app=a',
      signal: stop.signal,
    }
    for await (const event of client.watch(metadata, options)) {
      if (event.type === 'BOOKMARK') break
      assert.equal(event.object.kind, 'PartialObjectMetadata')
      assert.equal((event.object as unknown as ConfigMap).data, undefined)
    }
  }),

  conforms('watch() goes on after a revision and misses nothing', async (here) => {
    const { client, namespace } = here
    const { metadata } = await client.list(configMaps, { namespace })
    const a = await client.create(configMaps, map(namespace, 'a'))
    await client.update(configMaps, { ...a, data: { k: 'v' } })
    await client.create(configMaps, map(namespace, 'b'))
    await client.delete(configMaps, a.metadata)
    const resourceVersion = metadata.resourceVersion ?? ''
    const selector = { namespace, resourceVersion, labelSelector: 'app in (a,b)' }
    assert.deepEqual(await words(here, configMaps, selector, 4), ['ADDED a', 'MODIFIED a', 'ADDED b', 'DELETED a'])
    const fromA = { namespace, resourceVersion: a.metadata.resourceVersion, labelSelector: 'app in (a,b)' }
    assert.deepEqual(await words(here, configMaps, fromA, 1), ['MODIFIED a'])
  }),

  conforms('watch() sends what is there, then the bookmark that ends it, then what changes', async (here) => {
    const { client, namespace } = here
    await client.create(configMaps, map(namespace, 'a'))
    const stop = new AbortController()
    const timer = setTimeout(() => stop.abort(new Error('the events did not come')), 10_000)
    const seen: string[] = []
    const options = { namespace, sendInitialEvents: true, labelSelector: 'app in (a,c)', signal: stop.signal }
    for await (const event of client.watch(configMaps, options)) {
      seen.push(wordOf(event))
      if (event.type === 'BOOKMARK' && event.initialEventsEnd) await client.create(configMaps, map(namespace, 'c'))
      if (seen.length === 3) break
    }
    clearTimeout(timer)
    assert.deepEqual(seen, ['ADDED a', 'BOOKMARK true', 'ADDED c'])
  }),

  conforms('what leaves a selector is deleted for those who watch by it', async (here) => {
    const { client, namespace } = here
    const a = await client.create(configMaps, map(namespace, 'a'))
    const options = { namespace, labelSelector: 'app=a', resourceVersion: a.metadata.resourceVersion }
    await client.patch(configMaps, a.metadata, 'merge', { metadata: { labels: { app: 'z' } } })
    await client.patch(configMaps, a.metadata, 'merge', { metadata: { labels: { app: 'a' } } })
    assert.deepEqual(await words(here, configMaps, options, 2), ['DELETED a', 'ADDED a'])
  }),

  conforms('an aborted watch throws the reason of its signal', async ({ client, namespace }) => {
    const stop = new AbortController()
    const reason = new Error('enough')
    const watching = (async () => {
      for await (const event of client.watch(configMaps, { namespace, sendInitialEvents: true, signal: stop.signal }))
        if (event.type === 'BOOKMARK') stop.abort(reason)
    })()
    await assert.rejects(watching, (error: unknown) => error === reason)
    await assert.rejects(
      client.list(configMaps, { namespace, signal: stop.signal }),
      (error: unknown) => error === reason,
    )
  }),

  conforms('delete() honours preconditions, finalizers and dry runs', async ({ client, namespace }) => {
    const made = await client.create(configMaps, {
      metadata: { namespace, name: 'a', finalizers: ['example.com/hold'] },
    })
    await refuses(client.delete(configMaps, made.metadata, { preconditions: { uid: 'another' } }), 'Conflict')
    await client.delete(configMaps, made.metadata, { dryRun: ['All'] })
    assert.equal((await client.get(configMaps, made.metadata)).metadata.deletionTimestamp, undefined)
    await client.delete(configMaps, made.metadata)
    assert.ok((await client.get(configMaps, made.metadata)).metadata.deletionTimestamp)
    await client.patch(configMaps, made.metadata, 'merge', { metadata: { finalizers: null } })
    await refuses(client.get(configMaps, made.metadata), 'NotFound')
    const again = await client.create(configMaps, map(namespace, 'a'))
    assert.notEqual(again.metadata.uid, made.metadata.uid)
    const dry = await client.create(configMaps, map(namespace, 'dry'), { dryRun: true })
    assert.equal(dry.metadata.name, 'dry')
    await refuses(client.get(configMaps, { namespace, name: 'dry' }), 'NotFound')
  }),

  conforms('deleteCollection() deletes what the selector names', async ({ client, namespace }) => {
    for (const name of ['a1', 'a2', 'b1']) await client.create(configMaps, map(namespace, name))
    await client.deleteCollection(configMaps, { namespace, labelSelector: 'app=a' })
    const { items } = await client.list(configMaps, { namespace, labelSelector: 'app in (a,b)' })
    assert.deepEqual(
      items.map((i) => i.metadata.name),
      ['b1'],
    )
  }),

  conforms('a pod is bound once, given its grace, and gone when its node says so', async ({ client, namespace }) => {
    const node = `${namespace}-node`
    const podCIDR = `10.250.${serial}.0/24`
    const podCIDRs = [podCIDR, `fd00:10:250:${serial}::/64`]
    await client.create(nodes, { metadata: { name: node }, spec: { podCIDR, podCIDRs } })
    const pod = await client.create<Pod>(pods, { metadata: { namespace, name: 'p' }, spec: podSpec })
    assert.equal(pod.status.phase, 'Pending')
    const target = { apiVersion: 'v1', kind: 'Node', name: node }
    const binding = { metadata: { namespace, name: 'p' }, target }
    await client.createSubresource(pods, pod.metadata, 'binding', binding)
    assert.equal((await client.get(pods, pod.metadata)).spec.nodeName, node)
    await refuses(client.createSubresource(pods, pod.metadata, 'binding', binding), 'Conflict')
    await client.delete(pods, pod.metadata, { gracePeriodSeconds: 20 })
    assert.equal((await client.get(pods, pod.metadata)).metadata.deletionGracePeriodSeconds, 20)
    await client.delete(pods, pod.metadata, { gracePeriodSeconds: 0, preconditions: { uid: pod.metadata.uid } })
    await refuses(client.get(pods, pod.metadata), 'NotFound')
    await client.delete(nodes, { name: node })
  }),

  conforms('discover() finds what is served', async ({ client }) => {
    const { resources, failures } = await discover(client, new AbortController().signal)
    assert.equal(failures.size, 0)
    const found = resources.find((r) => r.group === 'apps' && r.resource === 'deployments')
    assert.equal(found?.kind, 'Deployment')
    assert.equal(found?.namespaced, true)
    assert.ok(found?.verbs.has('watch'))
    assert.equal(resources.find((r) => r.resource === 'nodes')?.namespaced, false)
  }),
]
