import { isDeepStrictEqual } from 'node:util'
import type { Namespace, Secret, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Ingress, IngressClass } from '#api/gen/networking-v1.ts'
import { type Selector, selectorFrom } from '#api/meta/selector.ts'
import { type BackendPort, endpointsOf } from './backends.ts'
import { lostListeners } from './conflicts.ts'
import type { Backend, Route as EngineRoute, EngineState, Listener } from './engine.ts'
import { engineListeners, keyOf } from './engine-listeners.ts'
import { examineGateway, type GatewayResult, isOurs } from './gateways.ts'
import { type Grants, grantsOf } from './grants.ts'
import { gatewayOfIngresses, ingressGateway, isOurIngress, routesOfIngress } from './ingress.ts'
import type { ListenerResult } from './listeners.ts'
import type { Gateway, GatewayClass, GrpcRoute, HttpRoute, ReferenceGrant, Route } from './objects.ts'
import { ReverseIndex } from './reverse-index.ts'
import { examineRoute, listenerId, type RouteNeeds, type RouteResult, routeId, withoutListeners } from './routes.ts'
import { secretsOf } from './secrets.ts'

/** A local copy of objects, as an informer has it. */
export interface Copies<K> {
  /** By `namespace/name`, or `name`. */
  get(key: string): K | undefined
  list(): readonly K[]
}

/** Everything that decides what a Gateway does. Read when asked, never kept. */
export interface GatewayFacts {
  readonly classes: Copies<GatewayClass>
  readonly gateways: Copies<Gateway>
  readonly httpRoutes: Copies<HttpRoute>
  readonly grpcRoutes: Copies<GrpcRoute>
  readonly grants: Copies<ReferenceGrant>
  readonly namespaces: Copies<Namespace>
  readonly services: Copies<Service>
  readonly ingresses: Copies<Ingress>
  readonly ingressClasses: Copies<IngressClass>
  secret(namespace: string, name: string): Secret | undefined
  /** Of a Service, by `namespace/name`. Who only writes statuses has none. */
  slices(service: string): readonly EndpointSlice[]
  /** Where a Gateway is reached, by `namespace/name`. */
  addresses(gateway: string): readonly string[]
}

/** What has come out differently since the last look. */
export interface Changed {
  /** `namespace/name`; also of those that are gone or no longer ours. */
  readonly gateways: ReadonlySet<string>
  /** Route ids; also of those that are gone. */
  readonly routes: ReadonlySet<string>
  readonly backends: ReadonlySet<string>
}

/**
 * From objects to what every Gateway, route and backend comes to. Pure in what it answers: it depends on the facts
 * alone, in whatever order they came. It remembers results, and looks again only at what a change can have touched,
 * so that one route of 5,000 costs one route. Controller and nodes have one each and come to the same.
 */
export class GatewayModel {
  readonly #facts: GatewayFacts
  readonly #gateways = new Map<string, GatewayResult>()
  /** Each route by itself, and beside the others. */
  readonly #alone = new Map<string, RouteResult>()
  readonly #routes = new Map<string, RouteResult>()
  /** By Gateway and route, the listeners that a route of another kind has. */
  readonly #lost = new Map<string, ReadonlyMap<string, ReadonlySet<string>>>()
  readonly #byService = new ReverseIndex()
  readonly #byGateway = new ReverseIndex()
  readonly #listeners = new Map<string, Listener>()
  readonly #engineRoutes = new Map<string, EngineRoute>()
  readonly #backends = new Map<string, Backend>()
  /** How many routes name a port. */
  readonly #uses = new Map<string, { readonly port: BackendPort; count: number }>()
  #grants: Grants | undefined
  #revision = 0
  /** As last given; a table that has changed since is left out. */
  #given: { readonly [P in keyof EngineState]?: EngineState[P] | undefined } = {}
  #state: EngineState | undefined
  /** What Ingresses say, in the words of the Gateway API. */
  #ingressGateway: Gateway | undefined
  readonly #ingressRoutes = new Map<string, HttpRoute>()
  #dirtyIngresses = false
  readonly #dirtyGateways = new Set<string>()
  readonly #dirtyRoutes = new Set<string>()
  readonly #dirtyBackends = new Set<string>()

  constructor(facts: GatewayFacts) {
    this.#facts = facts
  }

  /** Everything may be different: at the start, and where a change touches all. */
  touchAll(): void {
    this.#grants = undefined
    for (const { metadata } of this.#facts.gateways.list()) this.touchGateway(`${metadata.namespace}/${metadata.name}`)
    for (const key of this.#gateways.keys()) this.touchGateway(key)
    this.touchRoutes()
    this.touchIngresses()
    for (const id of this.#uses.keys()) this.#dirtyBackends.add(id)
  }

  /** A namespace's labels decide which listeners take its routes. */
  touchRoutes(): void {
    for (const route of this.#facts.httpRoutes.list()) this.touchRoute(route)
    for (const route of this.#facts.grpcRoutes.list()) this.touchRoute(route)
    for (const id of this.#routes.keys()) this.#dirtyRoutes.add(id)
  }

  /** An Ingress or IngressClass came, went or changed, or the address of all Ingresses did. */
  touchIngresses(): void {
    this.#dirtyIngresses = true
    this.touchGateway(ingressGateway)
  }

  touchGateway(key: string): void {
    this.#dirtyGateways.add(key)
  }

  touchRoute(route: Pick<Route, 'kind' | 'metadata'>): void {
    this.#dirtyRoutes.add(routeId(route))
  }

  /** A Service came, went or changed. */
  touchService(key: string): void {
    for (const id of this.#byService.get(key)) this.#dirtyRoutes.add(id)
  }

  /** The slices of a Service changed. */
  touchSlices(service: string): void {
    for (const [id, { port }] of this.#uses) if (port.service === service) this.#dirtyBackends.add(id)
  }

  /** A Secret changed: whoever names it is looked at again. */
  touchSecret(namespace: string, name: string): void {
    for (const gateway of [...this.#facts.gateways.list(), ...(this.#ingressGateway ? [this.#ingressGateway] : [])]) {
      if (secretsOf(gateway).some((ref) => ref.namespace === namespace && ref.name === name))
        this.touchGateway(`${gateway.metadata.namespace}/${gateway.metadata.name}`)
    }
  }

  /** Looks at what was touched, and says what came out differently. */
  refresh(): Changed {
    const gateways = new Set<string>()
    const routes = new Set<string>()
    const backends = new Set<string>()
    this.#grants ??= grantsOf(this.#facts.grants.list())
    const grants = this.#grants
    if (this.#dirtyIngresses) this.#refreshIngresses()
    for (const key of this.#dirtyGateways) {
      if (!this.#refreshGateway(key, grants)) continue
      gateways.add(key)
      for (const id of this.#byGateway.get(key)) this.#dirtyRoutes.add(id)
    }
    this.#dirtyGateways.clear()
    const needs = this.#routeNeeds(grants)
    const changed = new Set<string>()
    const crowded = new Set<string>()
    for (const id of this.#dirtyRoutes) {
      const before = this.#alone.get(id)
      if (!this.#examineRoute(id, needs)) continue
      changed.add(id)
      for (const key of [...(before?.gateways ?? []), ...(this.#alone.get(id)?.gateways ?? [])]) crowded.add(key)
    }
    for (const key of crowded) for (const id of this.#settle(key)) changed.add(id)
    for (const id of changed) {
      const before = this.#routes.get(id)
      if (!this.#refreshRoute(id, needs)) continue
      routes.add(id)
      for (const { gateway } of [...(before?.parents ?? []), ...(this.#routes.get(id)?.parents ?? [])])
        gateways.add(gateway)
    }
    this.#dirtyRoutes.clear()
    for (const id of this.#dirtyBackends) if (this.#refreshBackend(id)) backends.add(id)
    this.#dirtyBackends.clear()
    return { gateways, routes, backends }
  }

  gateway(key: string): GatewayResult | undefined {
    return this.#gateways.get(key)
  }

  route(id: string): RouteResult | undefined {
    return this.#routes.get(id)
  }

  /** How many routes a listener of the Gateway has. */
  attachedRoutes(gateway: string, listener: string): number {
    let count = 0
    for (const id of this.#byGateway.get(gateway)) {
      const parents = this.#routes.get(id)?.parents ?? []
      if (parents.some((p) => p.gateway === gateway && p.attached.some((a) => a.listener === listener))) count++
    }
    return count
  }

  /** Gateways by key, as last looked at. */
  get gateways(): ReadonlyMap<string, GatewayResult> {
    return this.#gateways
  }

  /** What an engine is given. What is unchanged is the same object as before, the tables too. */
  engineState(): EngineState {
    const { revision, listeners, routes, backends } = this.#given
    if (this.#state !== undefined && revision === this.#revision) return this.#state
    this.#state = {
      revision: this.#revision,
      listeners: listeners ?? new Map(this.#listeners),
      routes: routes ?? new Map(this.#engineRoutes),
      backends: backends ?? new Map(this.#backends),
    }
    this.#given = this.#state
    return this.#state
  }

  #changedState(table: 'listeners' | 'routes' | 'backends'): void {
    this.#revision++
    this.#given = { ...this.#given, [table]: undefined }
  }

  #refreshGateway(key: string, grants: Grants): boolean {
    const before = this.#gateways.get(key)
    const gateway = this.#gatewayObject(key)
    if (gateway === undefined) {
      if (before === undefined) return false
      this.#gateways.delete(key)
      this.#setListeners(before, undefined)
      return true
    }
    // An Ingress's certificates are of its own namespace, which is not the shared Gateway's.
    const needs = {
      grants: key === ingressGateway ? { permits: () => true } : grants,
      secret: this.#facts.secret.bind(this.#facts),
    }
    const next = examineGateway(gateway, this.#facts.addresses(key), needs)
    if (before !== undefined && sameGateway(before, next)) return false
    this.#gateways.set(key, next)
    this.#setListeners(before, next)
    return true
  }

  #setListeners(before: GatewayResult | undefined, next: GatewayResult | undefined): void {
    const wanted = next === undefined ? new Map<string, Listener>() : engineListeners(next)
    for (const { listener } of before?.listeners ?? []) {
      const id = listenerId(keyOf(before?.gateway), listener.name)
      if (!wanted.has(id) && this.#listeners.delete(id)) this.#changedState('listeners')
    }
    for (const [id, listener] of wanted) {
      if (isDeepStrictEqual(this.#listeners.get(id), listener)) continue
      this.#listeners.set(id, listener)
      this.#changedState('listeners')
    }
  }

  #routeNeeds(grants: Grants): RouteNeeds {
    const selectors = new Map<ListenerResult, Selector | undefined>()
    return {
      grants,
      service: (key) => this.#facts.services.get(key),
      gateway: (key) => this.#gateways.get(key),
      selects: ({ gateway }, result, namespace) => {
        const { from = 'Same', selector } = result.listener.allowedRoutes?.namespaces ?? {}
        if (from === 'All') return true
        if (from === 'Same') return gateway.metadata.namespace === namespace
        if (from !== 'Selector') return false
        if (!selectors.has(result)) selectors.set(result, readSelector(selector))
        const labels = this.#facts.namespaces.get(namespace)?.metadata.labels ?? {}
        return selectors.get(result)?.matches(labels) ?? false
      },
    }
  }

  /** Undefined for a Gateway that is not there or not ours. */
  #gatewayObject(key: string): Gateway | undefined {
    if (key === ingressGateway) return this.#ingressGateway
    const gateway = this.#facts.gateways.get(key)
    const gatewayClass = gateway && this.#facts.classes.get(gateway.spec.gatewayClassName)
    return isOurs(gatewayClass) && gatewayClass?.spec.parametersRef === undefined ? gateway : undefined
  }

  #refreshIngresses(): void {
    this.#dirtyIngresses = false
    const { ingresses, ingressClasses } = this.#facts
    const ours = ingresses.list().filter((ingress) => isOurIngress(ingress, (name) => ingressClasses.get(name)))
    this.#ingressGateway = gatewayOfIngresses(ours)
    const routes = new Map(ours.flatMap(routesOfIngress).map((route) => [routeId(route), route]))
    for (const id of this.#ingressRoutes.keys()) if (!routes.has(id)) this.#dirtyRoutes.add(id)
    for (const [id, route] of routes) {
      if (this.#ingressRoutes.get(id)?.metadata.resourceVersion !== route.metadata.resourceVersion)
        this.#dirtyRoutes.add(id)
    }
    this.#ingressRoutes.clear()
    for (const [id, route] of routes) this.#ingressRoutes.set(id, route)
  }

  #routeObject(id: string): Route | undefined {
    if (id.startsWith('Ingress/')) return this.#ingressRoutes.get(id)
    const slash = id.indexOf('/')
    const key = id.slice(slash + 1)
    return id.startsWith('HTTPRoute/') ? this.#facts.httpRoutes.get(key) : this.#facts.grpcRoutes.get(key)
  }

  #examineRoute(id: string, needs: RouteNeeds): boolean {
    const before = this.#alone.get(id)
    const route = this.#routeObject(id)
    const next = route && examineRoute(route, needs)
    if (sameRoute(before, next)) return false
    if (next === undefined) this.#alone.delete(id)
    else this.#alone.set(id, next)
    this.#byService.change(id, before?.services, next?.services)
    this.#byGateway.change(id, before?.gateways, next?.gateways)
    return true
  }

  /** Routes of the Gateway that have lost a listener to a route of another kind, or have it back. */
  #settle(gateway: string): string[] {
    const ids = [...this.#byGateway.get(gateway)]
    const before = this.#lost.get(gateway) ?? new Map<string, ReadonlySet<string>>()
    // Thousands of routes of one kind, as is usual, need not be looked at.
    const grpc = ids.filter((id) => id.startsWith('GRPCRoute/')).length
    const routes = grpc === 0 || grpc === ids.length ? [] : ids.flatMap((id) => this.#alone.get(id) ?? [])
    const lost = lostListeners(gateway, routes)
    if (lost.size === 0) this.#lost.delete(gateway)
    else this.#lost.set(gateway, lost)
    const concerned = new Set([...before.keys(), ...lost.keys()])
    return [...concerned].filter((id) => !isDeepStrictEqual(before.get(id), lost.get(id)))
  }

  #refreshRoute(id: string, needs: RouteNeeds): boolean {
    const before = this.#routes.get(id)
    const alone = this.#alone.get(id)
    const lost = [...(alone?.gateways ?? [])].flatMap((key) => [...(this.#lost.get(key)?.get(id) ?? [])])
    const next = alone && withoutListeners(alone, new Set(lost), needs)
    if (sameRoute(before, next)) return false
    if (next === undefined) this.#routes.delete(id)
    else this.#routes.set(id, next)
    this.#usePorts(before?.engine && before.ports, next?.engine && next.ports)
    if (!isDeepStrictEqual(before?.engine, next?.engine)) {
      if (next?.engine === undefined) this.#engineRoutes.delete(id)
      else this.#engineRoutes.set(id, next.engine)
      this.#changedState('routes')
    }
    return true
  }

  #usePorts(
    before: ReadonlyMap<string, BackendPort> | undefined,
    next: ReadonlyMap<string, BackendPort> | undefined,
  ): void {
    for (const [id, port] of next ?? []) {
      const use = this.#uses.get(id)
      if (use !== undefined) use.count++
      else this.#uses.set(id, { port, count: 1 })
      if (use === undefined || use.port.portName !== port.portName) {
        this.#uses.set(id, { port, count: use?.count ?? 1 })
        this.#dirtyBackends.add(id)
      }
    }
    for (const id of before?.keys() ?? []) {
      const use = this.#uses.get(id)
      if (use === undefined) continue
      use.count--
      if (use.count > 0) continue
      this.#uses.delete(id)
      this.#dirtyBackends.add(id)
    }
  }

  #refreshBackend(id: string): boolean {
    const port = this.#uses.get(id)?.port
    const before = this.#backends.get(id)
    if (port === undefined) {
      if (!this.#backends.delete(id)) return false
      this.#changedState('backends')
      return true
    }
    const endpoints = endpointsOf(port.portName, this.#facts.slices(port.service))
    const next: Backend = { id, protocol: port.protocol, endpoints }
    if (isDeepStrictEqual(before, next)) return false
    this.#backends.set(id, next)
    this.#changedState('backends')
    return true
  }
}

/** The same for everybody who reads it: of the same generation, reached and served in the same way. */
function sameGateway(a: GatewayResult, b: GatewayResult): boolean {
  const { gateway: objectA, ...restA } = a
  const { gateway: objectB, ...restB } = b
  return sameGeneration(objectA, objectB) && isDeepStrictEqual(restA, restB)
}

/** Two versions of one object that differ in metadata or status alone. */
const sameGeneration = (a: Gateway | Route, b: Gateway | Route): boolean =>
  a.metadata.uid === b.metadata.uid && a.metadata.generation === b.metadata.generation

function sameRoute(a: RouteResult | undefined, b: RouteResult | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  return (
    sameGeneration(a.route, b.route) &&
    isDeepStrictEqual([a.parents, a.ports, a.engine], [b.parents, b.ports, b.engine])
  )
}

/** A selector that is none selects nobody: the CRD's rules let few of them through. */
function readSelector(selector: Parameters<typeof selectorFrom>[0]): Selector | undefined {
  try {
    return selectorFrom(selector)
  } catch {
    return undefined
  }
}
