import type { Pod } from '#api/gen/core-v1.ts'
import { type Service, serviceNumber } from '#datapath/datapath.ts'

/** A pod that still answers: hostPorts are taken away as soon as it has ended or is told to go and has. */
const isOver = ({ status }: Pod): boolean => status?.phase === 'Succeeded' || status?.phase === 'Failed'

/** What the node's own processes may ask at, beside its addresses: packets to these never leave the namespace they are in. */
const loopback = ['127.0.0.1', '::1']
export const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1'

/**
 * The host ports of a pod of this node, as rows of their own: each of the node's addresses leads to the pod, and so does its
 * loopback for the node's own sockets. A pod on the host's network has its ports already. `own`: the node's addresses. Pure.
 */
export function reflectHostPorts(pod: Pod, own: readonly string[]): Service[] {
  if (pod.spec.hostNetwork || isOver(pod)) return []
  const ips = (pod.status?.podIPs ?? []).flatMap(({ ip }) => (ip === undefined || ip === '' ? [] : [ip]))
  const number = serviceNumber(`pod ${pod.metadata.namespace}/${pod.metadata.name}`)
  // A sidecar is an init container that stays (KEP-753).
  const containers = [...pod.spec.containers, ...(pod.spec.initContainers ?? []).filter((c) => c.restartPolicy)]
  return containers.flatMap(({ ports = [] }) =>
    ports.flatMap(({ hostPort = 0, hostIP = '', containerPort, protocol = 'TCP' }): Service[] => {
      if (hostPort === 0) return []
      const any = hostIP === '' || hostIP === '0.0.0.0' || hostIP === '::'
      const at = any ? [...own, ...loopback] : [hostIP]
      return at.flatMap((address): Service[] => {
        const ip = ips.find((candidate) => candidate.includes(':') === address.includes(':'))
        // 0.0.0.0 is every IPv4 address, :: every IPv6 one, and nothing said is both.
        const isOther = hostIP === '0.0.0.0' ? address.includes(':') : hostIP === '::' && !address.includes(':')
        if (ip === undefined || isOther) return []
        const backends = [{ address: ip, port: containerPort, protocol }]
        const frontend = { address, port: hostPort, protocol }
        // Socket hooks serve it, which know TCP and UDP; nothing that comes by a device may ask for it.
        if (isLoopback(address)) return protocol === 'SCTP' ? [] : [{ frontend, number, port: hostPort, backends }]
        return [{ frontend, number, port: hostPort, backends, outside: { backends, isLocal: true } }]
      })
    }),
  )
}
