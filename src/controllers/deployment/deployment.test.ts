import { strict as assert } from 'node:assert'
import test from 'ava'
import fc from 'fast-check'
import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import { fakeFactory, template } from '../workload/scenario.ts'
import { sameTemplate, templateHash } from '../workload/template.ts'
import { hashLabel } from './names.ts'
import { planDeployment } from './plan.ts'
import { isScaling, limitsOf, setDraft } from './rollout.ts'
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

/** A Deployment and its sets as the API would have them; pods are numbers, and come up only when they are told to. */
class Model {
  deployment: Deployment
  sets: ReplicaSet[] = []
  #serial = 0

  constructor(replicas: number, maxSurge: number | string, maxUnavailable: number | string) {
    this.deployment = deployment(replicas, maxSurge, maxUnavailable)
    this.change({ template: template('web', '0') })
  }

  change(spec: Partial<Deployment['spec']>): void {
    const { metadata } = this.deployment
    this.deployment = {
      ...this.deployment,
      metadata: { ...metadata, generation: (metadata.generation ?? 0) + 1 },
      spec: { ...this.deployment.spec, ...spec },
    }
  }

  /** One look of the controller. True when it did something. */
  look(): boolean {
    const plan = planDeployment(this.deployment, this.sets, [], now)
    for (const action of plan.actions) {
      if (action.do === 'delete-set') this.sets = this.sets.filter((one) => one !== action.set)
      else if (action.do === 'update-set')
        this.sets = this.sets.map((one) => (one.metadata.uid === action.set.metadata.uid ? action.set : one))
      else {
        const uid = String(++this.#serial).padStart(3, '0')
        const made = structuredClone(action.set) as unknown as ReplicaSet
        this.sets.push({
          ...made,
          metadata: { ...made.metadata, uid, creationTimestamp: `2026-01-01T00:00:00.${uid}Z`, generation: 1 },
          status: { replicas: 0, observedGeneration: 1 },
        })
      }
    }
    const isNews = JSON.stringify(plan.status) !== JSON.stringify(this.deployment.status)
    this.deployment = { ...this.deployment, status: plan.status }
    return isNews || plan.actions.length > 0
  }

  /** The sets catch up with their sizes; `share` (0 to 1) of the pods that are not available come up. */
  settle(share: number): void {
    this.sets = this.sets.map((one) => {
      const replicas = one.spec.replicas ?? 0
      const available = Math.min(one.status.availableReplicas ?? 0, replicas)
      const up = available + Math.ceil((replicas - available) * share)
      return { ...one, status: { ...one.status, replicas, readyReplicas: up, availableReplicas: up } }
    })
  }

  get wanted(): number {
    return this.sets.reduce((sum, one) => sum + (one.spec.replicas ?? 0), 0)
  }

  /** Pods that will still be there and available once the sets have caught up. */
  get available(): number {
    return this.sets.reduce((sum, one) => sum + Math.min(one.status.availableReplicas ?? 0, one.spec.replicas ?? 0), 0)
  }
}

test('a rollout keeps its bounds whatever happens on the way, and comes to an end', (t) => {
  const size = fc.oneof(fc.nat(5), fc.constantFrom('0%', '10%', '25%', '100%'))
  const event = fc.oneof(
    fc.record({ do: fc.constant('settle' as const), share: fc.constantFrom(0, 0.3, 1) }),
    fc.record({ do: fc.constant('template' as const), version: fc.constantFrom('1', '2', '3') }),
    fc.record({ do: fc.constant('scale' as const), replicas: fc.nat(12) }),
  )
  const rollout = () =>
    fc.assert(
      fc.property(
        fc.nat(12),
        size,
        size,
        fc.array(event, { maxLength: 30 }),
        (replicas, surge, unavailable, events) => {
          const model = new Model(replicas, surge, unavailable)
          const check = (step: () => void): void => {
            const before = model.wanted
            const availableBefore = model.available
            // Growing or shrinking the whole takes and gives in proportion, whether pods work or not.
            const isScaled = isScaling(model.deployment, model.sets.map(setDraft))
            step()
            const { surge: over, unavailable: under } = limitsOf(model.deployment)
            const desired = model.deployment.spec.replicas ?? 0
            assert.ok(model.wanted <= Math.max(before, desired + over), `${model.wanted} wanted of ${desired}+${over}`)
            if (isScaled) return
            assert.ok(model.available >= Math.min(availableBefore, desired - under), `${model.available} left`)
          }
          for (const one of events) {
            if (one.do === 'settle') model.settle(one.share)
            else if (one.do === 'template') model.change({ template: template('web', one.version) })
            else model.change({ replicas: one.replicas })
            check(() => model.look())
          }
          let looks = 0
          for (let quiet = 0; quiet < 2 && looks < 100; looks++) {
            model.settle(1)
            let isNews = false
            check(() => {
              isNews = model.look()
            })
            quiet = isNews ? 0 : quiet + 1
          }
          assert.equal(model.wanted, model.deployment.spec.replicas ?? 0)
          assert.ok(looks < 100, 'it comes to an end')
          const fresh = model.sets.filter((one) => (one.spec.replicas ?? 0) > 0)
          assert.ok(fresh.length <= 1)
          for (const one of fresh)
            assert.ok(sameTemplate(one.spec.template, model.deployment.spec.template, [hashLabel]))
        },
      ),
      { numRuns: 300 },
    )
  t.notThrows(rollout)
})

for (const { name, run } of deploymentScenarios) {
  test(name, async (t) => {
    await t.notThrowsAsync(run(fakeFactory()))
  })
}
