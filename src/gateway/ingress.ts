import type { HTTPIngressPath, Ingress, IngressBackend, IngressClass } from '#api/gen/networking-v1.ts'
import { compareText } from '#base/order.ts'
import { type Gateway, gatewayGroup, type HttpRoute, type HttpRule, type Listener } from './objects.ts'

/**
 * Ingress (networking.k8s.io/v1) in the words of the Gateway API, so that one model and one engine serve both. All
 * Ingresses of our class share one Gateway that is no object, with the address of one Service.
 *
 * Differs from the specification, knowingly: a wildcard host stands for any number of labels, as a Gateway's does.
 */
export const ingressController = 'weft.dev/ingress-controller'
export const ingressClassName = 'weft'
/** `namespace/name` of the Gateway that stands for all Ingresses: no object can have this name. */
export const ingressGateway = '/ingress'
/** The Service that gives Ingresses their address. */
export const ingressService = { namespace: 'kube-system', name: 'weft-ingress' } as const

const apiVersion = `${gatewayGroup}/v1` as const
const listenerName = 'http'

/** Whether an Ingress is ours: by its class, which must be there. */
export function isOurIngress({ spec }: Ingress, classOf: (name: string) => IngressClass | undefined): boolean {
  const { ingressClassName: name } = spec
  return name !== undefined && classOf(name)?.spec.controller === ingressController
}

/** Older first, then by name: who was there first has a host's certificate. */
const byAge = (a: Ingress, b: Ingress): number => compareText(ageOf(a), ageOf(b))
const ageOf = ({ metadata }: Ingress): string => `${metadata.creationTimestamp} ${metadata.namespace}/${metadata.name}`

/** The one Gateway: HTTP for everybody, HTTPS for each host that has a certificate. */
export function gatewayOfIngresses(ingresses: readonly Ingress[]): Gateway | undefined {
  if (ingresses.length === 0) return undefined
  const listeners: Listener[] = [{ name: listenerName, port: 80, protocol: 'HTTP', allowedRoutes: everybody }]
  const hosts = new Set<string>()
  for (const { metadata, spec } of ingresses.toSorted(byAge)) {
    for (const { hosts: named = [], secretName } of spec.tls ?? []) {
      if (secretName === undefined || secretName === '') continue
      for (const host of named.length === 0 ? [''] : named) {
        if (hosts.has(host)) continue
        hosts.add(host)
        listeners.push({
          name: host === '' ? 'https' : `https:${host}`,
          port: 443,
          protocol: 'HTTPS',
          ...(host === '' ? {} : { hostname: host }),
          tls: { mode: 'Terminate', certificateRefs: [{ namespace: metadata.namespace, name: secretName }] },
          allowedRoutes: everybody,
        })
      }
    }
  }
  return {
    apiVersion,
    kind: 'Gateway',
    metadata: {
      namespace: '',
      name: 'ingress',
      uid: 'ingress',
      resourceVersion: '',
      creationTimestamp: '',
      generation: 1,
    },
    spec: { gatewayClassName: '', listeners },
  }
}

const everybody = { namespaces: { from: 'All' } }

/** One route for each host that an Ingress has rules for: routes have their hosts as a whole. */
export function routesOfIngress(ingress: Ingress): HttpRoute[] {
  const { metadata, spec } = ingress
  const byHost = new Map<string, HTTPIngressPath[]>()
  for (const { host = '', http } of spec.rules ?? [])
    byHost.set(host, [...(byHost.get(host) ?? []), ...(http?.paths ?? [])])
  if (spec.defaultBackend !== undefined && !byHost.has('')) byHost.set('', [])
  return [...byHost].map(([host, paths]): HttpRoute => {
    const rules = paths.map(ruleOf)
    if (spec.defaultBackend !== undefined)
      rules.push({ matches: [{ path: { type: 'PathPrefix', value: '/' } }], backendRefs: [refOf(spec.defaultBackend)] })
    return {
      apiVersion,
      kind: 'Ingress',
      metadata: { ...metadata, name: host === '' ? metadata.name : `${metadata.name}:${host}` },
      spec: {
        parentRefs: [{ namespace: '', name: 'ingress' }],
        ...(host === '' ? {} : { hostnames: [host] }),
        rules,
      },
    }
  })
}

const ruleOf = ({ path = '/', pathType, backend }: HTTPIngressPath): HttpRule => ({
  matches: [{ path: { type: pathType === 'Exact' ? 'Exact' : 'PathPrefix', value: path === '' ? '/' : path } }],
  backendRefs: [refOf(backend)],
})

function refOf({ service, resource }: IngressBackend): NonNullable<HttpRule['backendRefs']>[number] {
  if (service === undefined)
    return { group: resource?.apiGroup ?? '', kind: resource?.kind ?? '', name: resource?.name ?? '' }
  const { name, number } = service.port
  return {
    name: service.name,
    ...(number === undefined || number === 0 ? {} : { port: number }),
    ...(name === undefined || name === '' ? {} : { portName: name }),
  }
}
