import { strict as assert } from 'node:assert'
import { endpointSlices, endpoints, services } from '#api/gen/resources.ts'
import { scenario, type World } from '../workload/scenario.ts'
import { endpointSliceMirrorController } from './endpoint-slice-mirror.ts'

const mirror = { account: 'endpointslicemirroring-controller', create: endpointSliceMirrorController }

const settled = (world: World, wanted: readonly string[]): Promise<void> =>
  world.until(async () => {
    const found = (await world.list(endpointSlices)).flatMap((slice) =>
      (slice.endpoints ?? []).map(
        (e) => `${slice.addressType} ${e.addresses[0]}:${slice.ports?.[0]?.port} ${e.conditions.ready}`,
      ),
    )
    assert.deepEqual(found.toSorted(), wanted)
  })

/** Endpoints kept by hand, seen through the API. */
export const endpointSliceMirrorScenarios = [
  scenario(
    'Endpoints kept by hand are mirrored into slices, until they go or the Service selects pods',
    [mirror],
    async (world) => {
      const ports = [{ port: 9000, protocol: 'TCP' as const }]
      await world.create(services, { metadata: { name: 'outside' }, spec: { ports: [{ port: 80, targetPort: 9000 }] } })
      await world.create(endpoints, {
        metadata: { name: 'outside', labels: { team: 'a' } },
        subsets: [{ addresses: [{ ip: '192.0.2.1' }], notReadyAddresses: [{ ip: '2001:db8::1' }], ports }],
      })
      await settled(world, ['IPv4 192.0.2.1:9000 true', 'IPv6 2001:db8::1:9000 false'])
      const [slice] = await world.list(endpointSlices)
      assert.equal(slice?.metadata.labels?.['kubernetes.io/service-name'], 'outside')
      assert.equal(
        slice?.metadata.labels?.['endpointslice.kubernetes.io/managed-by'],
        'endpointslicemirroring-controller.k8s.io',
      )
      assert.equal(slice?.metadata.labels?.team, 'a')
      await world.patch(endpoints, 'outside', {
        subsets: [{ addresses: [{ ip: '192.0.2.1' }, { ip: '192.0.2.2' }], ports }],
      })
      await settled(world, ['IPv4 192.0.2.1:9000 true', 'IPv4 192.0.2.2:9000 true'])
      await world.patch(services, 'outside', { spec: { selector: { app: 'web' } } })
      await settled(world, [])
      await world.patch(services, 'outside', { spec: { selector: null } })
      await settled(world, ['IPv4 192.0.2.1:9000 true', 'IPv4 192.0.2.2:9000 true'])
      await world.client.delete(endpoints, { namespace: world.namespace, name: 'outside' })
      await settled(world, [])
    },
  ),
]
