import type { Namespace, Secret, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Ingress, IngressClass } from '#api/gen/networking-v1.ts'
import { controllerName } from './gateways.ts'
import { type Copies, GatewayModel } from './model.ts'
import type { Gateway, GatewayClass, GrpcRoute, HttpRoute, ReferenceGrant } from './objects.ts'

/** For tests only: a cluster as literals; `put` and `remove` change it. */
export class World {
  readonly kinds = new Map<string, Map<string, unknown>>()
  readonly slices: EndpointSlice[] = []
  #generation = 1

  copies<K>(kind: string): Copies<K> {
    const objects = this.kinds.get(kind) ?? new Map<string, unknown>()
    this.kinds.set(kind, objects)
    return { get: (key) => objects.get(key) as K | undefined, list: () => [...objects.values()] as K[] }
  }

  put(kind: string, key: string, fields: object): void {
    const [namespace = '', name = key] = key.includes('/') ? key.split('/') : ['', key]
    this.copies(kind)
    const metadata = {
      namespace,
      name,
      uid: key,
      generation: this.#generation++,
      resourceVersion: String(this.#generation),
      creationTimestamp: '2026-01-01T00:00:00Z',
    }
    this.kinds.get(kind)?.set(key, { kind, metadata, ...fields })
  }

  remove(kind: string, key: string): void {
    this.kinds.get(kind)?.delete(key)
  }

  model(addresses: readonly string[] = ['192.0.2.1']): GatewayModel {
    return new GatewayModel({
      classes: this.copies<GatewayClass>('GatewayClass'),
      gateways: this.copies<Gateway>('Gateway'),
      httpRoutes: this.copies<HttpRoute>('HTTPRoute'),
      grpcRoutes: this.copies<GrpcRoute>('GRPCRoute'),
      grants: this.copies<ReferenceGrant>('ReferenceGrant'),
      namespaces: this.copies<Namespace>('Namespace'),
      services: this.copies<Service>('Service'),
      ingresses: this.copies<Ingress>('Ingress'),
      ingressClasses: this.copies<IngressClass>('IngressClass'),
      secret: (namespace, name) => this.copies<Secret>('Secret').get(`${namespace}/${name}`),
      slices: (service) => this.slices.filter(({ metadata }) => metadata.name === service.split('/')[1]),
      addresses: () => addresses,
    })
  }

  looked(): GatewayModel {
    const model = this.model()
    model.touchAll()
    model.refresh()
    return model
  }
}

/** A rule that leads to a Service of this name. */
export const rule = (name: string, more: object = {}) => ({ backendRefs: [{ name, port: 80 }], ...more })

/** A Gateway with these listeners, a Service behind it, in a namespace with a label. */
export function shop(listeners: readonly object[] = [{ name: 'http', port: 80, protocol: 'HTTP' }]): World {
  const world = new World()
  world.put('GatewayClass', 'weft', { spec: { controllerName } })
  world.put('Gateway', 'shop/edge', { spec: { gatewayClassName: 'weft', listeners } })
  world.put('Service', 'shop/web', { spec: { ports: [{ name: 'http', port: 80 }] } })
  world.put('Namespace', 'shop', { metadata: { name: 'shop', labels: { team: 'shop' } } })
  return world
}
/** An HTTPRoute of that Gateway, to that Service unless `spec` says otherwise. */
export const route = (world: World, name: string, spec: object = {}): void =>
  world.put('HTTPRoute', name, {
    spec: { parentRefs: [{ namespace: 'shop', name: 'edge' }], rules: [rule('web')], ...spec },
  })
