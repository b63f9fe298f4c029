import type { Namespace, Secret, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Ingress, IngressClass } from '#api/gen/networking-v1.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { Copy, Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { ingressGateway, ingressService } from '#gateway/ingress.ts'
import { GatewayModel } from '#gateway/model.ts'
import type { Gateway, GatewayClass, GrpcRoute, HttpRoute, ReferenceGrant, Route } from '#gateway/objects.ts'
import { addressesOfService, gatewayNameLabel, serviceNameOf } from '#gateway/service.ts'
import { serviceOfSlice } from '../services/reflect.ts'

/** The node's copies of all that decides what a Gateway does. */
export interface GatewayCopies {
  readonly classes: Informer<GatewayClass>
  readonly gateways: Informer<Gateway>
  readonly httpRoutes: Informer<HttpRoute>
  readonly grpcRoutes: Informer<GrpcRoute>
  readonly grants: Informer<ReferenceGrant>
  readonly namespaces: Informer<Namespace>
  readonly services: Informer<Service>
  readonly slices: Informer<EndpointSlice>
  readonly ingresses: Informer<Ingress>
  readonly ingressClasses: Informer<IngressClass>
}

export const allCopies = (copies: GatewayCopies): Copy[] => Object.values(copies)

/** The model over the node's copies: the same objects as the controller's, and so the same result. */
export function modelOf(
  copies: GatewayCopies,
  secret: (namespace: string, name: string) => Secret | undefined,
): GatewayModel {
  const slices = copies.slices.index('service', serviceOfSlice)
  return new GatewayModel({
    classes: copies.classes,
    gateways: copies.gateways,
    httpRoutes: copies.httpRoutes,
    grpcRoutes: copies.grpcRoutes,
    grants: copies.grants,
    namespaces: copies.namespaces,
    services: copies.services,
    ingresses: copies.ingresses,
    ingressClasses: copies.ingressClasses,
    secret,
    slices: (service) => slices.get(service),
    addresses: (key) => {
      if (key === ingressGateway) return addressesOfService(copies.services.get(keyOf({ metadata: ingressService })))
      const gateway = copies.gateways.get(key)
      const slash = key.indexOf('/')
      const service = copies.services.get(`${key.slice(0, slash)}/${serviceNameOf(key.slice(slash + 1))}`)
      const isOwned = service?.metadata.ownerReferences?.some(({ uid }) => uid === gateway?.metadata.uid) ?? false
      return isOwned ? addressesOfService(service) : []
    },
  })
}

/** Tells the model what each change of the copies can have touched, and then `wake`, until `signal` aborts. */
export function watchCopies(copies: GatewayCopies, model: GatewayModel, wake: () => void, signal: AbortSignal): void {
  const all = (): void => {
    model.touchAll()
    wake()
  }
  copies.classes.onChange(all, signal)
  copies.grants.onChange(all, signal)
  copies.gateways.onChange((next, old) => {
    if (isStatusOnly(next, old)) return
    for (const object of [next, old]) if (object !== undefined) model.touchGateway(keyOf(object))
    wake()
  }, signal)
  const route = (next: Route | undefined, old: Route | undefined): void => {
    const object = next ?? old
    if (object === undefined || isStatusOnly(next, old)) return
    model.touchRoute(object)
    wake()
  }
  copies.httpRoutes.onChange(route, signal)
  copies.grpcRoutes.onChange(route, signal)
  copies.namespaces.onChange((next, old) => {
    if (next !== undefined && old !== undefined && sameLabels(next, old)) return
    model.touchRoutes()
    wake()
  }, signal)
  copies.services.onChange((next, old) => {
    const object = next ?? old
    if (object === undefined) return
    model.touchService(keyOf(object))
    if (keyOf(object) === keyOf({ metadata: ingressService })) model.touchGateway(ingressGateway)
    const owner = object.metadata.ownerReferences?.find(({ kind }) => kind === 'Gateway')?.name
    const gateway = owner ?? object.metadata.labels?.[gatewayNameLabel]
    if (gateway !== undefined) model.touchGateway(`${object.metadata.namespace}/${gateway}`)
    wake()
  }, signal)
  const ingresses = (next: KubeObject | undefined, old: KubeObject | undefined): void => {
    if (isStatusOnly(next, old)) return
    model.touchIngresses()
    wake()
  }
  copies.ingresses.onChange(ingresses, signal)
  copies.ingressClasses.onChange(ingresses, signal)
  copies.slices.onChange((next, old) => {
    for (const slice of [next, old]) {
      if (slice === undefined) continue
      for (const service of serviceOfSlice(slice)) model.touchSlices(service)
    }
    wake()
  }, signal)
}

/** Whether an engine has nothing to learn from the change. */
const isStatusOnly = (next: KubeObject | undefined, old: KubeObject | undefined): boolean =>
  next !== undefined &&
  old !== undefined &&
  next.metadata.uid === old.metadata.uid &&
  next.metadata.generation === old.metadata.generation

const sameLabels = (a: KubeObject, b: KubeObject): boolean =>
  JSON.stringify(a.metadata.labels ?? {}) === JSON.stringify(b.metadata.labels ?? {})
