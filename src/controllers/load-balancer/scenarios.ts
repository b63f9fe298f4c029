import { strict as assert } from 'node:assert'
import type { ServicePort } from '#api/gen/core-v1.ts'
import { services } from '#api/gen/resources.ts'
import { type Loop, scenario } from '../workload/scenario.ts'
import { loadBalancerController } from './load-balancer.ts'
import { addressesOf, wantedAddressesAnnotation } from './plan.ts'

const controller: Loop = {
  account: 'service-controller',
  create: loadBalancerController(['192.0.2.1-192.0.2.3']),
}
const ports: ServicePort[] = [{ port: 80, protocol: 'TCP' }]

/** How LoadBalancer Services get addresses, seen through the API. */
export const loadBalancerScenarios = [
  scenario(
    'a LoadBalancer gets an address, keeps it, gives it back; what waits for it gets it then',
    [controller],
    async ({ client, create, get, patch, until, namespace }) => {
      const spec = { type: 'LoadBalancer', ports } as const
      for (const name of ['a', 'b', 'c']) await create(services, { metadata: { name }, spec })
      const given = await until(async () => {
        const all = await Promise.all(['a', 'b', 'c'].map((name) => get(services, name)))
        const addresses = all.flatMap(addressesOf)
        assert.equal(new Set(addresses).size, 3)
        return addresses
      })
      await create(services, { metadata: { name: 'late' }, spec })
      await create(services, {
        metadata: { name: 'greedy', annotations: { [wantedAddressesAnnotation]: given[0] ?? '' } },
        spec,
      })
      await create(services, { metadata: { name: 'foreign' }, spec: { ...spec, loadBalancerClass: 'example.com/lb' } })
      await patch(services, 'b', { metadata: { labels: { touched: 'yes' } } })
      await client.delete(services, { namespace, name: 'c' })
      await until(async () => assert.deepEqual(addressesOf(await get(services, 'late')), [given[2]]))
      assert.deepEqual(addressesOf(await get(services, 'b')), [given[1]])
      assert.deepEqual(addressesOf(await get(services, 'greedy')), [])
      assert.deepEqual(addressesOf(await get(services, 'foreign')), [])
      await client.delete(services, { namespace, name: 'a' })
      await until(async () => assert.deepEqual(addressesOf(await get(services, 'greedy')), [given[0]]))
      await patch(services, 'b', { spec: { type: 'ClusterIP', allocateLoadBalancerNodePorts: null } })
      await until(async () => assert.deepEqual(addressesOf(await get(services, 'b')), []))
    },
  ),
]
