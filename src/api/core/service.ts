import type { Service } from '../gen/core-v1.ts'
import { services } from '../gen/resources.ts'
import type { Column } from '../kind.ts'
import { ageColumn, column, formatLabels, nameColumn, wideColumn } from '../meta/columns.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { nameIsDnsLabel } from '../meta/names.ts'
import { validateService, validateServiceUpdate } from './service/validate.ts'

function defaultService(object: Service): void {
  object.spec ??= {}
  object.status ??= { loadBalancer: {} }
  const { spec } = object
  spec.sessionAffinity ||= 'None'
  if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig
  else {
    spec.sessionAffinityConfig ??= {}
    spec.sessionAffinityConfig.clientIP ??= {}
    spec.sessionAffinityConfig.clientIP.timeoutSeconds ??= 10800
  }
  spec.type ||= 'ClusterIP'
  for (const port of spec.ports ?? []) {
    port.protocol ||= 'TCP'
    port.targetPort ||= port.port
  }
  const isPublished = spec.type === 'NodePort' || spec.type === 'LoadBalancer'
  if (isPublished || (spec.type === 'ClusterIP' && (spec.externalIPs ?? []).length > 0)) {
    spec.externalTrafficPolicy ||= 'Cluster'
  }
  if (spec.type !== 'ExternalName') spec.internalTrafficPolicy ||= 'Cluster'
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true
}

function externalAddress({ spec, status }: Service): string {
  const external = spec.externalIPs ?? []
  switch (spec.type) {
    case 'ExternalName':
      return spec.externalName ?? ''
    case 'LoadBalancer': {
      const ingress = (status.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip || hostname || '')
      const all = [...ingress, ...external].filter((text) => text !== '')
      return all.length > 0 ? all.join(',') : '<pending>'
    }
    case 'ClusterIP':
    case 'NodePort':
      return external.length > 0 ? external.join(',') : '<none>'
    default:
      return '<unknown>'
  }
}

function portsText({ spec }: Service): string {
  const ports = (spec.ports ?? []).map(({ port, nodePort, protocol = 'TCP' }) =>
    nodePort ? `${port}:${nodePort}/${protocol}` : `${port}/${protocol}`,
  )
  return ports.length === 0 ? '<none>' : ports.join(',')
}

const columns: readonly Column<Service>[] = [
  nameColumn,
  column('Type', 'How it is published.', ({ spec }) => spec.type ?? ''),
  column(
    'Cluster-IP',
    'Its address inside the cluster.',
    ({ spec }) => spec.clusterIPs?.[0] || spec.clusterIP || '<none>',
  ),
  column('External-IP', 'Its address for the outside.', externalAddress),
  column('Port(s)', 'Its ports, with the nodes\u2019 port where there is one.', portsText),
  ageColumn,
  wideColumn('Selector', 'Labels of the pods behind it.', ({ spec }) => formatLabels(spec.selector)),
]

export const service = defineKind<Service>({
  resource: services,
  message: 'core/v1.Service',
  description: 'One address for the pods that a selector finds.',
  shortNames: ['svc'],
  categories: ['all'],
  subresources: [statusSubresource],
  createOnUpdate: true,
  nameCheck: nameIsDnsLabel,
  defaults: defaultService,
  prepareCreate(object) {
    object.status = { loadBalancer: {} }
  },
  validate: validateService,
  validateUpdate: validateServiceUpdate,
  columns,
  selectableFields: {
    'spec.clusterIP': ({ spec }) => spec.clusterIP ?? '',
    'spec.type': ({ spec }) => spec.type ?? '',
  },
})
