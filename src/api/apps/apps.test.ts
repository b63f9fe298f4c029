import test from 'ava'
import { created, type Manifest, problems, updated, updateProblems, words } from '#test/api/trial.ts'
import { controllerRevision } from './controller-revision.ts'
import { daemonSet } from './daemon-set.ts'
import { deployment } from './deployment.ts'
import { replicaSet } from './replica-set.ts'

const template = (labels: Record<string, string> = { a: 'b' }, spec: Manifest = {}) => ({
  metadata: { labels },
  spec: { containers: [{ name: 'c', image: 'i:1' }], ...spec },
})
const workload = (spec: Manifest = {}): Manifest => ({
  spec: { selector: { matchLabels: { a: 'b' } }, template: template(), ...spec },
})

test('workloads get upstream\u2019s defaults', (t) => {
  t.like(created(deployment, workload()).spec, {
    replicas: 1,
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' } },
    revisionHistoryLimit: 10,
    progressDeadlineSeconds: 600,
  })
  t.is(created(replicaSet, workload()).spec.replicas, 1)
  t.like(created(daemonSet, workload()).spec, {
    updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } },
    revisionHistoryLimit: 10,
  })
  const { spec } = created(deployment, workload()).spec.template
  t.is(spec.dnsPolicy, 'ClusterFirst')
  // Only of pods: a template stays as its author wrote it.
  t.is(spec.enableServiceLinks, undefined)
})

const wrong: readonly [Manifest, string[]][] = [
  [
    { template: template({ a: 'c' }) },
    ['spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`'],
  ],
  [{ selector: {} }, ['spec.selector: Invalid value: {}: empty selector is invalid for deployment']],
  [{ replicas: -1 }, ['spec.replicas: Invalid value: -1: must be greater than or equal to 0']],
  [
    { template: template({ a: 'b' }, { restartPolicy: 'Never' }) },
    ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
  ],
  [
    { strategy: { type: 'X' } },
    [
      'spec.strategy: Unsupported value: {"Type":"X","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate"',
    ],
  ],
  [
    { strategy: { type: 'Recreate', rollingUpdate: { maxSurge: 1 } } },
    ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
  ],
  [
    { strategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: '0%' } } },
    ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'],
  ],
  [
    { strategy: { rollingUpdate: { maxUnavailable: '200%' } } },
    ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "200%": must not be greater than 100%'],
  ],
  [
    { strategy: { rollingUpdate: { maxSurge: 'x' } } },
    [
      "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
    ],
  ],
  [
    { progressDeadlineSeconds: 5, minReadySeconds: 5 },
    ['spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds'],
  ],
]

for (const [spec, said] of wrong) {
  test(`a deployment: ${said[0]}`, (t) => t.deepEqual(problems(deployment, workload(spec)), said))
}

test('a selector is for ever', (t) => {
  const other = workload({ selector: { matchLabels: { a: 'b', c: 'd' } }, template: template({ a: 'b', c: 'd' }) })
  for (const kind of [deployment, replicaSet, daemonSet]) {
    t.deepEqual(updateProblems(kind as typeof deployment, workload(), other), [
      'spec.selector: Invalid value: {"matchLabels":{"a":"b","c":"d"}}: field is immutable',
    ])
  }
})

test('a daemon set counts the changes of its template', (t) => {
  const key = 'deprecated.daemonset.template.generation'
  t.is(created(daemonSet, workload()).metadata.annotations?.[key], '1')
  const { next } = updated(daemonSet, workload(), workload({ template: template({ a: 'b', x: 'y' }) }))
  t.is(next.metadata.annotations?.[key], '2')
  t.is(updated(daemonSet, workload(), workload()).next.metadata.annotations?.[key], '1')
  t.deepEqual(
    problems(daemonSet, workload({ updateStrategy: { rollingUpdate: { maxUnavailable: 1, maxSurge: 1 } } })),
    ['spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero'],
  )
})

test('kubectl get shows how far a workload is', (t) => {
  const object = created(deployment, workload({ replicas: 3 }))
  object.status = { readyReplicas: 1, updatedReplicas: 2, availableReplicas: 1 }
  t.deepEqual(
    deployment.columns.slice(1, 4).map(({ cell }) => cell(object, 0)),
    ['1/3', 2, 1],
  )
  t.deepEqual(
    deployment.columns.slice(5).map(({ cell }) => cell(object, 0)),
    ['c', 'i:1', 'a=b'],
  )
})

test('a revision is shown with whose it is', (t) => {
  const owner = { apiVersion: 'apps/v1', kind: 'DaemonSet', name: 'd', uid: 'u', controller: true }
  const object = created(controllerRevision, { metadata: { ownerReferences: [owner] }, revision: 2, data: {} })
  t.deepEqual(
    controllerRevision.columns.slice(1, 3).map(({ cell }) => cell(object, 0)),
    ['daemonset.apps/d', 2],
  )
})

test('a controller may not report more ready pods than there are', (t) => {
  const object = created(replicaSet, workload())
  object.metadata.resourceVersion = '1'
  const next = structuredClone(object)
  next.status = { replicas: 1, readyReplicas: 2, availableReplicas: 3, fullyLabeledReplicas: -1 }
  t.deepEqual(words(replicaSet.validateStatusUpdate?.(next, object) ?? []), [
    'status.fullyLabeledReplicas: Invalid value: -1: must be greater than or equal to 0',
    'status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas',
    'status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas',
    'status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas',
  ])
})
