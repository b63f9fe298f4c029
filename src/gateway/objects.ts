import type { Condition, LabelSelector, NamespacedMeta, ObjectMeta } from '#api/gen/meta-v1.ts'
import type { Resource } from '#api/meta/resource.ts'

/**
 * The objects of Gateway API v1.6.1 (gateway.networking.k8s.io/v1) as far as this gateway reads or writes them. They are
 * custom resources, so no field table has them; every field that a user may leave out is optional, whatever its default.
 */
export const gatewayGroup = 'gateway.networking.k8s.io'
const apiVersion = `${gatewayGroup}/v1` as const

export interface GatewayClass {
  apiVersion: typeof apiVersion
  kind: 'GatewayClass'
  metadata: ObjectMeta
  spec: { controllerName: string; parametersRef?: ParametersRef & { namespace?: string }; description?: string }
  status?: { conditions?: Condition[]; supportedFeatures?: { name: string }[] }
}

export interface ParametersRef {
  group: string
  kind: string
  name: string
}

export interface Gateway {
  apiVersion: typeof apiVersion
  kind: 'Gateway'
  metadata: NamespacedMeta
  spec: GatewaySpec
  status?: GatewayStatus
}

export interface GatewaySpec {
  gatewayClassName: string
  listeners?: Listener[]
  addresses?: GatewayAddress[]
  infrastructure?: {
    labels?: Record<string, string>
    annotations?: Record<string, string>
    parametersRef?: ParametersRef
  }
  allowedListeners?: unknown
  tls?: GatewayTls
  defaultScope?: string
}

/** TLS of a whole Gateway: towards its clients (`frontend`) and towards backends. */
export interface GatewayTls {
  backend?: { clientCertificateRef?: ObjectRef }
  frontend?: {
    default?: { validation?: FrontendValidation }
    perPort?: { port: number; tls: { validation?: FrontendValidation } }[]
  }
}

export interface FrontendValidation {
  caCertificateRefs?: ObjectRef[]
  mode?: string
}

export interface GatewayAddress {
  type?: string
  value?: string
}

export interface Listener {
  name: string
  hostname?: string
  port: number
  /** `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP`, or somebody's own. */
  protocol: string
  tls?: { mode?: string; certificateRefs?: ObjectRef[]; options?: Record<string, string> }
  allowedRoutes?: { namespaces?: { from?: string; selector?: LabelSelector }; kinds?: RouteGroupKind[] }
}

export interface RouteGroupKind {
  group?: string
  kind: string
}

/** A reference to something named: what is left out defaults by the field it stands in. */
export interface ObjectRef {
  group?: string
  kind?: string
  namespace?: string
  name: string
}

export interface GatewayStatus {
  addresses?: GatewayAddress[]
  conditions?: Condition[]
  listeners?: ListenerStatus[]
  attachedListenerSets?: number
}

export interface ListenerStatus {
  name: string
  supportedKinds?: RouteGroupKind[]
  attachedRoutes: number
  conditions: Condition[]
}

export interface ParentRef extends ObjectRef {
  sectionName?: string
  port?: number
}

export interface RouteStatus {
  parents?: RouteParentStatus[]
}

export interface RouteParentStatus {
  parentRef: ParentRef
  controllerName: string
  conditions?: Condition[]
}

export interface HttpRoute {
  apiVersion: typeof apiVersion
  /** `Ingress` for what an Ingress says in these words (ingress.ts). */
  kind: 'HTTPRoute' | 'Ingress'
  metadata: NamespacedMeta
  spec: { parentRefs?: ParentRef[]; hostnames?: string[]; rules?: HttpRule[] }
  status?: RouteStatus
}

export interface HttpRule {
  name?: string
  matches?: HttpMatch[]
  filters?: RouteFilter[]
  backendRefs?: RouteBackendRef[]
  timeouts?: { request?: string; backendRequest?: string }
  retry?: { codes?: number[]; attempts?: number; backoff?: string }
  sessionPersistence?: unknown
}

export interface HttpMatch {
  path?: { type?: string; value?: string }
  headers?: ValueMatch[]
  queryParams?: ValueMatch[]
  method?: string
}

/** A header or query parameter: `Exact` or `RegularExpression`. */
export interface ValueMatch {
  type?: string
  name: string
  value: string
}

export interface GrpcRoute {
  apiVersion: typeof apiVersion
  kind: 'GRPCRoute'
  metadata: NamespacedMeta
  spec: { parentRefs?: ParentRef[]; hostnames?: string[]; rules?: GrpcRule[] }
  status?: RouteStatus
}

export interface GrpcRule {
  name?: string
  matches?: { method?: { type?: string; service?: string; method?: string }; headers?: ValueMatch[] }[]
  filters?: RouteFilter[]
  backendRefs?: RouteBackendRef[]
  sessionPersistence?: unknown
}

export interface RouteBackendRef extends ObjectRef {
  port?: number
  /** In place of `port`, as an Ingress may say it. */
  portName?: string
  weight?: number
  filters?: RouteFilter[]
}

/** One filter of a route, rule or backend; `type` says which of the fields is set. */
export interface RouteFilter {
  type: string
  requestHeaderModifier?: HeaderFilter
  responseHeaderModifier?: HeaderFilter
  requestMirror?: {
    backendRef: RouteBackendRef
    percent?: number
    fraction?: { numerator: number; denominator?: number }
  }
  requestRedirect?: {
    scheme?: string
    hostname?: string
    path?: PathModifier
    port?: number
    statusCode?: number
  }
  urlRewrite?: { hostname?: string; path?: PathModifier }
  cors?: CorsFilter
  extensionRef?: ParametersRef
}

export interface HeaderFilter {
  set?: { name: string; value: string }[]
  add?: { name: string; value: string }[]
  remove?: string[]
}

export interface PathModifier {
  type: string
  replaceFullPath?: string
  replacePrefixMatch?: string
}

export interface CorsFilter {
  allowOrigins?: string[]
  allowCredentials?: boolean
  allowMethods?: string[]
  allowHeaders?: string[]
  exposeHeaders?: string[]
  maxAge?: number
}

export interface ReferenceGrant {
  apiVersion: typeof apiVersion
  kind: 'ReferenceGrant'
  metadata: NamespacedMeta
  spec: {
    from: { group: string; kind: string; namespace: string }[]
    to: { group: string; kind: string; name?: string }[]
  }
}

/** An HTTPRoute or a GRPCRoute: what attachment and status have in common. */
export type Route = HttpRoute | GrpcRoute

const resource = <K extends GatewayClass | Gateway | Route | ReferenceGrant>(
  kind: K['kind'],
  plural: string,
  namespaced: boolean,
): Resource<K> => ({ group: gatewayGroup, version: 'v1', resource: plural, kind, namespaced })

export const gatewayClasses = resource<GatewayClass>('GatewayClass', 'gatewayclasses', false)
export const gateways = resource<Gateway>('Gateway', 'gateways', true)
export const httpRoutes = resource<HttpRoute>('HTTPRoute', 'httproutes', true)
export const grpcRoutes = resource<GrpcRoute>('GRPCRoute', 'grpcroutes', true)
export const referenceGrants = resource<ReferenceGrant>('ReferenceGrant', 'referencegrants', true)
