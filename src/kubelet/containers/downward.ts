import type { Container, Pod, ResourceFieldSelector } from '#api/gen/core-v1.ts'
import { parseQuantity } from '#api/meta/quantity.ts'

/** What the downward API says of the node. */
export interface NodeFacts {
  readonly name: string
  readonly ips: readonly string[]
  /** Stands in for a limit that is not set. */
  readonly allocatable: Readonly<Record<string, string>>
}

const subscript = /^(metadata\.(?:labels|annotations))\['(.*)'\]$/

/** The value of a fieldRef. Throws for a path that the downward API does not have. */
export function fieldValue(pod: Pod, path: string, node: NodeFacts, podIps: readonly string[]): string {
  const { metadata, spec } = pod
  const match = subscript.exec(path)
  if (match) {
    const [, which, key = ''] = match
    return (which === 'metadata.labels' ? metadata.labels : metadata.annotations)?.[key] ?? ''
  }
  switch (path) {
    case 'metadata.name':
      return metadata.name
    case 'metadata.namespace':
      return metadata.namespace
    case 'metadata.uid':
      return metadata.uid
    case 'metadata.labels':
      return formatMap(metadata.labels)
    case 'metadata.annotations':
      return formatMap(metadata.annotations)
    case 'spec.nodeName':
      return spec.nodeName ?? node.name
    case 'spec.serviceAccountName':
      return spec.serviceAccountName ?? ''
    case 'status.hostIP':
      return node.ips[0] ?? ''
    case 'status.hostIPs':
      return node.ips.join(',')
    case 'status.podIP':
      return podIps[0] ?? ''
    case 'status.podIPs':
      return podIps.join(',')
    default:
      throw new Error(`unsupported fieldPath: ${path}`)
  }
}

/** `key="value"` a line, sorted; the value escaped as Go's %q does. */
const formatMap = (map: Readonly<Record<string, string>> | undefined): string =>
  Object.entries(map ?? {})
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join('\n')

/** The value of a resourceFieldRef in units of its divisor, rounded up. Throws for an unknown resource or container. */
export function resourceValue(container: Container | undefined, ref: ResourceFieldSelector, node: NodeFacts): string {
  if (container === undefined) throw new Error(`container ${ref.containerName ?? ''} not found`)
  const [kind = '', ...rest] = ref.resource.split('.')
  const name = rest.join('.')
  if (kind !== 'limits' && kind !== 'requests') throw new Error(`unsupported container resource: ${ref.resource}`)
  const { limits = {}, requests = {} } = container.resources ?? {}
  const set = kind === 'limits' ? (limits[name] ?? node.allocatable[name]) : (requests[name] ?? limits[name])
  const divisor = parseQuantity(ref.divisor === undefined || ref.divisor === '0' ? '1' : ref.divisor).nano
  return String((parseQuantity(set ?? '0').nano + divisor - 1n) / divisor)
}
