import { strict as assert } from 'node:assert'
import { nodes, pods } from '#api/gen/resources.ts'
import { type Loop, scenario, template } from '../workload/scenario.ts'
import { podGcController } from './pod-gc.ts'

const controller: Loop = { account: 'pod-garbage-collector', create: podGcController() }

/** What happens to pods that nobody comes for, seen through the API. */
export const podGcScenarios = [
  scenario(
    'a pod of a node that is gone is deleted once the node has been missing for a while',
    [controller],
    async (world) => {
      const { client, namespace, clock, until } = world
      const name = `${namespace}-node`
      await client.create(nodes, {
        metadata: { name },
        spec: { podCIDR: '10.252.0.0/24', podCIDRs: ['10.252.0.0/24'] },
      })
      const { spec } = template('p')
      await world.create(pods, { metadata: { name: 'orphan' }, spec: { ...spec, nodeName: name } })
      await world.create(pods, { metadata: { name: 'waiting' }, spec })
      await client.delete(nodes, { name })
      const began = clock.now()
      await until(async () => {
        clock.advance(5_000)
        assert.deepEqual(
          (await world.list(pods)).map((p) => p.metadata.name),
          ['waiting'],
        )
      })
      assert.ok(clock.now() - began >= 40_000)
    },
  ),
]
