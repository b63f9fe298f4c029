import type { Service as ApiService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { NetworkPolicy as ApiPolicy } from '#api/gen/networking-v1.ts'
import type { NetworkPolicy, Pod, Service } from '../cluster.ts'

/** The model's objects as the API has them, for the product's compilers. */

/** The object of the API that the agent would be told of. */
export function apiService(service: Service): ApiService {
  const { namespace, name, type, clusterIPs, ports, ingressIPs = [], affinitySeconds, sourceRanges } = service
  return {
    metadata: { namespace, name },
    spec: {
      type,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ports: ports.map((port) => ({ name: `p${port.port}`, ...port })),
      ...(service.externalIPs === undefined ? {} : { externalIPs: service.externalIPs }),
      ...(service.externalTrafficPolicy === undefined ? {} : { externalTrafficPolicy: service.externalTrafficPolicy }),
      ...(service.internalTrafficPolicy === undefined ? {} : { internalTrafficPolicy: service.internalTrafficPolicy }),
      ...(sourceRanges === undefined ? {} : { loadBalancerSourceRanges: sourceRanges }),
      ...(affinitySeconds === undefined
        ? {}
        : {
            sessionAffinity: 'ClientIP',
            sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } },
          }),
    },
    status: { loadBalancer: { ingress: ingressIPs.map((ip) => ({ ip })) } },
  } as unknown as ApiService
}

/** One slice for each port and family. */
export function slicesOf({ namespace, name, ports, endpoints }: Service): EndpointSlice[] {
  return ports.flatMap(({ port, protocol }) =>
    (['IPv4', 'IPv6'] as const).flatMap((addressType) => {
      const all = (endpoints[port] ?? []).filter((e) => e.address.includes(':') === (addressType === 'IPv6'))
      return [...new Set(all.map((e) => e.port))].map(
        (target) =>
          ({
            metadata: {
              namespace,
              name: `${name}-${port}-${addressType}-${target}`,
              labels: { 'kubernetes.io/service-name': name },
            },
            addressType,
            ports: [{ name: `p${port}`, port: target, protocol }],
            endpoints: all
              .filter((e) => e.port === target)
              .map((e) => ({
                addresses: [e.address],
                nodeName: e.node,
                conditions: { ready: e.ready, serving: e.serving, terminating: e.terminating },
              })),
          }) as unknown as EndpointSlice,
      )
    }),
  )
}

/** Ports of a pod's containers, as the compiler of policies has them. */
export const containerPorts = ({
  ports,
}: Pod): { name: string; number: number; protocol: Pod['ports'][number]['protocol'] }[] =>
  ports.map(({ name, port, protocol }) => ({ name, number: port, protocol }))

/** `uid`: of this state of it, for the compiler keeps what it has seen. */
export const apiPolicy = ({ namespace, name, spec }: NetworkPolicy, uid: string): ApiPolicy =>
  ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { namespace, name, uid, generation: 1 },
    spec,
  }) as unknown as ApiPolicy
