import test from 'ava'
import { configMaps, customResourceDefinitions, deployments, namespaces, pods, services } from '#api/gen/resources.ts'
import { serviceUnavailable } from '#api/meta/status.ts'
import { discover } from '#client/discovery.ts'
import { FakeClient } from '#client/fake.ts'
import { type Findings, isEmpty, nextLookMs, planConditions, planDeletion } from './plan.ts'
import { namespaceScenarios } from './scenarios.ts'

const serves = [configMaps, deployments, namespaces, pods, services]
const nothing: Findings = {
  remaining: new Map(),
  finalizers: new Map(),
  failures: [],
  discoveryFailures: new Map(),
  graceSeconds: 0,
}

test('planDeletion() takes pods first, and only what is in namespaces and can be deleted', async (t) => {
  const client = new FakeClient({ serves: [...serves, customResourceDefinitions] })
  const { pods: first, rest } = planDeletion(await discover(client, new AbortController().signal))
  t.deepEqual(
    first.map((r) => r.resource),
    ['pods'],
  )
  t.deepEqual(rest.map((r) => r.resource).toSorted(), ['configmaps', 'deployments', 'services'])
})

test('discover() names the groups it could not ask', async (t) => {
  const client = new FakeClient({ serves })
  client.rule((call) => (call.resource === '/apis/apps/v1' ? serviceUnavailable('down') : undefined))
  const { failures, resources } = await discover(client, new AbortController().signal)
  t.deepEqual([...failures.keys()], ['apps/v1'])
  t.is(resources.length, 4)
})

test('planConditions() says what a namespace waits for, and nothing new the second time', (t) => {
  const findings: Findings = {
    ...nothing,
    remaining: new Map([
      ['pods.', 2],
      ['deployments.apps', 1],
    ]),
    finalizers: new Map([['example.com/x', 1]]),
    failures: [{ resource: pods, error: new Error('no') }],
    discoveryFailures: new Map([['a/v1', serviceUnavailable('down')]]),
  }
  const first = planConditions(undefined, findings, '2026-01-01T00:00:00Z')
  t.deepEqual(
    first.map((c) => `${c.type}=${c.status} ${c.reason}: ${c.message}`),
    [
      'NamespaceDeletionDiscoveryFailure=True DiscoveryFailed: Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: a/v1: down',
      'NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types successfully parsed',
      'NamespaceDeletionContentFailure=True ContentDeletionFailed: Failed to delete all resource types, 1 remaining: no',
      'NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances',
      'NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances',
    ],
  )
  t.is(planConditions(first, findings, '2026-01-01T00:00:09Z'), first)
  t.true(planConditions(first, nothing, '2026-01-01T00:00:09Z').every((c) => c.status === 'False'))
})

test('isEmpty() holds a namespace whose content is not known', (t) => {
  t.true(isEmpty(nothing))
  t.false(isEmpty({ ...nothing, discoveryFailures: new Map([['a/v1', new Error('down')]]) }))
  t.is(nextLookMs({ ...nothing, graceSeconds: 30 }), 16_000)
})

for (const { name, run } of namespaceScenarios)
  test(name, async (t) => {
    const admin = new FakeClient({ serves })
    await t.notThrowsAsync(run(async (user) => (user === undefined ? admin : admin.as(user))))
  })
