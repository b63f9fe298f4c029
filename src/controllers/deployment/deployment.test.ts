import test from 'ava'
import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import { fakeFactory, template } from '../workload/scenario.ts'
import { sameTemplate, templateHash } from '../workload/template.ts'
import { hashLabel } from './names.ts'
import { planDeployment } from './plan.ts'
import { limitsOf } from './rollout.ts'
import { deploymentScenarios } from './scenarios.ts'

const now = Date.parse('2026-01-01T01:00:00Z')

const deployment = (replicas: number, maxSurge: number | string, maxUnavailable: number | string): Deployment => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: 'a', uid: 'd', resourceVersion: '1', generation: 2, creationTimestamp: '' },
  spec: {
    replicas,
    selector: { matchLabels: { app: 'web' } },
    template: template('web', '2'),
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge, maxUnavailable } },
    progressDeadlineSeconds: 600,
    revisionHistoryLimit: 10,
  },
  status: {},
})

const set = (version: string, replicas: number, available = replicas): ReplicaSet => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: {
    name: `web-${version}`,
    namespace: 'a',
    uid: version,
    resourceVersion: '1',
    generation: 1,
    creationTimestamp: `2026-01-01T00:00:0${version}Z`,
    annotations: { 'deployment.kubernetes.io/revision': version },
  },
  spec: { replicas, selector: {}, template: template('web', version) },
  status: { replicas, readyReplicas: available, availableReplicas: available, observedGeneration: 1 },
})

const steps = (d: Deployment, sets: ReplicaSet[]): string[] =>
  planDeployment(d, sets, [], now).actions.map((action) => {
    switch (action.do) {
      case 'create-set':
        return `create ${action.set.metadata.name} ${action.replicas}`
      case 'update-set':
        return `${action.set.metadata.name} ${action.from}->${action.to}`
      case 'delete-set':
        return `delete ${action.set.metadata.name}`
      default:
        return action satisfies never
    }
  })

test('limitsOf() rounds surge up and unavailable down, and lets one be missing where nothing could move', (t) => {
  t.deepEqual(limitsOf(deployment(10, '25%', '25%')), { surge: 3, unavailable: 2 })
  t.deepEqual(limitsOf(deployment(1, '25%', '25%')), { surge: 1, unavailable: 0 })
  t.deepEqual(limitsOf(deployment(3, 0, '25%')), { surge: 0, unavailable: 1 })
  t.deepEqual(limitsOf(deployment(2, 0, 5)), { surge: 0, unavailable: 2 })
})

test('planDeployment() creates the set of a new template as large as the surge allows', (t) => {
  const hash = templateHash(template('web', '2'))
  t.deepEqual(steps(deployment(10, 3, 2), [set('1', 10)]), [`create web-${hash} 3`])
  const plan = planDeployment(deployment(10, 3, 2), [set('1', 10)], [], now)
  t.is(plan.revision, '2')
  t.like(
    plan.status.conditions?.find((c) => c.type === 'Progressing'),
    {
      status: 'True',
      reason: 'NewReplicaSetCreated',
      message: `Created new replica set "web-${hash}"`,
    },
  )
})

test('planDeployment() takes pods from the old set only as the new one becomes available', (t) => {
  t.deepEqual(steps(deployment(10, 3, 2), [set('1', 10), set('2', 3, 0)]), ['web-1 10->8'])
  t.deepEqual(steps(deployment(10, 3, 2), [set('1', 8), set('2', 5, 0)]), [])
  t.deepEqual(steps(deployment(10, 3, 2), [set('1', 8), set('2', 5, 4)]), ['web-1 8->4'])
})

test('planDeployment() removes pods that do not work before any that does', (t) =>
  t.deepEqual(
    steps({ ...deployment(4, 1, 1), spec: { ...deployment(4, 1, 1).spec, template: template('web', '3') } }, [
      set('1', 3, 3),
      set('2', 1, 0),
      set('3', 1, 0),
    ]),
    ['web-2 1->0'],
  ))

test('templateHash() and sameTemplate() see through spellings of the same', (t) => {
  const mine = template('web')
  const theirs = {
    metadata: { creationTimestamp: null, labels: { [hashLabel]: 'x', app: 'web' } },
    spec: { containers: [{ resources: { limits: {} }, name: 'main', image: 'example.com/app:1' }], volumes: [] },
  } as unknown as typeof mine
  t.true(sameTemplate(mine, theirs, [hashLabel]))
  t.false(sameTemplate(mine, template('web', '2'), [hashLabel]))
  t.is(templateHash(mine), templateHash(structuredClone(mine)))
  t.not(templateHash(mine), templateHash(mine, 1))
  const volume = (source: object) => ({ ...mine, spec: { ...mine.spec, volumes: [{ name: 'v', ...source }] } })
  t.false(sameTemplate(volume({ emptyDir: {} }), volume({})))
})

for (const { name, run } of deploymentScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
}
