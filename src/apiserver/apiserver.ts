import type { Duplex } from 'node:stream'
import type { KindDefinition } from '#api/kind.ts'
import { badRequest } from '#api/meta/status.ts'
import type { ApiHandler, ApiRequest } from '#api/wire.ts'
import { Scope } from '#base/async/scope.ts'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { Store } from '#store/store.ts'
import { createAccess } from './access.ts'
import type { PortRange } from './allocate/ranges.ts'
import { forbiddenFor } from './authorize/forbidden.ts'
import { serverItself } from './bootstrap/bootstrap.ts'
import type { ServerAddress } from './bootstrap/kubernetes-service.ts'
import { notServed } from './call.ts'
import { CustomResources } from './crd/crd.ts'
import { type BundledDefinitions, installDefinitions } from './crd/install.ts'
import { Documents } from './documents.ts'
import { Listener, type ListenTarget } from './listen.ts'
import { Metrics } from './metrics.ts'
import type { Pki } from './pki/pki.ts'
import { expireEvents } from './registry/expire-events.ts'
import { Registry } from './registry/registry.ts'
import { Resources } from './resources.ts'
import { parseRoute } from './route.ts'
import { Server } from './serve.ts'
import type { UpgradeHandler, User } from './step.ts'
import { connectOptions, isConnect } from './stream/connect-options.ts'

export interface ApiServerOptions {
  /** The caller's: open before, closed after. */
  readonly store: Store
  readonly kinds: readonly KindDefinition[]
  readonly pki: Pki
  /** One network, or one of each family, the primary first. */
  readonly serviceCidrs: readonly string[]
  readonly nodePorts?: PortRange
  /** Where pods and nodes reach this server. */
  readonly servers: readonly ServerAddress[]
  readonly issuer?: string
  /** Bearer tokens of the parts that run beside the server. Read at each request, so it may be filled later. */
  readonly staticTokens: ReadonlyMap<string, User>
  /** Metrics of what runs beside the server, in the text format; `/metrics` shows them below its own. */
  readonly otherMetrics?: () => Promise<string>
  /** CustomResourceDefinitions that come with the server; none if absent. */
  readonly bundled?: BundledDefinitions
  readonly clock?: Clock
  readonly log?: Log
  /** A request's body must arrive within this. */
  readonly bodyTimeoutMs?: number
}

/** A running server. */
export interface ApiServer {
  /** The API in process: the whole journey but TLS. */
  readonly handler: ApiHandler
  readonly registry: Registry
  /** Takes connections there, too. Resolves with the port. */
  listen(target: ListenTarget): Promise<number>
  /** Stops taking requests and lets those under way finish for a moment. */
  close(): Promise<void>
}

/** Puts the API server together, in the order of a request's journey read backwards: what is stored, first. */
export async function createApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { store, kinds, pki, clock = systemClock, log = silentLog } = options
  let ready = false
  let closing = false

  const registry = await Registry.open(store, kinds, clock)
  const access = createAccess({ ...options, registry, revision: registry.revision, clock, log })
  registry.admitWith(access.admission)
  const metrics = new Metrics(registry)
  const resources = new Resources({
    registry,
    subresources: access.subresources,
    observe: (group, version, resource) => metrics.observeWatch(group, version, resource),
  })
  const [first] = options.servers
  const documents = new Documents({
    checks: [
      { name: 'ping', check: () => undefined },
      { name: 'store', readyOnly: true, check: () => registry.trouble },
      { name: 'bootstrap', readyOnly: true, check: () => (ready ? undefined : 'the cluster is being set up') },
      { name: 'shutdown', readyOnly: true, check: () => (closing ? 'the server is shutting down' : undefined) },
    ],
    metrics: async () => `${await metrics.text()}${(await options.otherMetrics?.()) ?? ''}`,
    address: first ? `${first.address}:${first.port}` : 'localhost:6443',
    fixed: access.documents,
  })
  registry.onKinds((served) => documents.describe(served))
  const server = new Server({
    authenticate: access.authenticate,
    anonymousFor: (path) => access.anonymousFor(path),
    authorize: access.authorize,
    forbidden: forbiddenFor,
    resources,
    documents: (request, query) => documents.serve(request, query),
    metrics,
    clock,
    log,
  })
  const stopExpiring = expireEvents(registry, clock, log)
  const custom = new CustomResources({ registry, host: registry, builtIn: kinds, clock, log })
  await custom.start()
  const tasks = new Scope()
  tasks.start((signal) => custom.run(signal))
  await access.bootstrap()
  if (options.bundled) await installDefinitions(registry, options.bundled, serverItself)
  ready = true

  const listeners: Listener[] = []
  pki.onRenewed((leaf) => {
    log.info({ leaf }, 'a certificate was renewed')
    if (leaf === 'serving') for (const listener of listeners) listener.renew()
  })
  tasks.start((signal) => pki.keepFresh(signal, log))
  return {
    handler: (request) => server.serve(request, undefined),
    registry,
    async listen(target) {
      const listener = new Listener({
        certificate: () => ({ cert: pki.serving.certificate, key: pki.serving.key }),
        clientCa: pki.authority.certificate,
        serve: (request, certificate) => server.serve(request, certificate),
        upgrade: (request, certificate, socket, head) =>
          upgrade({ server, registry, upgrades: access.upgrades, metrics }, request, certificate, socket, head),
        log,
        ...(options.bodyTimeoutMs === undefined ? {} : { bodyTimeoutMs: options.bodyTimeoutMs }),
      })
      listeners.push(listener)
      return listener.listen(target)
    },
    async close() {
      closing = true
      stopExpiring()
      tasks.stop()
      await Promise.all(listeners.map((listener) => listener.close()))
      await tasks.done()
      server.close()
      await access.close()
      registry.close()
    },
  }
}

interface UpgradeParts {
  readonly server: Server
  readonly registry: Registry
  readonly upgrades: ReadonlyMap<string, UpgradeHandler>
  readonly metrics: Metrics
}

/** An HTTP/1.1 Upgrade: the same journey up to admission, then the connection is the handler's. */
async function upgrade(
  { server, registry, upgrades, metrics }: UpgradeParts,
  request: ApiRequest,
  certificate: Uint8Array | undefined,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  try {
    const query = new URLSearchParams(request.query)
    const asked = parseRoute(request.method, request.path, query)
    const handler = upgrades.get(`${asked.group}/${asked.resource}/${asked.subresource}`)
    // Whoever may run a command must be allowed to `create` it, also where the method is GET (upstream since 1.35).
    const connects = handler !== undefined && isConnect(asked.subresource)
    const route = connects ? { ...asked, verb: 'create' } : asked
    const { attributes } = await server.admit(request, certificate, route)
    if (!asked.isResource || registry.find(asked.group, asked.version, asked.resource) === undefined) throw notServed()
    if (handler === undefined) throw badRequest(`${request.path} cannot be upgraded to a stream`)
    if (connects) {
      const about = { attributes, object: connectOptions(asked.subresource, query), old: undefined, dryRun: false }
      registry.admission?.validate({ ...about, operation: 'CONNECT', warn() {} })
    }
    const observer = metrics.observeWatch(asked.group, asked.version, asked.resource)
    observer.opened()
    socket.once('close', () => observer.closed())
    await handler({ request, attributes, body: undefined, query, dryRun: false, registry }, socket, head)
  } catch (error) {
    throw server.statusOf(error, request)
  }
}
