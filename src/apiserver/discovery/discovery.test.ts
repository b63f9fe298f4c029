import test from 'ava'
import { deployments, events, eventsEvents, namespaces, pods } from '#api/gen/resources.ts'
import type { KindDefinition } from '#api/kind.ts'
import { allVerbs, defineKind, scaleSubresource, statusSubresource } from '#api/meta/define.ts'
import type { ApiResponse } from '#api/wire.ts'
import { buildDiscovery } from './discovery.ts'
import { compareVersions } from './versions.ts'

const kinds = [
  defineKind({
    resource: deployments,
    message: 'apps/v1.Deployment',
    description: 'Pods kept running.',
    shortNames: ['deploy'],
    categories: ['all'],
    subresources: [statusSubresource, scaleSubresource],
  }),
  defineKind({
    resource: pods,
    message: 'core/v1.Pod',
    description: 'Containers that run together.',
    subresources: [
      { name: 'log', verbs: ['get'] },
      { name: 'eviction', verbs: ['create'], kind: 'Eviction', group: 'policy', version: 'v1' },
    ],
  }),
  defineKind({ resource: namespaces, message: 'core/v1.Namespace', description: 'A space for names.' }),
  defineKind({ resource: events, message: 'core/v1.Event', description: 'Something happened.' }),
  defineKind({ resource: eventsEvents, message: 'events/v1.Event', description: 'Something happened.' }),
  { ...defineKind({ resource: deployments, message: 'x', description: '' }), ...widget('v1beta1') },
  { ...defineKind({ resource: deployments, message: 'x', description: '' }), ...widget('v1') },
] as unknown as readonly KindDefinition[]

function widget(version: string): Partial<KindDefinition> {
  return {
    resource: { group: 'example.com', version, resource: 'widgets', kind: 'Widget', namespaced: true },
    message: undefined,
    singular: 'widget',
    verbs: allVerbs,
  }
}

const discovery = buildDiscovery(kinds, '172.30.0.1:6443')
const v2 = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList'

function ask(path: string, accept?: string, ifNoneMatch?: string): ApiResponse | undefined {
  return discovery({ path, accept, ifNoneMatch })
}

function read(path: string, accept?: string): unknown {
  const response = ask(path, accept)
  return response === undefined ? undefined : JSON.parse(Buffer.from(response.body as Uint8Array).toString())
}

test('/api names the versions of the core group and where the server is', (t) => {
  t.deepEqual(read('/api'), {
    kind: 'APIVersions',
    versions: ['v1'],
    serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: '172.30.0.1:6443' }],
  })
})

test('/apis lists groups in order of priority, each with its preferred version first', (t) => {
  t.deepEqual(read('/apis'), {
    kind: 'APIGroupList',
    apiVersion: 'v1',
    groups: [entry('apps', 'v1'), entry('events.k8s.io', 'v1'), entry('example.com', 'v1', 'v1beta1')],
  })
})

const entry = (name: string, ...versions: string[]): object => ({
  name,
  versions: versions.map((version) => ({ groupVersion: `${name}/${version}`, version })),
  preferredVersion: { groupVersion: `${name}/${versions[0]}`, version: versions[0] },
})

test('/apis/GROUP/VERSION lists resources and what is below them', (t) => {
  t.deepEqual(read('/apis/apps/v1'), {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: 'apps/v1',
    resources: [
      {
        name: 'deployments',
        singularName: 'deployment',
        namespaced: true,
        kind: 'Deployment',
        verbs: [...allVerbs],
        shortNames: ['deploy'],
        categories: ['all'],
        storageVersionHash: '8aSe+NMegvE=',
      },
      {
        name: 'deployments/status',
        singularName: '',
        namespaced: true,
        kind: 'Deployment',
        verbs: ['get', 'patch', 'update'],
      },
      {
        name: 'deployments/scale',
        singularName: '',
        namespaced: true,
        group: 'autoscaling',
        version: 'v1',
        kind: 'Scale',
        verbs: ['get', 'patch', 'update'],
      },
    ],
  })
})

test('aggregated discovery has everything in one document for each root', (t) => {
  t.like(read('/api', v2), {
    kind: 'APIGroupDiscoveryList',
    apiVersion: 'apidiscovery.k8s.io/v2',
    items: [{ metadata: {}, versions: [{ version: 'v1', freshness: 'Current' }] }],
  })
  t.like(read('/apis', v2), {
    items: [
      {
        metadata: { name: 'apps' },
        versions: [
          {
            resources: [
              {
                resource: 'deployments',
                responseKind: { group: 'apps', version: 'v1', kind: 'Deployment' },
                scope: 'Namespaced',
                singularResource: 'deployment',
                subresources: [
                  { subresource: 'status', responseKind: { group: 'apps', version: 'v1', kind: 'Deployment' } },
                  { subresource: 'scale', responseKind: { group: 'autoscaling', version: 'v1', kind: 'Scale' } },
                ],
              },
            ],
          },
        ],
      },
      { metadata: { name: 'events.k8s.io' } },
      { metadata: { name: 'example.com' } },
    ],
  })
})

test('the form of the answer is the first of the Accept header that we have', (t) => {
  t.is(
    ask('/apis', `application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,${v2},application/json`)
      ?.headers['content-type'],
    v2,
  )
  t.is(ask('/apis', v2.replace('v=v2', 'v=v2beta1'))?.headers['content-type'], v2.replace('v=v2', 'v=v2beta1'))
  t.is(ask('/apis', 'application/json')?.headers['content-type'], 'application/json')
  t.is(ask('/apis', `application/json;q=0.1,${v2};q=0.9`)?.headers['content-type'], v2)
  t.throws(() => ask('/apis', 'text/html'), { message: /only the following media types/ })
})

test('an ETag that is known gives 304', (t) => {
  const first = ask('/apis', v2)
  const etag = first?.headers.etag ?? ''
  t.is(ask('/apis', v2, etag)?.status, 304)
  t.is(ask('/apis', v2, '"other"')?.status, 200)
})

test('what is not served is not found', (t) => {
  for (const path of [
    '/apis/nothing',
    '/apis/apps/v2',
    '/api/v2',
    '/api/v1/pods',
    '/apis/apps/v1/deployments',
    '/other',
  ])
    t.is(ask(path), undefined, path)
})

test('compareVersions() prefers stable over beta over alpha, and the higher number', (t) => {
  t.deepEqual(['v1alpha1', 'foo', 'v1', 'v2beta1', 'v10', 'v1beta2', 'v2'].toSorted(compareVersions), [
    'v10',
    'v2',
    'v1',
    'v2beta1',
    'v1beta2',
    'v1alpha1',
    'foo',
  ])
})
