import type { Service, ServicePort } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { compareText } from '#base/order.ts'
import type { Backend, Endpoint } from './engine.ts'
import type { Grants } from './grants.ts'
import { namespaceOf } from './listeners.ts'
import { gatewayGroup, type Route, type RouteBackendRef } from './objects.ts'

/** A reference that leads to a Service's port. */
export interface BackendPort {
  /** `namespace/service:port`, with `+h2c` where it speaks that: the key in `EngineState.backends`. */
  readonly id: string
  /** `namespace/name`. */
  readonly service: string
  /** Name of the Service's port, by which its slices are read. */
  readonly portName: string
  readonly protocol: Backend['protocol']
}

export type BackendResult =
  | { readonly ok: true; readonly port: BackendPort }
  | { readonly ok: false; readonly reason: string; readonly message: string }

export interface BackendNeeds {
  readonly grants: Grants
  /** By `namespace/name`. */
  readonly service: (key: string) => Service | undefined
}

/** Who refers: the kind decides which grants count, and that a gRPC route's backends speak HTTP/2. */
export interface Referrer {
  readonly kind: Route['kind']
  readonly namespace: string
}

/** Protocols of `appProtocol` (KEP-3726) that a proxy speaks in the clear. Names without a domain are nobody's promise. */
const protocols: Readonly<Record<string, Backend['protocol']>> = {
  'kubernetes.io/h2c': 'h2c',
  'kubernetes.io/ws': 'h1',
}

export function resolveBackend(ref: RouteBackendRef, from: Referrer, needs: BackendNeeds): BackendResult {
  const no = (reason: string, message: string): BackendResult => ({ ok: false, reason, message })
  const { group = '', kind = 'Service', name, port, portName } = ref
  if (group !== '' || kind !== 'Service')
    return no('InvalidKind', `backendRefs: ${kind} of group ${JSON.stringify(group)} is not a Service`)
  const namespace = namespaceOf(ref, from.namespace)
  const key = `${namespace}/${name}`
  const referrer = { group: gatewayGroup, kind: from.kind, namespace: from.namespace }
  if (!needs.grants.permits(referrer, { group, kind, namespace, name }))
    return no('RefNotPermitted', `backendRefs: no ReferenceGrant permits Service ${key}`)
  const service = needs.service(key)
  if (service === undefined) return no('BackendNotFound', `backendRefs: there is no Service ${key}`)
  // Following a name that somebody else answers for would lead out of what grants and policies can see.
  if (service.spec.type === 'ExternalName')
    return no('UnsupportedProtocol', `backendRefs: Service ${key} is only a name (ExternalName)`)
  const wanted = port ?? portName
  if (wanted === undefined) return no('BackendNotFound', `backendRefs: Service ${key} is named without a port`)
  const isTcp = (p: ServicePort): boolean => (p.protocol ?? 'TCP') === 'TCP'
  const found = (service.spec.ports ?? []).find(
    (p) => isTcp(p) && (port === undefined ? p.name === portName : p.port === port),
  )
  if (found === undefined) return no('BackendNotFound', `backendRefs: Service ${key} has no TCP port ${wanted}`)
  const { appProtocol = '' } = found
  const declared = protocols[appProtocol]
  if (appProtocol.startsWith('kubernetes.io/') && declared === undefined)
    return no(
      'UnsupportedProtocol',
      `backendRefs: Service ${key}, port ${wanted}: ${appProtocol} cannot be spoken here`,
    )
  const protocol = from.kind === 'GRPCRoute' ? 'h2c' : (declared ?? 'h1')
  const id = `${key}:${found.port}${protocol === 'h1' ? '' : `+${protocol}`}`
  return { ok: true, port: { id, service: key, portName: found.name ?? '', protocol } }
}

/** Where a Service's port is answered now: ready endpoints, or where there is none those that are going but still serve. */
export function endpointsOf(portName: string, slices: readonly EndpointSlice[]): Endpoint[] {
  // A pod of both families is in two slices; reaching it by one is enough, and keeps its share of requests right.
  const first = endpointsOfFamily('IPv4', portName, slices)
  return first.length > 0 ? first : endpointsOfFamily('IPv6', portName, slices)
}

function endpointsOfFamily(family: string, portName: string, slices: readonly EndpointSlice[]): Endpoint[] {
  const ready = new Map<string, Endpoint>()
  const draining = new Map<string, Endpoint>()
  for (const { addressType, ports = [], endpoints = [] } of slices) {
    if (addressType !== family) continue
    for (const { name = '', port, protocol = 'TCP' } of ports) {
      if (name !== portName || port === undefined || protocol !== 'TCP') continue
      for (const { addresses, conditions } of endpoints) {
        const [address] = addresses
        if (address === undefined) continue
        const isReady = conditions?.ready ?? true
        const isDraining = (conditions?.serving ?? isReady) && (conditions?.terminating ?? false)
        const key = `${address} ${port}`
        if (isReady) ready.set(key, { address, port })
        else if (isDraining) draining.set(key, { address, port })
      }
    }
  }
  const chosen = ready.size > 0 ? ready : draining
  return [...chosen].toSorted(([a], [b]) => compareText(a, b)).map(([, endpoint]) => endpoint)
}
