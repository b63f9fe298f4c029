import { strict as assert } from 'node:assert'
import type { ReplicaSet } from '#api/gen/apps-v1.ts'
import type { ConfigMap } from '#api/gen/core-v1.ts'
import type { OwnerReference } from '#api/gen/meta-v1.ts'
import { configMaps, events, replicaSets } from '#api/gen/resources.ts'
import { ownerReference } from '#api/meta/owner.ts'
import { isStatus } from '#api/meta/status.ts'
import { type Loop, scenario, template, type World } from '../workload/scenario.ts'
import { garbageCollector } from './garbage-collector.ts'

const collector: Loop = { account: 'generic-garbage-collector', create: garbageCollector }

const map = (name: string, owners: readonly OwnerReference[] = []) => ({
  metadata: { name, ...(owners.length > 0 ? { ownerReferences: [...owners] } : {}) },
})

const ref = (owner: ConfigMap, blockOwnerDeletion = false): OwnerReference => ({
  ...ownerReference(configMaps, owner),
  ...(blockOwnerDeletion ? { blockOwnerDeletion } : {}),
})

const names = async ({ list }: World): Promise<string[]> =>
  (await list(configMaps))
    .map((m) => m.metadata.name)
    .filter((name) => name !== 'kube-root-ca.crt')
    .toSorted()

const until = (world: World, expected: string[]) =>
  world.until(async () => {
    world.clock.advance(50)
    assert.deepEqual(await names(world), expected)
  })

/** What becomes of objects whose owners go, seen through the API. ConfigMaps, because nobody else looks after them. */
export const garbageCollectorScenarios = [
  scenario('what belonged to an object goes after it, down to the last', [collector], async (world) => {
    const owner = await world.create(configMaps, map('owner'))
    const child = await world.create(configMaps, map('child', [ref(owner)]))
    await world.create(configMaps, map('grandchild', [ref(child)]))
    await world.create(configMaps, map('stranger'))
    await world.client.delete(configMaps, owner.metadata, { propagationPolicy: 'Background' })
    await until(world, ['stranger'])
  }),
  scenario(
    'an object with another owner stays, and loses the reference to the one that went',
    [collector],
    async (world) => {
      const one = await world.create(configMaps, map('one'))
      const two = await world.create(configMaps, map('two'))
      await world.create(configMaps, map('shared', [ref(one), ref(two)]))
      await world.client.delete(configMaps, one.metadata, { propagationPolicy: 'Background' })
      await world.until(async () => {
        world.clock.advance(50)
        const { ownerReferences = [] } = (await world.get(configMaps, 'shared')).metadata
        assert.deepEqual(
          ownerReferences.map((o) => o.name),
          ['two'],
        )
      })
    },
  ),
  scenario('a deletion in the foreground waits for those that block it', [collector], async (world) => {
    const owner = await world.create(configMaps, map('owner'))
    const held = map('held', [ref(owner, true)])
    await world.create(configMaps, { metadata: { ...held.metadata, finalizers: ['example.com/hold'] } })
    await world.create(configMaps, map('free', [ref(owner)]))
    await world.client.delete(configMaps, owner.metadata, { propagationPolicy: 'Foreground' })
    await until(world, ['held', 'owner'])
    assert.ok((await world.get(configMaps, 'owner')).metadata.deletionTimestamp)
    assert.ok((await world.get(configMaps, 'held')).metadata.deletionTimestamp)
    await world.patch(configMaps, 'held', { metadata: { finalizers: null } })
    await until(world, [])
  }),
  scenario('two that own each other do not wait for each other for ever', [collector], async (world) => {
    const one = await world.create(configMaps, map('one'))
    const two = await world.create(configMaps, map('two', [ref(one, true)]))
    await world.patch(configMaps, 'one', { metadata: { ownerReferences: [ref(two, true)] } })
    await world.client.delete(configMaps, one.metadata, { propagationPolicy: 'Foreground' })
    await until(world, [])
  }),
  scenario('dependents that are orphaned stay, without their owner', [collector], async (world) => {
    const owner: ReplicaSet = await world.create(replicaSets, {
      metadata: { name: 'owner' },
      spec: { replicas: 0, selector: { matchLabels: { app: 'x' } }, template: template('x') },
    })
    await world.create(configMaps, map('child', [ownerReference(replicaSets, owner)]))
    await world.client.delete(replicaSets, owner.metadata, { propagationPolicy: 'Orphan' })
    await world.until(async () => {
      world.clock.advance(50)
      await assert.rejects(world.get(replicaSets, 'owner'), (error) => isStatus(error, 'NotFound'))
      assert.equal((await world.get(configMaps, 'child')).metadata.ownerReferences, undefined)
    })
  }),
  scenario('an owner that never was, or is in another namespace, is no owner', [collector], async (world) => {
    const stranger = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      name: 'nobody',
      uid: 'b7a3c1de-0000-4000-8000-000000000000',
    }
    const elsewhere = await world.client.create<ConfigMap>(configMaps, {
      metadata: { namespace: 'default', name: `${world.namespace}-owner` },
    })
    try {
      await world.create(configMaps, map('of-nobody', [stranger]))
      await world.create(configMaps, map('of-elsewhere', [ref(elsewhere)]))
      await until(world, [])
      await world.until(async () => {
        const said = (await world.list(events)).filter((e) => e.reason === 'OwnerRefInvalidNamespace')
        assert.equal(said[0]?.involvedObject.name, 'of-elsewhere')
      })
    } finally {
      await world.client.delete(configMaps, elsewhere.metadata)
    }
  }),
]
