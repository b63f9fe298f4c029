import { strict as assert } from 'node:assert'
import type { ReplicaSet } from '#api/gen/apps-v1.ts'
import { events, pods, replicaSets } from '#api/gen/resources.ts'
import { controllerOf } from '#api/meta/owner.ts'
import type { Draft } from '#client/client.ts'
import { readyPods, scenario, template, type World } from '../workload/scenario.ts'
import { replicaSetController } from './replica-set.ts'

const replicaSetLoop = { account: 'replicaset-controller', create: replicaSetController }

const set = (replicas: number, extra: Partial<ReplicaSet['spec']> = {}): Draft<ReplicaSet> => ({
  metadata: { name: 'web' },
  spec: { replicas, selector: { matchLabels: { app: 'web' } }, template: template('web'), ...extra },
})

const alive = async ({ list }: World) => (await list(pods)).filter((p) => p.metadata.deletionTimestamp === undefined)

/** What a ReplicaSet does, seen through the API. */
export const replicaSetScenarios = [
  scenario('a ReplicaSet makes its pods, once', [replicaSetLoop, readyPods()], async (world) => {
    await world.create(replicaSets, set(5))
    await world.until(async () => {
      const { status } = await world.get(replicaSets, 'web')
      assert.equal(status.replicas, 5)
      assert.equal(status.fullyLabeledReplicas, 5)
      assert.equal(status.readyReplicas, 5)
      assert.equal(status.availableReplicas, 5)
      assert.equal(status.observedGeneration, 1)
    })
    const made = await alive(world)
    assert.equal(made.length, 5)
    for (const pod of made) {
      assert.match(pod.metadata.name, /^web-/)
      assert.equal(controllerOf(pod)?.name, 'web')
    }
    await world.until(async () => {
      const notes = (await world.list(events)).filter((e) => e.reason === 'SuccessfulCreate')
      assert.equal(notes.length, 5)
      assert.match(notes[0]?.message ?? '', /^Created pod: web-/)
    })
  }),
  scenario('a ReplicaSet is scaled down and up again', [replicaSetLoop, readyPods()], async (world) => {
    await world.create(replicaSets, set(4))
    await world.until(async () => assert.equal((await world.get(replicaSets, 'web')).status.readyReplicas, 4))
    await world.patch(replicaSets, 'web', { spec: { replicas: 1 } })
    await world.until(async () => {
      assert.equal((await alive(world)).length, 1)
      assert.equal((await world.get(replicaSets, 'web')).status.replicas, 1)
    })
    await world.patch(replicaSets, 'web', { spec: { replicas: 3 } })
    await world.until(async () => assert.equal((await world.get(replicaSets, 'web')).status.availableReplicas, 3))
    assert.equal((await alive(world)).length, 3)
  }),
  scenario('a pod that is deleted or has ended is replaced', [replicaSetLoop], async (world) => {
    await world.create(replicaSets, set(2))
    const [first, second] = await world.until(async () => {
      const made = await alive(world)
      assert.equal(made.length, 2)
      return made
    })
    assert.ok(first && second)
    await world.client.delete(pods, first.metadata)
    await world.patch(pods, second.metadata.name, { status: { phase: 'Failed' } }, 'status')
    await world.until(async () => {
      const active = (await alive(world)).filter((p) => p.status.phase !== 'Failed')
      assert.equal(active.length, 2)
      assert.equal((await world.get(replicaSets, 'web')).status.replicas, 2)
    })
  }),
  scenario('a ReplicaSet adopts what matches and releases what no longer does', [replicaSetLoop], async (world) => {
    await world.create(pods, { metadata: { name: 'stray', labels: { app: 'web' } }, spec: template('web').spec })
    await world.create(replicaSets, set(1))
    await world.until(async () => assert.equal(controllerOf(await world.get(pods, 'stray'))?.name, 'web'))
    assert.equal((await alive(world)).length, 1)
    await world.patch(pods, 'stray', { metadata: { labels: { app: 'other' } } })
    await world.until(async () => {
      assert.equal(controllerOf(await world.get(pods, 'stray')), undefined)
      assert.equal((await alive(world)).length, 2)
    })
  }),
  scenario(
    'a pod counts as available when it was ready for minReadySeconds',
    [replicaSetLoop, readyPods()],
    async (world) => {
      await world.create(replicaSets, set(1, { minReadySeconds: 30 }))
      await world.until(async () => assert.equal((await world.get(replicaSets, 'web')).status.readyReplicas, 1))
      assert.equal((await world.get(replicaSets, 'web')).status.availableReplicas ?? 0, 0)
      await world.until(async () => {
        world.clock.advance(5_000)
        assert.equal((await world.get(replicaSets, 'web')).status.availableReplicas, 1)
      })
    },
  ),
]
