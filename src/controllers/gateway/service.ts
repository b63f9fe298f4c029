import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Service, ServicePort, ServiceSpec } from '#api/gen/core-v1.ts'
import type { OwnerReference } from '#api/gen/meta-v1.ts'
import type { Draft } from '#client/client.ts'
import type { GatewayResult } from '#gateway/gateways.ts'
import type { Gateway } from '#gateway/objects.ts'
import { gatewayNameLabel, servedByGateway, servedByLabel, serviceNameOf } from '#gateway/service.ts'
import { wantedAddressesAnnotation } from '../load-balancer/plan.ts'

export type ServiceAction =
  | { readonly do: 'create'; readonly service: Draft<Service> }
  | { readonly do: 'patch'; readonly patch: unknown }
  | { readonly do: 'delete' }

/** What we put on the Service beside its ports, by which we know what to take away again. */
const infrastructureAnnotation = 'gateway.weft.dev/infrastructure'

/**
 * The one write that brings a Gateway's Service to what it should be: that it has addresses and can be seen, selected and
 * annotated as infrastructure. `result` undefined, or not accepted: there should be none. Pure.
 */
export function planService(
  gateway: Gateway,
  result: GatewayResult | undefined,
  present: Service | undefined,
): ServiceAction | undefined {
  const ports = result === undefined || result.accepted.status === 'False' ? [] : portsOf(result)
  if (result === undefined || ports.length === 0) {
    return present !== undefined && isOwnedBy(present, gateway) ? { do: 'delete' } : undefined
  }
  const { labels = {}, annotations = {} } = gateway.spec.infrastructure ?? {}
  const wantedAnnotations: Record<string, string> = {
    ...annotations,
    ...(result.wantedAddresses.length === 0 ? {} : { [wantedAddressesAnnotation]: result.wantedAddresses.join(',') }),
  }
  const wantedLabels: Record<string, string> = {
    ...labels,
    [gatewayNameLabel]: gateway.metadata.name.length > 63 ? shorten(gateway.metadata.name) : gateway.metadata.name,
    [servedByLabel]: servedByGateway,
  }
  const spec = specOf(result, ports)
  const given = JSON.stringify([Object.keys(wantedLabels), Object.keys(wantedAnnotations)])
  wantedAnnotations[infrastructureAnnotation] = given
  if (present === undefined) {
    const metadata = {
      name: serviceNameOf(gateway.metadata.name),
      namespace: gateway.metadata.namespace,
      labels: wantedLabels,
      annotations: wantedAnnotations,
      ownerReferences: [ownerOf(gateway)],
    }
    return { do: 'create', service: { metadata, spec } }
  }
  const [oldLabels, oldAnnotations] = givenBefore(present)
  const labelChange = changeOf(present.metadata.labels, wantedLabels, oldLabels)
  const annotationChange = changeOf(present.metadata.annotations, wantedAnnotations, oldAnnotations)
  const portChange = !isDeepStrictEqual(present.spec.ports?.map(plain), spec.ports?.map(plain))
  const typeChange = present.spec.type !== 'LoadBalancer'
  if (labelChange === undefined && annotationChange === undefined && !portChange && !typeChange) return undefined
  return {
    do: 'patch',
    patch: {
      metadata: {
        uid: present.metadata.uid,
        ...(labelChange === undefined ? {} : { labels: labelChange }),
        ...(annotationChange === undefined ? {} : { annotations: annotationChange }),
      },
      ...(portChange || typeChange ? { spec: { type: 'LoadBalancer', ports: spec.ports } } : {}),
    },
  }
}

/** One port for each port of a listener that is served, whatever its name and hostname. */
export function portsOf({ listeners }: GatewayResult): ServicePort[] {
  const numbers = new Set(listeners.filter(({ accepted }) => accepted).map(({ listener }) => listener.port))
  return [...numbers]
    .toSorted((a, b) => a - b)
    .map((port) => ({ name: `port-${port}`, port, targetPort: port, protocol: 'TCP' }))
}

/** Named addresses decide the families; without any, both where the cluster has both. */
function specOf({ wantedAddresses }: GatewayResult, ports: ServicePort[]): ServiceSpec {
  const v4 = wantedAddresses.some((address) => !address.includes(':'))
  const v6 = wantedAddresses.some((address) => address.includes(':'))
  const families: Pick<ServiceSpec, 'ipFamilies' | 'ipFamilyPolicy'> =
    v4 === v6
      ? { ipFamilyPolicy: 'PreferDualStack' }
      : { ipFamilyPolicy: 'SingleStack', ipFamilies: [v4 ? 'IPv4' : 'IPv6'] }
  return { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false, ports, ...families }
}

const plain = ({ name, port, protocol }: ServicePort) => ({ name, port, protocol })

/** Labels or annotations to write: what is wanted and differs, and null for what was ours and is wanted no more. */
function changeOf(
  present: Readonly<Record<string, string>> | undefined,
  wanted: Readonly<Record<string, string>>,
  before: readonly string[],
): Record<string, string | null> | undefined {
  const change: Record<string, string | null> = {}
  for (const [key, value] of Object.entries(wanted)) if (present?.[key] !== value) change[key] = value
  for (const key of before) if (wanted[key] === undefined && present?.[key] !== undefined) change[key] = null
  return Object.keys(change).length === 0 ? undefined : change
}

function givenBefore({ metadata }: Service): readonly [readonly string[], readonly string[]] {
  try {
    const [labels, annotations] = JSON.parse(
      metadata.annotations?.[infrastructureAnnotation] ?? '[[],[]]',
    ) as string[][]
    return [labels ?? [], annotations ?? []]
  } catch {
    return [[], []]
  }
}

export const isOwnedBy = ({ metadata }: Service, gateway: Gateway): boolean =>
  metadata.ownerReferences?.some(({ uid }) => uid === gateway.metadata.uid) ?? false

const ownerOf = ({ apiVersion, kind, metadata }: Gateway): OwnerReference => ({
  apiVersion,
  kind,
  name: metadata.name,
  uid: metadata.uid,
  controller: true,
  blockOwnerDeletion: true,
})

const shorten = (name: string): string =>
  `${name.slice(0, 50)}-${createHash('sha256').update(name).digest('hex').slice(0, 10)}`
