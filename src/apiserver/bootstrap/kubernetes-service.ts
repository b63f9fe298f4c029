import type { Endpoints, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { parseAddress } from '#base/net/address.ts'

export interface ServerAddress {
  readonly address: string
  readonly port: number
}

const meta = { namespace: 'default', name: 'kubernetes', uid: '', resourceVersion: '', creationTimestamp: '' }
const family = (address: string): 'IPv4' | 'IPv6' => (parseAddress(address)?.family === 6 ? 'IPv6' : 'IPv4')

/** The Service through which pods reach this server: port 443 at the service network's first address, no selector. */
export function kubernetesService(clusterIp: string, targetPort: number): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { ...meta, labels: { component: 'apiserver', provider: 'kubernetes' } },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIp,
      clusterIPs: [clusterIp],
      ipFamilies: [family(clusterIp)],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: [{ name: 'https', protocol: 'TCP', port: 443, targetPort }],
    },
    status: { loadBalancer: {} },
  }
}

/** Its addresses in the old form. The label keeps the mirroring of Endpoints into slices away from it. */
export function kubernetesEndpoints(servers: readonly ServerAddress[], clusterIp: string): Endpoints {
  const ofFamily = servers.filter(({ address }) => family(address) === family(clusterIp))
  return {
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { ...meta, labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } },
    subsets: [...new Set(ofFamily.map(({ port }) => port))].map((port) => ({
      addresses: ofFamily.filter((s) => s.port === port).map(({ address }) => ({ ip: address })),
      ports: [{ name: 'https', port, protocol: 'TCP' }],
    })),
  }
}

/** Its addresses as the network reads them. Managed by the server itself, so no controller touches it. */
export function kubernetesSlice(servers: readonly ServerAddress[], clusterIp: string): EndpointSlice {
  const ofFamily = servers.filter(({ address }) => family(address) === family(clusterIp))
  const [first] = ofFamily
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...meta, labels: { 'kubernetes.io/service-name': 'kubernetes' } },
    addressType: family(clusterIp),
    endpoints: ofFamily.map(({ address }) => ({ addresses: [address], conditions: { ready: true } })),
    ports: first ? [{ name: 'https', port: first.port, protocol: 'TCP' }] : [],
  }
}
