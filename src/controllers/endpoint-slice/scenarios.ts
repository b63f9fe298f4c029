import { strict as assert } from 'node:assert'
import type { Pod, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpointSlices, endpoints, nodes, pods, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Draft } from '#client/client.ts'
import { endpointsController } from '../endpoints/endpoints.ts'
import { readyStatus, scenario, template, type World } from '../workload/scenario.ts'
import { endpointSliceController } from './endpoint-slice.ts'

const sliceLoop = { account: 'endpointslice-controller', create: endpointSliceController }
const endpointsLoop = { account: 'endpoint-controller', create: endpointsController }

const web = (extra: Partial<Service['spec']> = {}): Draft<Service> => ({
  metadata: { name: 'web', labels: { team: 'a' } },
  spec: { selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }], ...extra },
})

/** A pod as a node would have it: placed, running, with an address. */
async function serving(world: World, name: string, ip: string, isReady = true): Promise<Pod> {
  await world.client
    .create(nodes, {
      metadata: { name: 'node-1', labels: { 'topology.kubernetes.io/zone': 'z1' } },
      spec: { podCIDR: '10.244.1.0/24', podCIDRs: ['10.244.1.0/24'] },
    })
    .catch((error: unknown) => assert.ok(isStatus(error, 'AlreadyExists'), String(error)))
  await world.create(pods, {
    metadata: { name, labels: { app: 'web' } },
    spec: { ...template('web').spec, nodeName: 'node-1' },
  })
  const { phase, conditions = [] } = readyStatus(world.clock.now())
  const status = {
    phase,
    conditions: conditions.map((c) => ({ ...c, status: isReady ? 'True' : 'False' })),
    podIP: ip,
    podIPs: [{ ip }],
  }
  return world.patch(pods, name, { status }, 'status')
}

const slicesOf = async ({ list }: World): Promise<readonly EndpointSlice[]> =>
  (await list(endpointSlices)).filter((s) => s.addressType === 'IPv4')

const addresses = (slices: readonly EndpointSlice[]): string[] =>
  slices
    .flatMap((s) =>
      (s.endpoints ?? []).map((e) => `${e.addresses[0]}${e.conditions.ready === true ? '' : ' not ready'}`),
    )
    .toSorted()

const settled = (world: World, wanted: readonly string[]): Promise<readonly EndpointSlice[]> =>
  world.until(async () => {
    const slices = await slicesOf(world)
    assert.deepEqual(addresses(slices), wanted)
    return slices
  })

/** What a Service's slices and Endpoints do, seen through the API. */
export const endpointScenarios = [
  scenario(
    'a Service without pods has an empty slice and empty Endpoints',
    [sliceLoop, endpointsLoop],
    async (world) => {
      await world.create(services, web())
      const [slice] = await world.until(async () => {
        const slices = await slicesOf(world)
        assert.equal(slices.length, 1)
        return slices
      })
      assert.equal(slice?.metadata.labels?.['kubernetes.io/service-name'], 'web')
      assert.equal(
        slice?.metadata.labels?.['endpointslice.kubernetes.io/managed-by'],
        'endpointslice-controller.k8s.io',
      )
      assert.equal(slice?.metadata.labels?.team, 'a')
      assert.equal(slice?.metadata.ownerReferences?.[0]?.name, 'web')
      assert.equal((slice?.endpoints ?? []).length, 0)
      await world.until(async () => assert.equal(((await world.get(endpoints, 'web')).subsets ?? []).length, 0))
      await world.client.delete(services, { namespace: world.namespace, name: 'web' })
      await world.until(async () => assert.equal((await world.list(endpoints)).length, 0))
    },
  ),
  scenario('endpoints follow their pods from not ready to ready to gone', [sliceLoop, endpointsLoop], async (world) => {
    await world.create(services, web())
    await serving(world, 'a', '10.244.1.2', false)
    const [slice] = await settled(world, ['10.244.1.2 not ready'])
    assert.deepEqual(
      slice?.ports?.map(({ name, port, protocol }) => ({ name, port, protocol })),
      [{ name: 'http', port: 8080, protocol: 'TCP' }],
    )
    const [endpoint] = slice?.endpoints ?? []
    assert.equal(endpoint?.nodeName, 'node-1')
    assert.equal(endpoint?.zone, 'z1')
    assert.equal(endpoint?.targetRef?.name, 'a')
    const { conditions } = readyStatus(world.clock.now())
    await world.patch(pods, 'a', { status: { conditions } }, 'status')
    await serving(world, 'b', '10.244.1.3')
    const ready = await settled(world, ['10.244.1.2', '10.244.1.3'])
    assert.equal(ready.length, 1)
    await world.until(async () => {
      const [subset] = (await world.get(endpoints, 'web')).subsets ?? []
      assert.deepEqual(
        subset?.addresses?.map(({ ip }) => ip),
        ['10.244.1.2', '10.244.1.3'],
      )
    })
    await world.client.delete(pods, { namespace: world.namespace, name: 'a' }, { gracePeriodSeconds: 0 })
    await settled(world, ['10.244.1.3'])
  }),
  scenario('a pod on its way out still serves but takes nothing new', [sliceLoop, endpointsLoop], async (world) => {
    await world.create(services, web())
    await serving(world, 'a', '10.244.1.2')
    await settled(world, ['10.244.1.2'])
    await world.client.delete(pods, { namespace: world.namespace, name: 'a' }, { gracePeriodSeconds: 30 })
    const [slice] = await settled(world, ['10.244.1.2 not ready'])
    assert.deepEqual(slice?.endpoints?.[0]?.conditions, { ready: false, serving: true, terminating: true })
    await world.until(async () => assert.equal(((await world.get(endpoints, 'web')).subsets ?? []).length, 0))
  }),
  scenario(
    'what others do to a slice is undone, and a Service without selector is left alone',
    [sliceLoop, endpointsLoop],
    async (world) => {
      await world.create(services, web())
      await serving(world, 'a', '10.244.1.2')
      const [slice] = await settled(world, ['10.244.1.2'])
      assert.ok(slice)
      await world.patch(endpointSlices, slice.metadata.name, { endpoints: [] })
      await settled(world, ['10.244.1.2'])
      await world.create(services, { metadata: { name: 'custom' }, spec: { ports: [{ port: 80 }] } })
      await world.create(endpoints, { metadata: { name: 'custom' }, subsets: [{ addresses: [{ ip: '192.0.2.1' }] }] })
      await world.patch(services, 'custom', { metadata: { labels: { touched: 'yes' } } })
      await world.patch(endpointSlices, slice.metadata.name, { metadata: { finalizers: ['example.com/hold'] } })
      await world.client.delete(endpointSlices, slice.metadata)
      await world.until(async () => {
        const others = (await slicesOf(world)).filter((s) => s.metadata.name !== slice.metadata.name)
        assert.deepEqual(addresses(others), ['10.244.1.2'])
      })
      await world.patch(endpointSlices, slice.metadata.name, { metadata: { finalizers: null } })
      await settled(world, ['10.244.1.2'])
      assert.equal((await world.get(endpoints, 'custom')).subsets?.[0]?.addresses?.[0]?.ip, '192.0.2.1')
      assert.equal(
        (await world.list(endpointSlices)).filter((s) => s.metadata.labels?.['kubernetes.io/service-name'] === 'custom')
          .length,
        0,
      )
    },
  ),
]
