import { strict as assert } from 'node:assert'
import type { Deployment, ReplicaSet } from '#api/gen/apps-v1.ts'
import { deployments, events, pods, replicaSets } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import type { Draft } from '#client/client.ts'
import { replicaSetController } from '../replica-set/replica-set.ts'
import { readyPods, scenario, template, type World } from '../workload/scenario.ts'
import { deploymentController } from './deployment.ts'

const deploymentLoop = { account: 'deployment-controller', create: deploymentController }
const replicaSetLoop = { account: 'replicaset-controller', create: replicaSetController }

const web = (replicas: number, extra: Partial<Deployment['spec']> = {}): Draft<Deployment> => ({
  metadata: { name: 'web' },
  spec: {
    replicas,
    selector: { matchLabels: { app: 'web' } },
    template: template('web'),
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' } },
    revisionHistoryLimit: 10,
    progressDeadlineSeconds: 600,
    ...extra,
  },
})

const loops = [deploymentLoop, replicaSetLoop]
const isGood = ({ spec }: { spec: { containers: { image?: string }[] } }) =>
  spec.containers[0]?.image !== 'example.com/app:bad'

const setOf = async ({ list }: World, version: string): Promise<ReplicaSet | undefined> =>
  (await list(replicaSets)).find((s) => s.spec.template.spec.containers[0]?.image === `example.com/app:${version}`)

const setVersion = ({ patch }: World, version: string): Promise<Deployment> =>
  patch(deployments, 'web', { spec: { template: template('web', version) } })

const done = (world: World, replicas: number, version: string): Promise<Deployment> =>
  world.until(async () => {
    const deployment = await world.get(deployments, 'web')
    const { status, metadata } = deployment
    assert.equal(status.observedGeneration, metadata.generation)
    assert.equal(status.updatedReplicas, replicas)
    assert.equal(status.replicas, replicas)
    assert.equal(status.availableReplicas, replicas)
    assert.equal(status.unavailableReplicas ?? 0, 0)
    assert.equal(findCondition(status.conditions, 'Progressing')?.reason, 'NewReplicaSetAvailable')
    assert.equal(findCondition(status.conditions, 'Available')?.reason, 'MinimumReplicasAvailable')
    assert.equal((await setOf(world, version))?.spec.replicas, replicas)
    return deployment
  })

const revision = (object: { metadata: { annotations?: Record<string, string> } } | undefined): string | undefined =>
  object?.metadata.annotations?.['deployment.kubernetes.io/revision']

/** What a Deployment does, seen through the API. */
export const deploymentScenarios = [
  scenario('a Deployment rolls out, rolls over to a new template and back', [...loops, readyPods()], async (world) => {
    await world.create(deployments, web(4))
    const first = await done(world, 4, '1')
    assert.equal(revision(first), '1')
    const set1 = await setOf(world, '1')
    const hash = set1?.metadata.labels?.['pod-template-hash']
    assert.ok(hash)
    assert.equal(set1?.metadata.name, `web-${hash}`)
    assert.equal(set1?.spec.selector.matchLabels?.['pod-template-hash'], hash)
    assert.equal(set1?.metadata.annotations?.['deployment.kubernetes.io/desired-replicas'], '4')
    assert.equal(set1?.metadata.annotations?.['deployment.kubernetes.io/max-replicas'], '5')

    await setVersion(world, '2')
    assert.equal(revision(await done(world, 4, '2')), '2')
    assert.equal((await setOf(world, '1'))?.spec.replicas, 0)
    const running = (await world.list(pods)).filter((p) => p.metadata.deletionTimestamp === undefined)
    assert.deepEqual(new Set(running.map((p) => p.spec.containers[0]?.image)), new Set(['example.com/app:2']))

    // As kubectl rollout undo does: the old template, in the words of a Go client.
    const old = await setOf(world, '1')
    assert.ok(old)
    const labels = { ...old.spec.template.metadata.labels }
    delete labels['pod-template-hash']
    const spelt = { ...old.spec.template, metadata: { creationTimestamp: null, labels } }
    await world.client.patch(deployments, { namespace: world.namespace, name: 'web' }, 'json', [
      { op: 'replace', path: '/spec/template', value: spelt },
    ])
    assert.equal(revision(await done(world, 4, '1')), '3')
    const back = await setOf(world, '1')
    assert.equal(back?.metadata.uid, set1?.metadata.uid)
    assert.equal(revision(back), '3')
    assert.equal(back?.metadata.annotations?.['deployment.kubernetes.io/revision-history'], '1')
    await world.until(async () => {
      const texts = (await world.list(events)).filter((e) => e.reason === 'ScalingReplicaSet').map((e) => e.message)
      assert.ok(texts.includes(`Scaled up replica set web-${hash} from 0 to 4`), texts.join('\n'))
    })
  }),
  scenario(
    'a rollout never has too many pods, nor too few that are available',
    [...loops, readyPods()],
    async (world) => {
      await world.create(
        deployments,
        web(6, { strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 2, maxUnavailable: 1 } } }),
      )
      await done(world, 6, '1')
      await setVersion(world, '2')
      let finished = false
      const watched = (async () => {
        while (!finished) {
          const sets = await world.list(replicaSets)
          const wanted = sets.reduce((sum, s) => sum + (s.spec.replicas ?? 0), 0)
          assert.ok(wanted <= 8, `${wanted} pods wanted`)
          const ready = (await world.list(pods)).filter(
            (p) => p.status.phase === 'Running' && !p.metadata.deletionTimestamp,
          )
          assert.ok(ready.length >= 5, `${ready.length} pods ready`)
          await new Promise((resolve) => setImmediate(resolve))
        }
      })()
      await done(world, 6, '2').finally(() => {
        finished = true
      })
      await watched
    },
  ),
  scenario(
    'a rollout that gets nowhere is late, keeps serving, and can be replaced',
    [...loops, readyPods(isGood)],
    async (world) => {
      await world.create(deployments, web(4, { progressDeadlineSeconds: 60 }))
      await done(world, 4, '1')
      await setVersion(world, 'bad')
      await world.until(async () => {
        assert.equal((await setOf(world, 'bad'))?.status.replicas, 2)
        assert.equal((await setOf(world, '1'))?.status.availableReplicas, 3)
      })
      await world.until(async () => {
        world.clock.advance(10_000)
        const progressing = findCondition((await world.get(deployments, 'web')).status.conditions, 'Progressing')
        assert.equal(progressing?.reason, 'ProgressDeadlineExceeded')
        assert.equal(progressing?.status, 'False')
        assert.match(progressing?.message ?? '', /^ReplicaSet "web-[a-z0-9]+" has timed out progressing\.$/)
      })
      await setVersion(world, '3')
      await done(world, 4, '3')
    },
  ),
  scenario(
    'a Deployment scaled in the middle of a rollout shares in proportion',
    [...loops, readyPods(isGood)],
    async (world) => {
      const strategy = { type: 'RollingUpdate', rollingUpdate: { maxSurge: 3, maxUnavailable: 2 } } as const
      await world.create(deployments, web(10, { strategy }))
      await done(world, 10, '1')
      await setVersion(world, 'bad')
      await world.until(async () => {
        assert.equal((await setOf(world, '1'))?.spec.replicas, 8)
        assert.equal((await setOf(world, 'bad'))?.spec.replicas, 5)
      })
      await world.patch(deployments, 'web', { spec: { replicas: 30 } })
      await world.until(async () => {
        assert.equal((await setOf(world, '1'))?.spec.replicas, 20)
        assert.equal((await setOf(world, 'bad'))?.spec.replicas, 13)
      })
    },
  ),
  scenario('Recreate ends the old pods before it makes new ones', [...loops, readyPods()], async (world) => {
    await world.create(deployments, web(3, { strategy: { type: 'Recreate' } }))
    await done(world, 3, '1')
    const [held] = await world.list(pods)
    assert.ok(held)
    await world.patch(pods, held.metadata.name, { metadata: { finalizers: ['example.com/hold'] } })
    await setVersion(world, '2')
    await world.until(async () => assert.equal((await world.list(pods)).length, 1))
    assert.equal(await setOf(world, '2'), undefined)
    await world.patch(pods, held.metadata.name, { metadata: { finalizers: null } })
    await done(world, 3, '2')
  }),
  scenario('a paused Deployment scales but does not roll out', [...loops, readyPods()], async (world) => {
    await world.create(deployments, web(2))
    await done(world, 2, '1')
    await world.patch(deployments, 'web', { spec: { paused: true, template: template('web', '2'), replicas: 3 } })
    await world.until(async () => {
      const { status } = await world.get(deployments, 'web')
      assert.equal(findCondition(status.conditions, 'Progressing')?.reason, 'DeploymentPaused')
      assert.equal(status.availableReplicas, 3)
    })
    assert.equal(await setOf(world, '2'), undefined)
    await world.patch(deployments, 'web', { spec: { paused: false } })
    await done(world, 3, '2')
  }),
  scenario('old ReplicaSets beyond the history limit go', [...loops, readyPods()], async (world) => {
    await world.create(deployments, web(1, { revisionHistoryLimit: 1 }))
    await done(world, 1, '1')
    for (const version of ['2', '3', '4']) {
      await setVersion(world, version)
      await done(world, 1, version)
    }
    await world.until(async () => {
      const left = (await world.list(replicaSets)).map((s) => s.spec.template.spec.containers[0]?.image)
      assert.deepEqual(left.toSorted(), ['example.com/app:3', 'example.com/app:4'])
    })
  }),
]
