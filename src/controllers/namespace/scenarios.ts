import { strict as assert } from 'node:assert'
import { configMaps, namespaces, pods } from '#api/gen/resources.ts'
import { findCondition } from '#api/meta/conditions.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client } from '#client/client.ts'
import { type Loop, scenario, template } from '../workload/scenario.ts'
import { namespaceController } from './namespace.ts'

const controller: Loop = { account: 'namespace-controller', create: namespaceController }

const isGone = async (client: Client, name: string): Promise<boolean> => {
  try {
    await client.get(namespaces, { name })
    return false
  } catch (error) {
    if (isStatus(error, 'NotFound')) return true
    throw error
  }
}

/** What becomes of a namespace that is deleted, seen through the API. */
export const namespaceScenarios = [
  scenario('a deleted namespace is emptied and goes', [controller], async (world) => {
    const { client, namespace, until } = world
    await world.create(configMaps, { metadata: { name: 'm' } })
    await world.create(pods, { metadata: { name: 'p' }, spec: template('p').spec })
    await client.delete(namespaces, { name: namespace })
    await until(async () => assert.ok(await isGone(client, namespace)))
    assert.deepEqual((await client.list(configMaps, { namespace })).items, [])
  }),
  scenario(
    'pods go before what they use, and a finalizer holds the namespace and is named',
    [controller],
    async (world) => {
      const { client, namespace, until, clock } = world
      await world.create(configMaps, { metadata: { name: 'used' } })
      await world.create(pods, {
        metadata: { name: 'held', finalizers: ['example.com/hold'] },
        spec: template('p').spec,
      })
      await client.delete(namespaces, { name: namespace })
      await until(async () => {
        const { status } = await client.get(namespaces, { name: namespace })
        assert.equal(status.phase, 'Terminating')
        const remaining = findCondition(status.conditions, 'NamespaceContentRemaining')
        assert.equal(remaining?.message, 'Some resources are remaining: pods. has 1 resource instances')
        const held = findCondition(status.conditions, 'NamespaceFinalizersRemaining')
        assert.match(held?.message ?? '', /example\.com\/hold in 1 resource instances/)
      })
      assert.ok(await client.get(configMaps, { namespace, name: 'used' }))
      await world.patch(pods, 'held', { metadata: { finalizers: null } })
      await until(async () => {
        clock.advance(1_000)
        assert.ok(await isGone(client, namespace))
      })
    },
  ),
]
