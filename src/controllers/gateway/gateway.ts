import type { Node, Secret } from '#api/gen/core-v1.ts'
import type { Ingress } from '#api/gen/networking-v1.ts'
import type { Role, Subject } from '#api/gen/rbac-v1.ts'
import { ingressClasses, ingresses, namespaces, nodes, roles, secrets, services } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { isStatus } from '#api/meta/status.ts'
import { formatTime } from '#api/meta/time.ts'
import { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { acknowledgement } from '#gateway/acknowledge.ts'
import { controllerName, isOurs } from '#gateway/gateways.ts'
import { ingressClassName, ingressGateway, ingressService } from '#gateway/ingress.ts'
import { GatewayModel } from '#gateway/model.ts'
import { gatewayClasses, gateways, grpcRoutes, httpRoutes, type Route, referenceGrants } from '#gateway/objects.ts'
import { routeId } from '#gateway/routes.ts'
import { permittedSecrets } from '#gateway/secrets.ts'
import { addressesOfService, gatewayNameLabel, serviceNameOf } from '#gateway/service.ts'
import { awaitChange, type Reconcile } from '#reconcile/controller.ts'
import { createLoop, type LoopContext, type LoopStart } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import { OwnWrites } from '#reconcile/own-writes.ts'
import { applyRole, applyService } from './apply.ts'
import { certificateReaders, managedLabels, planRole } from './certificates.ts'
import {
  applyIngressService,
  createIngressClass,
  faultsOfIngress,
  ingressKey,
  ingressStatus,
  planIngressService,
  writeIngressStatus,
} from './ingress.ts'
import { isOwnedBy, planService } from './service.ts'
import { acknowledgementsOf, classStatus, gatewayStatus, routeStatus, sameStatus } from './status.ts'

/** The class that every cluster has from the start. Who deletes it has it gone until this controller starts anew. */
const ownClass = 'own-class'
/** Key of the Service that all Ingresses share. */
const sharedService = 'ingress-service'
const ownClassName = 'weft'

const selectorOf = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',')

/**
 * GatewayClass, Gateway, HTTPRoute and GRPCRoute: their statuses, the Service that gives a Gateway its addresses, and the
 * nodes' right to its certificates. What a Gateway does is decided in src/gateway, the same here and on every node; here
 * it is only told. Keys are `class/<name>`, `gateway/<namespace>/<name>`, `HTTPRoute/…`, `GRPCRoute/…`,
 * `ingress/<namespace>/<name>`, `certificates/<namespace>`.
 */
export function gatewayController(context: LoopContext, readers: readonly Subject[] = certificateReaders): Part {
  return createLoop(context, {
    reads: [
      gatewayClasses,
      gateways,
      httpRoutes,
      grpcRoutes,
      referenceGrants,
      namespaces,
      services,
      nodes,
      ingresses,
      ingressClasses,
    ],
    workers: 4,
    begin: (start) => new GatewayLoop(context, start, readers).reconcile,
  })
}

class GatewayLoop {
  readonly #context: LoopContext
  readonly #start: LoopStart
  readonly #readers: readonly Subject[]
  readonly #model: GatewayModel
  readonly #writes: OwnWrites
  /** Under our own account: the controllers' shared copies hold no Secret. */
  readonly #secrets: Informer<Secret>
  readonly #roles: Informer<Role>
  /** By node, the routes of which it says that a rule could not be done. */
  readonly #faulty = new Map<string, ReadonlySet<string>>()
  #refreshWanted = true
  readonly reconcile: Reconcile

  constructor(context: LoopContext, start: LoopStart, readers: readonly Subject[]) {
    const { client, informers, clock, log } = context
    this.#context = context
    this.#start = start
    this.#readers = readers
    this.#writes = new OwnWrites(clock)
    this.#secrets = new Informer(client, secrets, { fieldSelector: 'type=kubernetes.io/tls', clock, log })
    this.#roles = new Informer(client, roles, { labelSelector: selectorOf(managedLabels), clock, log })
    this.#model = new GatewayModel({
      classes: informers.of(gatewayClasses),
      gateways: informers.of(gateways),
      httpRoutes: informers.of(httpRoutes),
      grpcRoutes: informers.of(grpcRoutes),
      grants: informers.of(referenceGrants),
      namespaces: informers.of(namespaces),
      services: informers.of(services),
      ingresses: informers.of(ingresses),
      ingressClasses: informers.of(ingressClasses),
      secret: (namespace, name) => this.#secrets.get(`${namespace}/${name}`),
      slices: () => [],
      addresses: (key) => addressesOfService(key === ingressGateway ? this.#ingressService() : this.#serviceOf(key)),
    })
    this.reconcile = (key, { signal }) => this.#reconcile(key, signal)
    this.#watch()
    start.controller.enqueue(ownClass)
  }

  #serviceOf(gateway: string) {
    const [namespace = '', name = ''] = gateway.split('/')
    const service = this.#context.informers.of(services).get(`${namespace}/${serviceNameOf(name)}`)
    const object = this.#context.informers.of(gateways).get(gateway)
    return service !== undefined && object !== undefined && isOwnedBy(service, object) ? service : undefined
  }

  #ingressService() {
    return this.#context.informers.of(services).get(keyOf({ metadata: ingressService }))
  }

  #watch(): void {
    const { informers } = this.#context
    const { controller, signal, start } = this.#start
    const all = () => {
      this.#model.touchAll()
      this.#refreshSoon()
    }
    informers.of(gatewayClasses).onChange((next, old) => {
      for (const object of [next, old]) if (object !== undefined) controller.enqueue(`class/${object.metadata.name}`)
      all()
    }, signal)
    informers.of(gateways).onChange((next, old) => {
      const object = next ?? old
      if (object === undefined) return
      this.#model.touchGateway(keyOf(object))
      controller.enqueue(`gateway/${keyOf(object)}`)
      this.#refreshSoon()
    }, signal)
    const route = (next: Route | undefined, old: Route | undefined) => {
      const object = next ?? old
      if (object === undefined) return
      this.#model.touchRoute(object)
      controller.enqueue(routeId(object))
      this.#refreshSoon()
    }
    informers.of(httpRoutes).onChange(route, signal)
    informers.of(grpcRoutes).onChange(route, signal)
    informers.of(referenceGrants).onChange(all, signal)
    informers.of(namespaces).onChange((next, old) => {
      if (next !== undefined && old !== undefined && sameLabels(next, old)) return
      this.#model.touchRoutes()
      this.#refreshSoon()
    }, signal)
    informers.of(services).onChange((next, old) => {
      const object = next ?? old
      if (object === undefined) return
      this.#model.touchService(keyOf(object))
      if (keyOf(object) === keyOf({ metadata: ingressService })) {
        this.#model.touchGateway(ingressGateway)
        controller.enqueue(sharedService)
        for (const ingress of informers.of(ingresses).list()) controller.enqueue(`ingress/${keyOf(ingress)}`)
      }
      const owner = object.metadata.labels?.[gatewayNameLabel]
      const gateway = object.metadata.ownerReferences?.find(({ kind }) => kind === 'Gateway')?.name ?? owner
      if (gateway !== undefined) {
        const key = `${object.metadata.namespace}/${gateway}`
        this.#model.touchGateway(key)
        controller.enqueue(`gateway/${key}`)
      }
      this.#refreshSoon()
    }, signal)
    informers.of(nodes).onChange((next, old) => {
      const before = old === undefined ? '' : JSON.stringify(acknowledgementsOf([old]))
      const after = next === undefined ? '' : JSON.stringify(acknowledgementsOf([next]))
      if (
        before === after &&
        next?.metadata.annotations?.[acknowledgement] === old?.metadata.annotations?.[acknowledgement]
      )
        return
      for (const key of this.#model.gateways.keys()) controller.enqueue(`gateway/${key}`)
      this.#enqueueFaulty(next ?? old)
    }, signal)
    const ingress = (next: Ingress | undefined, old: Ingress | undefined) => {
      const object = next ?? old
      if (object === undefined) return
      this.#model.touchIngresses()
      controller.enqueue(`ingress/${keyOf(object)}`)
      this.#refreshSoon()
    }
    informers.of(ingresses).onChange(ingress, signal)
    informers.of(ingressClasses).onChange(() => {
      this.#model.touchIngresses()
      for (const object of informers.of(ingresses).list()) controller.enqueue(`ingress/${keyOf(object)}`)
      this.#refreshSoon()
    }, signal)
    start((stop) => this.#secrets.run(stop))
    start((stop) => this.#roles.run(stop))
    this.#secrets.onChange((next, old) => {
      const object = next ?? old
      if (object === undefined) return
      this.#model.touchSecret(object.metadata.namespace, object.metadata.name)
      this.#refreshSoon()
    }, signal)
    this.#roles.onChange((next, old) => {
      const object = next ?? old
      if (object !== undefined) controller.enqueue(`certificates/${object.metadata.namespace}`)
    }, signal)
  }

  /** Routes of which the node says, or said, that a rule could not be done. */
  #enqueueFaulty(node: Node | undefined): void {
    if (node === undefined) return
    for (const id of this.#faulty.get(node.metadata.name) ?? []) this.#start.controller.enqueue(id)
    const [said] = acknowledgementsOf([node])
    const ids = [...(said?.said?.faults.keys() ?? [])].flatMap((id) => {
      const parts = id.split('/')
      return parts.length === 4 ? [parts.slice(0, 3).join('/')] : []
    })
    this.#faulty.set(node.metadata.name, new Set(ids))
    for (const id of ids) this.#start.controller.enqueue(id)
  }

  /** Before the next key is looked at, so that a burst of changes is one look. */
  #refreshSoon(): void {
    this.#refreshWanted = true
    this.#start.controller.enqueue('refresh')
  }

  #refresh(): void {
    if (!this.#refreshWanted) return
    this.#refreshWanted = false
    const changed = this.#model.refresh()
    const { controller } = this.#start
    for (const key of changed.gateways) controller.enqueue(key === ingressGateway ? sharedService : `gateway/${key}`)
    for (const id of changed.routes) controller.enqueue(id.startsWith('Ingress/') ? ingressKey(id) : id)
    if (changed.gateways.size === 0) return
    for (const namespace of this.#readable().keys()) controller.enqueue(`certificates/${namespace}`)
    for (const { metadata } of this.#roles.list()) controller.enqueue(`certificates/${metadata.namespace}`)
  }

  #readable() {
    return permittedSecrets(this.#model.gateways, this.#context.informers.of(referenceGrants).list())
  }

  async #reconcile(key: string, signal: AbortSignal) {
    await Promise.all([this.#secrets.whenSynced(signal), this.#roles.whenSynced(signal)])
    await this.#writes.whenSeen(key, signal)
    this.#refresh()
    const slash = key.indexOf('/')
    const [kind, name] = slash < 0 ? [key, ''] : [key.slice(0, slash), key.slice(slash + 1)]
    if (kind === ownClass) await this.#createClasses(signal)
    else if (kind === sharedService) await this.#sharedService(key, signal)
    else if (kind === 'ingress') await this.#ingressStatus(key, name, signal)
    else if (kind === 'class') await this.#classStatus(key, name, signal)
    else if (kind === 'gateway') await this.#gateway(key, name, signal)
    else if (kind === 'certificates') await this.#certificates(name, signal)
    else if (kind === 'HTTPRoute' || kind === 'GRPCRoute') await this.#routeStatus(key, kind, name, signal)
    return awaitChange
  }

  async #sharedService(key: string, signal: AbortSignal): Promise<void> {
    const { client, informers } = this.#context
    const action = planIngressService(this.#model.gateway(ingressGateway), this.#ingressService())
    if (action === undefined) return
    const answer = await applyIngressService(client, action, signal)
    if (answer !== undefined) this.#writes.wrote(key, informers.of(services), answer)
  }

  async #ingressStatus(key: string, name: string, signal: AbortSignal): Promise<void> {
    const { client, informers } = this.#context
    const copies = informers.of(ingresses)
    const ingress = copies.get(name)
    if (ingress === undefined) return
    const status = ingressStatus(ingress, informers.of(ingressClasses), this.#ingressService())
    // An Ingress has no conditions: what is wrong with it is told as events.
    for (const { reason, message } of faultsOfIngress(ingress, this.#model))
      this.#start.events.record(ingress, { type: 'Warning', reason, message })
    if (status === undefined) return
    this.#writes.wrote(key, copies, await writeIngressStatus(client, ingress, status, signal))
  }

  async #createClasses(signal: AbortSignal): Promise<void> {
    const { client, informers } = this.#context
    if (informers.of(ingressClasses).get(ingressClassName) === undefined) await createIngressClass(client, signal)
    if (informers.of(gatewayClasses).get(ownClassName) !== undefined) return
    const description = "Weft's own gateway, on every node"
    try {
      const spec = { controllerName, description }
      await client.create(gatewayClasses, { metadata: { name: ownClassName }, spec }, { signal })
    } catch (error) {
      if (!isStatus(error, 'AlreadyExists')) throw error
    }
  }

  #now(): string {
    return formatTime(this.#context.clock.now())
  }

  async #classStatus(key: string, name: string, signal: AbortSignal): Promise<void> {
    const copies = this.#context.informers.of(gatewayClasses)
    const present = copies.get(name)
    if (present === undefined || !isOurs(present)) return
    const status = classStatus(present, this.#now())
    if (status === undefined || sameStatus(present.status, status)) return
    const answer = await this.#context.client.update(
      gatewayClasses,
      { ...present, status },
      { subresource: 'status', signal },
    )
    this.#writes.wrote(key, copies, answer)
  }

  async #gateway(key: string, name: string, signal: AbortSignal): Promise<void> {
    const { client, informers } = this.#context
    const copies = informers.of(gateways)
    const gateway = copies.get(name)
    // Its Service goes with it, by its owner reference.
    if (gateway === undefined || gateway.metadata.deletionTimestamp !== undefined) return
    const result = this.#model.gateway(name)
    const action = planService(gateway, result, this.#serviceOf(name))
    if (action !== undefined) {
      try {
        const answer = await applyService(client, gateway, action, signal)
        if (answer !== undefined) this.#writes.wrote(key, informers.of(services), answer)
      } catch (error) {
        // Somebody's own Service has the name: it stays, and the Gateway is told why it has no address.
        if (!isStatus(error, 'AlreadyExists')) throw error
        const message = `Service ${gateway.metadata.namespace}/${serviceNameOf(gateway.metadata.name)} is somebody else's`
        this.#start.events.record(gateway, { type: 'Warning', reason: 'AddressNotAssigned', message })
      }
    }
    if (result === undefined) return
    const view = {
      gateway,
      result,
      nodes: acknowledgementsOf(informers.of(nodes).list()),
      attachedRoutes: (listener: string) => this.#model.attachedRoutes(name, listener),
    }
    const status = gatewayStatus(view, this.#now())
    if (sameStatus(gateway.status, status)) return
    const answer = await client.update(gateways, { ...gateway, status }, { subresource: 'status', signal })
    this.#writes.wrote(key, copies, answer)
  }

  async #routeStatus(key: string, kind: 'HTTPRoute' | 'GRPCRoute', name: string, signal: AbortSignal): Promise<void> {
    const { client, informers } = this.#context
    const resource = kind === 'HTTPRoute' ? httpRoutes : grpcRoutes
    const copies = informers.of<Route>(resource)
    const route = copies.get(name)
    if (route === undefined) return
    const result = this.#model.route(key)
    const status = routeStatus(route, result, acknowledgementsOf(informers.of(nodes).list()), this.#now())
    if (sameStatus(route.status ?? { parents: [] }, status)) return
    const answer = await client.update<Route>(resource, { ...route, status }, { subresource: 'status', signal })
    this.#writes.wrote(key, copies, answer)
  }

  async #certificates(namespace: string, signal: AbortSignal): Promise<void> {
    const present = this.#roles.list(namespace)[0]
    const action = planRole(namespace, this.#readable().get(namespace), present)
    if (action !== undefined) await applyRole(this.#context.client, namespace, action, this.#readers, signal)
  }
}

const sameLabels = (a: KubeObject, b: KubeObject): boolean =>
  JSON.stringify(a.metadata.labels ?? {}) === JSON.stringify(b.metadata.labels ?? {})
