import { serviceNameLabel } from '#api/discovery/labels.ts'
import type { EndpointAddress, Endpoints, Service } from '#api/gen/core-v1.ts'
import type { Endpoint, EndpointPort, EndpointSlice } from '#api/gen/discovery-v1.ts'
import { endpoints as endpointsResource } from '#api/gen/resources.ts'
import {
  type Action,
  addToGroup,
  type Group,
  inSafeOrder,
  type Making,
  managedByLabel,
  planGroups,
} from '../endpoint-slice/pack.ts'
import type { Family } from '../endpoint-slice/service-pods.ts'

export const managedBy = 'endpointslicemirroring-controller.k8s.io'
const skipLabel = 'endpointslice.kubernetes.io/skip-mirror'
const leaderAnnotation = 'control-plane.alpha.kubernetes.io/leader'
const appliedAnnotation = 'kubectl.kubernetes.io/last-applied-configuration'
/** Of one subset; what is beyond is left out. */
const addressesMax = 1000

/** Whether somebody keeps these Endpoints by hand for a Service: then nobody else makes slices of them. */
export function isMirrored(endpoints: Endpoints, service: Service | undefined): boolean {
  const { labels = {}, annotations = {} } = endpoints.metadata
  return (
    service !== undefined &&
    Object.keys(service.spec.selector ?? {}).length === 0 &&
    labels[skipLabel] !== 'true' &&
    annotations[leaderAnnotation] === undefined
  )
}

/** The writes that bring our slices to what the Endpoints say; all of them go where `endpoints` is not to be mirrored. */
export function planMirror(endpoints: Endpoints | undefined, slices: readonly EndpointSlice[]): Action[] {
  if (endpoints === undefined) return slices.map((slice) => ({ do: 'delete', slice }))
  const { labels, annotations } = endpoints.metadata
  const { [appliedAnnotation]: _, ...inherited } = annotations ?? {}
  const making: Making = {
    owner: endpoints,
    ownerResource: endpointsResource,
    labels: { ...labels, [serviceNameLabel]: endpoints.metadata.name, [managedByLabel]: managedBy },
    annotate: () => ({ ...inherited }),
    placeholder: false,
  }
  const families: readonly Family[] = ['IPv4', 'IPv6']
  const actions = families.flatMap((family) =>
    planGroups(
      making,
      family,
      groupsOf(endpoints, family),
      slices.filter((slice) => slice.addressType === family),
    ),
  )
  return inSafeOrder(actions)
}

function groupsOf({ subsets = [] }: Endpoints, family: Family): Map<string, Group> {
  const groups = new Map<string, Group>()
  for (const { addresses = [], notReadyAddresses = [], ports = [] } of subsets) {
    const all = [
      ...addresses.map((address) => ({ address, ready: true })),
      ...notReadyAddresses.map((address) => ({ address, ready: false })),
    ]
    const slicePorts = ports.map(
      ({ name = '', port, protocol = 'TCP', appProtocol }): EndpointPort => ({
        name,
        port,
        protocol,
        ...(appProtocol === undefined ? {} : { appProtocol }),
      }),
    )
    for (const { address, ready } of all.slice(0, addressesMax))
      if (address.ip.includes(':') === (family === 'IPv6')) addToGroup(groups, slicePorts, endpointOf(address, ready))
  }
  return groups
}

const endpointOf = ({ ip, hostname, nodeName, targetRef }: EndpointAddress, ready: boolean): Endpoint => ({
  addresses: [ip],
  conditions: { ready },
  ...(hostname === undefined ? {} : { hostname }),
  ...(nodeName === undefined ? {} : { nodeName }),
  ...(targetRef === undefined ? {} : { targetRef }),
})
