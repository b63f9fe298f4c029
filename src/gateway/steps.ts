import fc from 'fast-check'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { ingressController } from './ingress.ts'
import type { GatewayModel } from './model.ts'
import type { HttpRoute } from './objects.ts'
import type { World } from './trial.ts'

/** For tests only: one change of the world, and the touch that its informer would make (src/agent/gateway/reflect.ts). */
export type Change = (world: World, model: GatewayModel) => void

/** A route of the namespace `shop`, as whoever touches it says it. */
export const named = (kind: 'HTTPRoute' | 'GRPCRoute', name: string) => ({
  kind,
  metadata: { namespace: 'shop', name } as HttpRoute['metadata'],
})
const index = fc.nat({ max: 2 })
const hosts = fc.constantFrom(undefined, ['a.com'], ['*.a.com', 'b.com'])
/** Routes, Gateways, Services and what they refer to come, change and go. `pair`: what a Secret holds of a certificate. */
export const changeArb = (pair: Readonly<Record<string, string>>): fc.Arbitrary<Change> =>
  fc.oneof(
    fc.tuple(index, fc.option(hosts, { nil: null }), index, fc.boolean()).map(([i, hostnames, s, grpc]): Change => {
      const kind = grpc ? 'GRPCRoute' : 'HTTPRoute'
      return (world, model) => {
        const spec = {
          parentRefs: [{ name: 'edge' }, { name: `g${s}` }, { name: 'g0', sectionName: 'https' }],
          ...(hostnames ? { hostnames } : {}),
          rules: [
            {
              backendRefs: [
                { name: `s${s}`, port: 80 },
                { name: 'far', namespace: 'other', port: 80 },
              ],
            },
          ],
        }
        if (hostnames === null) world.remove(kind, `shop/r${i}`)
        else world.put(kind, `shop/r${i}`, { spec })
        model.touchRoute(named(kind, `r${i}`))
      }
    }),
    fc
      .tuple(index, fc.boolean(), fc.constantFrom('Same', 'All', 'Selector'), hosts)
      .map(([i, gone, from, hostnames]): Change => {
        return (world, model) => {
          const allowedRoutes = { namespaces: { from, selector: { matchLabels: { team: 'x' } } } }
          const listeners = [
            {
              name: 'http',
              port: 80,
              protocol: 'HTTP',
              allowedRoutes,
              ...(hostnames ? { hostname: hostnames[0] } : {}),
            },
            { name: 'https', port: 443, protocol: 'HTTPS', tls: { certificateRefs: [{ name: 'c' }] } },
          ]
          if (gone) world.remove('Gateway', `shop/g${i}`)
          else world.put('Gateway', `shop/g${i}`, { spec: { gatewayClassName: 'weft', listeners } })
          model.touchGateway(`shop/g${i}`)
        }
      }),
    fc
      .tuple(fc.constantFrom('shop/s0', 'shop/s1', 'other/far'), fc.option(fc.constantFrom('a', 'b')))
      .map(([key, port]): Change => {
        return (world, model) => {
          if (port === null) world.remove('Service', key)
          else world.put('Service', key, { spec: { ports: [{ name: port, port: 80 }] } })
          model.touchService(key)
        }
      }),
    fc
      .tuple(fc.constantFrom('s0', 's1', 'far'), fc.constantFrom('a', 'b'), index)
      .map(([name, port, count]): Change => {
        return (world, model) => {
          const others = world.slices.filter(({ metadata }) => metadata.name !== name)
          const addresses = Array.from({ length: count }, (_, i) => ({ addresses: [`10.0.0.${i}`] }))
          world.slices.splice(0, world.slices.length, ...others, {
            metadata: { name },
            addressType: 'IPv4',
            ports: [{ name: port, port: 8080 }],
            endpoints: addresses,
          } as unknown as EndpointSlice)
          for (const namespace of ['shop', 'other']) model.touchSlices(`${namespace}/${name}`)
        }
      }),
    fc.boolean().map((there): Change => {
      return (world, model) => {
        const from = [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: 'shop' }]
        if (there) world.put('ReferenceGrant', 'other/g', { spec: { from, to: [{ group: '', kind: 'Service' }] } })
        else world.remove('ReferenceGrant', 'other/g')
        model.touchAll()
      }
    }),
    fc.constantFrom('x', 'y').map((team): Change => {
      return (world, model) => {
        world.put('Namespace', 'shop', { metadata: { name: 'shop', labels: { team } } })
        model.touchRoutes()
      }
    }),
    fc.boolean().map((good): Change => {
      return (world, model) => {
        if (good) world.put('Secret', 'shop/c', { type: 'kubernetes.io/tls', data: pair })
        else world.remove('Secret', 'shop/c')
        model.touchSecret('shop', 'c')
      }
    }),
    fc.option(hosts).map((hostnames): Change => {
      return (world, model) => {
        const backend = { service: { name: 's0', port: { number: 80 } } }
        const rules = (hostnames ?? ['c.com']).map((host) => ({
          host,
          http: { paths: [{ pathType: 'Prefix', backend }] },
        }))
        const spec = { ingressClassName: 'weft', rules, tls: [{ hosts: hostnames ?? [], secretName: 'c' }] }
        world.put('IngressClass', 'weft', { spec: { controller: ingressController } })
        if (hostnames === null) world.remove('Ingress', 'shop/i')
        else world.put('Ingress', 'shop/i', { spec })
        model.touchIngresses()
      }
    }),
  )
