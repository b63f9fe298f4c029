import { strict as assert } from 'node:assert'
import { nodes } from '#api/gen/resources.ts'
import { type Loop, scenario } from '../workload/scenario.ts'
import { nodeIpamController } from './node-ipam.ts'
import { parseNodeRange } from './plan.ts'

/** Ranges that no other scenario and no real node of the same server uses. */
const ranges = [parseNodeRange('10.99.0.0/16', 24), parseNodeRange('fd00:10:99::/56', 64)]
const controller: Loop = { account: 'node-controller', create: nodeIpamController(ranges) }

/** What nodes are given, seen through the API. */
export const nodeIpamScenarios = [
  scenario(
    'each node gets its own networks, in both families, and keeps them',
    [controller],
    async ({ client, namespace, until }) => {
      const names = Array.from({ length: 5 }, (_, i) => `${namespace}-${i}`)
      try {
        await Promise.all(names.map((name) => client.create(nodes, { metadata: { name } })))
        const given = await until(async () => {
          const all = await Promise.all(names.map((name) => client.get(nodes, { name })))
          for (const { spec } of all) assert.equal(spec.podCIDRs?.length, 2)
          return all.map(({ spec }) => spec.podCIDRs ?? [])
        })
        assert.equal(new Set(given.flat()).size, 10)
        for (const [v4 = '', v6 = ''] of given) {
          assert.match(v4, /^10\.99\.\d+\.0\/24$/)
          assert.match(v6, /^fd00:10:99:.*\/64$/)
        }
        await client.patch(nodes, { name: names[0] ?? '' }, 'merge', { metadata: { labels: { a: 'b' } } })
        const [again] = await Promise.all([client.get(nodes, { name: names[0] ?? '' })])
        assert.deepEqual(again?.spec.podCIDRs, given[0])
      } finally {
        for (const name of names) await client.delete(nodes, { name })
      }
    },
  ),
]
