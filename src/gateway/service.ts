import { createHash } from 'node:crypto'
import type { Service } from '#api/gen/core-v1.ts'

/** Upstream's label on what is made for a Gateway (gateway-api, GEP-1762). */
export const gatewayNameLabel = 'gateway.networking.k8s.io/gateway-name'
/** Ours: who answers at the Service's addresses; not endpoints of its own, but every node's L7 engine. */
export const servedByLabel = 'weft.dev/served-by'
export const servedByGateway = 'gateway'

/** Name of the Service that stands for a Gateway: a Service's name is a label, a Gateway's may be longer. */
export function serviceNameOf(gateway: string): string {
  const name = `weft-gateway-${gateway}`
  if (name.length <= 63 && !gateway.includes('.')) return name
  return `${name.replaceAll('.', '-').slice(0, 52)}-${createHash('sha256').update(gateway).digest('hex').slice(0, 10)}`
}

/** The addresses at which a Gateway's Service is reached from outside, in the order of its families. */
export const addressesOfService = (service: Service | undefined): string[] =>
  (service?.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined || ip === '' ? [] : [ip]))
