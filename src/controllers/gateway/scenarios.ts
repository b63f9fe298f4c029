import { strict as assert } from 'node:assert'
import type { Service } from '#api/gen/core-v1.ts'
import { events, ingresses, roles, secrets, services } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { Draft } from '#client/client.ts'
import { controllerName } from '#gateway/gateways.ts'
import { type Gateway, gatewayClasses, gateways, httpRoutes, type RouteStatus } from '#gateway/objects.ts'
import { loadBalancerController } from '../load-balancer/load-balancer.ts'
import { type Loop, scenario } from '../workload/scenario.ts'
import { certificatesName } from './certificates.ts'
import { gatewayController } from './gateway.ts'

const loops: readonly Loop[] = [
  { account: 'gateway-controller', create: gatewayController },
  { account: 'service-controller', create: loadBalancerController(['192.0.2.1-192.0.2.9']) },
]

const listeners = [
  { name: 'http', port: 80, protocol: 'HTTP', hostname: '*.example.com' },
  { name: 'https', port: 443, protocol: 'HTTPS', tls: { certificateRefs: [{ name: 'ours' }] } },
]

/** Optional parts of custom resources are no partial objects to the type checker. */
const draft = <K extends KubeObject>(object: object): Draft<K> => object as Draft<K>

const told = (
  conditions: readonly { type: string; status: string; reason: string }[] | undefined,
  type: string,
): string => {
  const found = conditions?.find((c) => c.type === type)
  return `${found?.status} ${found?.reason}`
}

/** What Gateways and routes are told, and what is made for them, seen through the API. */
export const gatewayScenarios = [
  scenario(
    'a Gateway gets a Service with an address, routes their say, nodes the right to its certificates; all of it goes with it',
    loops,
    async ({ client, create, get, patch, until, namespace }) => {
      await until(async () => {
        const weft = await client.get(gatewayClasses, { name: 'weft' })
        assert.equal(told(weft.status?.conditions, 'Accepted'), 'True Accepted')
        assert.ok(weft.status?.supportedFeatures?.some(({ name }) => name === 'HTTPRoute'))
      })
      await create<Gateway>(
        gateways,
        draft({
          metadata: { name: 'edge' },
          spec: { gatewayClassName: 'weft', listeners, infrastructure: { labels: { team: 'a' } } },
        }),
      )
      await create(services, { metadata: { name: 'web' }, spec: { ports: [{ port: 80, protocol: 'TCP' }] } })
      const parentRefs = [{ name: 'edge' }]
      const rules = [{ backendRefs: [{ name: 'web', port: 80 }] }]
      await create(
        httpRoutes,
        draft({ metadata: { name: 'good' }, spec: { parentRefs, hostnames: ['a.example.com'], rules } }),
      )
      await create(
        httpRoutes,
        draft({ metadata: { name: 'lost' }, spec: { parentRefs: [{ name: 'edge', sectionName: 'no' }], rules } }),
      )
      const service = await until(async () => {
        const found = await get<Service>(services, 'weft-gateway-edge')
        assert.match(found.status.loadBalancer?.ingress?.[0]?.ip ?? '', /^192\.0\.2\./)
        return found
      })
      assert.equal(service.metadata.labels?.team, 'a')
      assert.deepEqual(
        service.spec.ports?.map(({ port }) => port),
        [80, 443],
      )
      await until(async () => {
        const { status, metadata } = await get(gateways, 'edge')
        assert.equal(status?.addresses?.[0]?.value, service.status.loadBalancer?.ingress?.[0]?.ip)
        assert.equal(told(status?.conditions, 'Accepted'), 'True Accepted')
        assert.ok(status?.conditions?.every(({ observedGeneration }) => observedGeneration === metadata.generation))
        assert.deepEqual(
          status?.listeners?.map(({ attachedRoutes }) => attachedRoutes),
          [1, 1],
        )
        assert.equal(told(status?.listeners?.[1]?.conditions, 'ResolvedRefs'), 'False InvalidCertificateRef')
      })
      const parents = async (name: string): Promise<NonNullable<RouteStatus['parents']>> =>
        (await get(httpRoutes, name)).status?.parents ?? []
      await until(async () => assert.equal(told((await parents('good'))[0]?.conditions, 'Accepted'), 'True Accepted'))
      await until(async () =>
        assert.equal(told((await parents('lost'))[0]?.conditions, 'Accepted'), 'False NoMatchingParent'),
      )
      // What another controller says of the same route stays.
      const lastTransitionTime = '2026-01-01T00:00:00Z'
      const conditions = [{ type: 'Accepted', status: 'True', reason: 'Accepted', message: '', lastTransitionTime }]
      const foreign = { parentRef: { name: 'edge' }, controllerName: 'example.com/other', conditions }
      await patch(httpRoutes, 'good', { status: { parents: [...(await parents('good')), foreign] } }, 'status')
      await patch(services as Resource, 'web', { spec: { ports: [{ port: 81, protocol: 'TCP' }] } })
      await until(async () => {
        const now = await parents('good')
        assert.equal(
          told(now.find((p) => p.controllerName === controllerName)?.conditions, 'ResolvedRefs'),
          'False BackendNotFound',
        )
        assert.ok(now.some((p) => p.controllerName === 'example.com/other'))
      })
      await create(secrets, { metadata: { name: 'ours' }, type: 'Opaque' })
      await until(async () => {
        const [rule] = (await get(roles, certificatesName)).rules ?? []
        assert.deepEqual(rule?.resourceNames, ['ours'])
      })
      await client.delete(gateways, { namespace, name: 'edge' })
      await until(async () => {
        assert.deepEqual(
          (await parents('lost')).filter((p) => p.controllerName === controllerName),
          [],
        )
        await assert.rejects(get(roles, certificatesName))
      })
    },
  ),
  scenario(
    'an Ingress of our class gets the address that all of them share; the last one takes the Service with it',
    loops,
    async ({ client, create, get, until, namespace }) => {
      const service = { namespace: 'kube-system', name: 'weft-ingress' }
      const spec = { defaultBackend: { service: { name: 'web', port: { number: 80 } } } }
      await create(ingresses, { metadata: { name: 'ours' }, spec: { ...spec, ingressClassName: 'weft' } })
      await create(ingresses, { metadata: { name: 'theirs' }, spec: { ...spec, ingressClassName: 'other' } })
      await until(async () => {
        const { status } = await get(ingresses, 'ours')
        const shared = await client.get(services, service)
        assert.ok(status.loadBalancer?.ingress?.[0]?.ip)
        assert.equal(status.loadBalancer?.ingress?.[0]?.ip, shared.status.loadBalancer?.ingress?.[0]?.ip)
      })
      assert.equal((await get(ingresses, 'theirs')).status?.loadBalancer?.ingress, undefined)
      await until(async () => {
        const { items } = await client.list(events, { namespace })
        const said = items.filter((e) => e.involvedObject.name === 'ours').map(({ reason }) => reason)
        assert.deepEqual(said, ['BackendNotFound'])
      })
      await client.delete(ingresses, { namespace, name: 'ours' })
      await until(async () => assert.rejects(client.get(services, service)))
    },
  ),
]
