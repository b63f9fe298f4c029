import { isDeepStrictEqual } from 'node:util'
import type { Service } from '#api/gen/core-v1.ts'
import type { Ingress, IngressClass, IngressStatus } from '#api/gen/networking-v1.ts'
import { ingressClasses, ingresses, services } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import type { Client, Draft } from '#client/client.ts'
import type { Store } from '#client/informer.ts'
import type { GatewayResult } from '#gateway/gateways.ts'
import {
  ingressClassName,
  ingressController,
  ingressGateway,
  ingressService,
  isOurIngress,
  routesOfIngress,
} from '#gateway/ingress.ts'
import type { GatewayModel } from '#gateway/model.ts'
import { routeId } from '#gateway/routes.ts'
import { addressesOfService, servedByGateway, servedByLabel } from '#gateway/service.ts'
import type { Verdict } from '#gateway/verdict.ts'
import { portsOf } from './service.ts'

export type IngressServiceAction =
  | { readonly do: 'create'; readonly service: Draft<Service> }
  | { readonly do: 'patch'; readonly patch: unknown }
  | { readonly do: 'delete' }

/** The one Service for all Ingresses: there while there is an Ingress of our class, with the ports they need. Pure. */
export function planIngressService(
  result: GatewayResult | undefined,
  present: Service | undefined,
): IngressServiceAction | undefined {
  if (result === undefined) {
    const isOurs = present?.metadata.labels?.[servedByLabel] === servedByGateway
    return isOurs ? { do: 'delete' } : undefined
  }
  const ports = portsOf(result)
  if (present === undefined) {
    const metadata = { ...ingressService, labels: { [servedByLabel]: servedByGateway } }
    const spec = {
      type: 'LoadBalancer' as const,
      allocateLoadBalancerNodePorts: false,
      ipFamilyPolicy: 'PreferDualStack' as const,
      ports,
    }
    return { do: 'create', service: { metadata, spec } }
  }
  const plain = (list: readonly { name?: string; port: number }[] = []) =>
    list.map(({ name, port }) => ({ name, port }))
  return isDeepStrictEqual(plain(present.spec.ports), plain(ports))
    ? undefined
    : { do: 'patch', patch: { metadata: { uid: present.metadata.uid }, spec: { ports } } }
}

export async function applyIngressService(
  client: Client,
  action: IngressServiceAction,
  signal: AbortSignal,
): Promise<Service | undefined> {
  switch (action.do) {
    case 'create':
      return client.create(services, action.service, { signal })
    case 'patch':
      return client.patch(services, ingressService, 'merge', action.patch, { signal })
    case 'delete':
      try {
        await client.delete(services, ingressService, { signal })
      } catch (error) {
        if (!isStatus(error, 'NotFound')) throw error
      }
      return undefined
    default:
      return action satisfies never
  }
}

/** Where an Ingress is reached; undefined where it is somebody else's, or says so already. Pure. */
export function ingressStatus(
  ingress: Ingress,
  classes: Store<IngressClass>,
  service: Service | undefined,
): IngressStatus | undefined {
  if (!isOurIngress(ingress, (name) => classes.get(name))) return undefined
  const addresses = addressesOfService(service).map((ip) => ({ ip }))
  const status: IngressStatus = { loadBalancer: addresses.length === 0 ? {} : { ingress: addresses } }
  return isDeepStrictEqual(ingress.status, status) ? undefined : status
}

export async function writeIngressStatus(
  client: Client,
  ingress: Ingress,
  status: IngressStatus,
  signal: AbortSignal,
): Promise<Ingress> {
  return client.update(ingresses, { ...ingress, status }, { subresource: 'status', signal })
}

/** `Ingress/shop/web:a.example.com` as the key of its Ingress. */
export const ingressKey = (id: string): string => `ingress/${id.slice('Ingress/'.length).split(':', 1)[0]}`

/** What of an Ingress cannot be served, each once: references that lead nowhere, certificates that are none. Pure. */
export function faultsOfIngress(ingress: Ingress, model: Pick<GatewayModel, 'route' | 'gateway'>): Verdict[] {
  const ofRoutes = routesOfIngress(ingress).flatMap((route) =>
    (model.route(routeId(route))?.parents ?? []).flatMap(({ verdicts }) => verdicts),
  )
  const hosts = new Set(
    (ingress.spec.tls ?? []).flatMap(({ hosts: named = [] }) => (named.length === 0 ? [''] : named)),
  )
  const ofListeners = (model.gateway(ingressGateway)?.listeners ?? [])
    .filter(({ listener }) => listener.protocol === 'HTTPS' && hosts.has(listener.hostname ?? ''))
    .flatMap(({ verdicts }) => verdicts)
  const bad = [...ofRoutes, ...ofListeners].filter(
    ({ type, status }) =>
      ((type === 'Accepted' || type === 'ResolvedRefs') && status === 'False') || type === 'PartiallyInvalid',
  )
  return [...new Map(bad.map((verdict) => [verdict.message, verdict])).values()]
}

/** The class that every cluster has from the start. */
export async function createIngressClass(client: Client, signal: AbortSignal): Promise<void> {
  try {
    const draft: Draft<IngressClass> = {
      metadata: { name: ingressClassName },
      spec: { controller: ingressController },
    }
    await client.create(ingressClasses, draft, { signal })
  } catch (error) {
    if (!isStatus(error, 'AlreadyExists')) throw error
  }
}
