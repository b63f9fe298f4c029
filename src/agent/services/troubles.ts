import type { Service as KubeService } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import type { EventNote } from '#client/events.ts'
import { isPlainNetwork, type ReflectFacts } from './reflect.ts'

/** What a Service asks for and does not get here, with the field that asks. For events; most Services have none. Pure. */
export function troublesOf(
  { spec }: KubeService,
  slices: readonly EndpointSlice[],
  { externalUse }: Pick<ReflectFacts, 'externalUse'>,
): EventNote[] {
  const refused = (spec.externalIPs ?? []).flatMap((address, i): EventNote[] =>
    externalUse(address) === 'none'
      ? [
          warning(
            'ExternalIPRefused',
            `spec.externalIPs[${i}]`,
            `${address} is an address of the cluster, of a node or of nobody: it stays what it is`,
          ),
        ]
      : [],
  )
  const ranges = (spec.loadBalancerSourceRanges ?? []).flatMap((text, i): EventNote[] =>
    text.trim() === '' || isPlainNetwork(text.trim())
      ? []
      : [
          warning(
            'SourceRangeRefused',
            `spec.loadBalancerSourceRanges[${i}]`,
            `${JSON.stringify(text)} is not a network: it lets nobody in`,
          ),
        ],
  )
  const sctp = (spec.ports ?? []).flatMap((port, i): EventNote[] => {
    if (port.protocol !== 'SCTP') return []
    const at = `spec.ports[${i}]`
    const targets = slices.flatMap((slice) =>
      (slice.ports ?? []).flatMap((p) => (p.protocol === 'SCTP' && (p.name ?? '') === (port.name ?? '') ? p.port : [])),
    )
    const other = targets.find((target) => target !== undefined && target !== port.port)
    const notes: EventNote[] = []
    if (other !== undefined)
      notes.push(
        warning(
          'SCTPPortNotTranslated',
          `${at}.targetPort`,
          `SCTP port ${port.port} is not translated to ${other}: make them equal`,
        ),
      )
    if (port.nodePort !== undefined && port.nodePort !== 0)
      notes.push(
        warning(
          'SCTPPortNotTranslated',
          `${at}.nodePort`,
          `SCTP node port ${port.nodePort} is not served: ports of SCTP are not translated`,
        ),
      )
    return notes
  })
  return [...refused, ...ranges, ...sctp]
}

/** The field of a Service by which it asks for that frontend (`frontendName`). */
export function fieldAsking({ spec }: KubeService, frontend: string): string {
  const [, address = '', port] = /^\[?(.*?)\]?:(\d+)\//.exec(frontend) ?? []
  const external = (spec.externalIPs ?? []).indexOf(address)
  if (external >= 0) return `spec.externalIPs[${external}]`
  const node = (spec.ports ?? []).findIndex((p) => p.nodePort === Number(port))
  if (node >= 0 && (address === '0.0.0.0' || address === '::')) return `spec.ports[${node}].nodePort`
  return spec.clusterIPs?.includes(address) ? 'spec.clusterIPs' : 'status.loadBalancer.ingress'
}

const warning = (reason: string, fieldPath: string, message: string): EventNote => ({
  type: 'Warning',
  reason,
  message: `${fieldPath}: ${message}`,
})
