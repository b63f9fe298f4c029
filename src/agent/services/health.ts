import { createServer, type Server } from 'node:http'
import type { Service as KubeService, Node } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import { Namespace } from '#kernel/netns.ts'

/** kube-proxy's port for "does this node take traffic", which cloud load balancers ask. */
export const healthzPort = 10_256
/** The autoscaler has chosen the node to go (KEP-3836). */
const toBeDeletedTaint = 'ToBeDeletedByClusterAutoscaler'

/** What a health check of a Service with externalTrafficPolicy Local says. */
export interface ServiceHealth {
  readonly namespace: string
  readonly name: string
  readonly port: number
  /** Ready ones of this node. One that is going does not count: the load balancer shall leave before it is gone. */
  readonly localEndpoints: number
}

/** Undefined for a Service that has no health check. Pure. */
export function healthOf(
  { metadata, spec }: KubeService,
  slices: readonly EndpointSlice[],
  nodeName: string,
): ServiceHealth | undefined {
  const { healthCheckNodePort: port = 0 } = spec
  if (spec.type !== 'LoadBalancer' || spec.externalTrafficPolicy !== 'Local' || port === 0) return undefined
  const local = slices.flatMap(({ addressType, endpoints = [] }) =>
    endpoints.flatMap(({ addresses, conditions, nodeName: at, targetRef }) =>
      at === nodeName && (conditions?.ready ?? true) ? [targetRef?.uid ?? `${addressType} ${addresses[0]}`] : [],
    ),
  )
  // A pod of two families is in a slice of each.
  return { namespace: metadata.namespace, name: metadata.name, port, localEndpoints: new Set(local).size }
}

/** Whether load balancers shall send to this node: not where it is going. Pure. */
export const isEligible = (node: Node | undefined): boolean =>
  node === undefined ||
  (node.metadata.deletionTimestamp === undefined && !(node.spec.taints ?? []).some((t) => t.key === toBeDeletedTaint))

export interface HealthOptions {
  /** The node's network namespace; absent: our own. */
  readonly namespace?: Namespace
  readonly isEligible: () => boolean
  readonly clock: Clock
  readonly log: Log
}

/** The node's answers to load balancers: one port for the node, one for each Service that has a health check. */
export class HealthServers implements AsyncDisposable {
  readonly #options: HealthOptions
  readonly #servers = new Map<number, readonly Server[]>()
  #services: ReadonlyMap<number, ServiceHealth> = new Map()
  #updated: Date

  constructor(options: HealthOptions) {
    this.#options = options
    this.#updated = new Date(options.clock.now())
  }

  /** Begins to listen where it has to; a port that is taken is said, and tried with the next change. */
  set(services: readonly ServiceHealth[]): void {
    this.#services = new Map(services.map((service) => [service.port, service]))
    this.#updated = new Date(this.#options.clock.now())
    for (const port of [healthzPort, ...this.#services.keys()]) if (!this.#servers.has(port)) this.#listen(port)
    for (const [port, servers] of this.#servers) {
      if (port === healthzPort || this.#services.has(port)) continue
      for (const server of servers) server.close()
      this.#servers.delete(port)
    }
  }

  #listen(port: number): void {
    const { namespace, log } = this.#options
    const servers: Server[] = []
    try {
      using own = Namespace.own()
      for (const address of ['0.0.0.0', '::']) {
        const socket = (namespace ?? own).listen(address, port)
        const server = createServer((request, response) => {
          const { status, body } = this.answer(port, request.url ?? '/')
          response.writeHead(status, { 'content-type': 'application/json', 'x-content-type-options': 'nosniff' })
          response.end(`${JSON.stringify(body)}\n`)
        })
        server.on('error', (error) => log.warn({ err: error, port }, 'a health check port does not answer'))
        server.requestTimeout = 5_000
        server.maxConnections = 256
        server.listen({ fd: socket.release() })
        servers.push(server)
      }
      this.#servers.set(port, servers)
    } catch (error) {
      for (const server of servers) server.close()
      log.warn({ err: error, port }, 'a health check port cannot be listened on')
    }
  }

  /** In kube-proxy's form. */
  answer(port: number, path: string): { readonly status: number; readonly body: unknown } {
    const { clock, isEligible: eligible } = this.#options
    if (port === healthzPort) {
      const nodeEligible = eligible()
      const isHealthy = path.startsWith('/livez') || nodeEligible
      const body = { lastUpdated: this.#updated, currentTime: new Date(clock.now()), nodeEligible }
      return { status: isHealthy ? 200 : 503, body }
    }
    const service = this.#services.get(port)
    if (service === undefined) return { status: 404, body: {} }
    const { namespace, name, localEndpoints } = service
    const body = { service: { namespace, name }, localEndpoints, serviceProxyHealthy: true }
    return { status: localEndpoints > 0 ? 200 : 503, body }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const servers = [...this.#servers.values()].flat()
    this.#servers.clear()
    await Promise.all(
      servers.map((server) => {
        server.closeAllConnections()
        return new Promise<void>((done) => server.close(() => done()))
      }),
    )
  }
}
