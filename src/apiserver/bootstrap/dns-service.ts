import type { Service } from '#api/gen/core-v1.ts'
import { formatAddress, parseCidr } from '#base/net/address.ts'

/** Upstream's convention: the cluster's resolver has the Service network's tenth address. */
const dnsIndex = 10n

/**
 * The Service by which pods ask for names. It has no selector and no endpoints: each node answers by itself, and takes
 * its packets to its own resolver. Whoever gives it a selector runs a resolver of their own.
 */
export function dnsService(serviceCidrs: readonly string[]): Service {
  const networks = serviceCidrs.flatMap((cidr) => parseCidr(cidr) ?? [])
  const clusterIPs = networks.map(({ family, base }) => formatAddress({ family, value: base + dnsIndex }))
  const [clusterIP] = clusterIPs
  if (clusterIP === undefined) throw new Error('Cannot make the Service kube-dns: there is no Service network')
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      namespace: 'kube-system',
      name: 'kube-dns',
      uid: '',
      resourceVersion: '',
      creationTimestamp: '',
      labels: {
        'k8s-app': 'kube-dns',
        'kubernetes.io/cluster-service': 'true',
        'kubernetes.io/name': 'Weft',
      },
    },
    spec: {
      type: 'ClusterIP',
      clusterIP,
      clusterIPs,
      ipFamilies: networks.map(({ family }) => (family === 4 ? 'IPv4' : 'IPv6')),
      ipFamilyPolicy: networks.length > 1 ? 'PreferDualStack' : 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: [
        { name: 'dns', protocol: 'UDP', port: 53, targetPort: 53 },
        { name: 'dns-tcp', protocol: 'TCP', port: 53, targetPort: 53 },
      ],
    },
    status: { loadBalancer: {} },
  }
}
