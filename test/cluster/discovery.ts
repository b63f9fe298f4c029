import { readFileSync } from 'node:fs'
import { endpointSlices, nodes, pods, services } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { ClusterLayout } from '#cli/cluster/layout.ts'
import type { Client } from '#client/client.ts'
import { createHttpClient, type HttpClient } from '#client/http.ts'
import { httpOptionsOf, parseKubeconfig } from '#client/kubeconfig.ts'

/** What Prometheus's discovery calls a group: addresses to read, and what is known of them. */
export interface Group {
  readonly targets: readonly string[]
  readonly labels: Readonly<Record<string, string>>
}

/** A client with the rights of whoever has the token, and no other. */
export async function clientOf(layout: ClusterLayout, token: string): Promise<HttpClient> {
  const { server, cluster, ca = '' } = await parseKubeconfig(readFileSync(layout.server.adminKubeconfig, 'utf8'))
  return createHttpClient(httpOptionsOf({ server, cluster, ca, user: 'prometheus', token }))
}

/**
 * What discovery by the Kubernetes API asks for the roles of our configuration (node; endpointslice in one namespace, for
 * which it reads Services and pods too), list and watch, and the labels that it makes of the answers.
 */
export async function discover(client: Client): Promise<{ readonly node: Group[]; readonly endpointslice: Group[] }> {
  const namespace = 'default'
  const [foundNodes, slices, foundServices] = await Promise.all([
    listAndWatch(client, nodes),
    listAndWatch(client, endpointSlices, namespace),
    listAndWatch(client, services, namespace),
    listAndWatch(client, pods, namespace),
  ])
  const names = new Set(foundServices.map(({ metadata }) => metadata.name))
  return {
    node: foundNodes.map(({ metadata, status }) => ({
      targets: [
        `${status.addresses?.find((a) => a.type === 'InternalIP')?.address}:${status.daemonEndpoints?.kubeletEndpoint?.Port}`,
      ],
      labels: { __meta_kubernetes_node_name: metadata.name },
    })),
    endpointslice: slices.flatMap(({ metadata, endpoints, ports }) =>
      (endpoints ?? []).flatMap(({ addresses }) =>
        (ports ?? []).map(({ name, port }): Group => {
          const service = metadata.labels?.['kubernetes.io/service-name'] ?? ''
          return {
            targets: [`${addresses[0]}:${port}`],
            labels: {
              ...(names.has(service) ? { __meta_kubernetes_service_name: service } : {}),
              __meta_kubernetes_endpointslice_port_name: name ?? '',
            },
          }
        }),
      ),
    ),
  }
}

/** All objects by a list, and by a watch the same ones. Throws where either is refused or they differ. */
export async function listAndWatch<K extends KubeObject>(
  client: Client,
  resource: Resource<K>,
  namespace?: string,
): Promise<readonly K[]> {
  const { items } = await client.list(resource, { namespace })
  const stop = new AbortController()
  const seen = new Set<string>()
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(10_000)])
  for await (const event of client.watch(resource, { namespace, sendInitialEvents: true, signal })) {
    if (event.type === 'BOOKMARK') {
      if (event.initialEventsEnd) break
    } else seen.add(event.object.metadata.name)
  }
  stop.abort()
  const missing = items.filter(({ metadata }) => !seen.has(metadata.name))
  if (missing.length > 0) throw new Error(`a watch of ${resource.resource} does not tell of ${missing.length} of them`)
  return items
}
