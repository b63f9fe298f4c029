import type { Pod } from '../../gen/core-v1.ts'

/**
 * The number under which policies know a pod, written with its addresses when it is bound: pods of one namespace whose
 * policy-relevant labels are the same share it. Only the API server writes it.
 */
export const identityAnnotation = 'weft.dev/identity'

/** Ports of the pod that have a name, for those who see only its metadata: `http:8080/TCP,dns:53/UDP`. */
export const namedPortsAnnotation = 'weft.dev/named-ports'

/** What the control plane gives out: 24 bits, as many as fit into a VNI; below are numbers with a fixed meaning. */
export const identityFirst = 256
export const identityLast = 2 ** 24 - 1

export type PortProtocol = 'TCP' | 'UDP' | 'SCTP'

export interface NamedPort {
  readonly name: string
  readonly number: number
  readonly protocol: PortProtocol
}

/** Of containers and sidecars; the first of two with the same name and protocol counts, as it does for Services. */
export function namedPortsOf({ spec }: Pick<Pod, 'spec'>): NamedPort[] {
  const sidecars = (spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always')
  const found = new Map<string, NamedPort>()
  for (const { ports = [] } of [...spec.containers, ...sidecars]) {
    for (const { name = '', containerPort, protocol = 'TCP' } of ports) {
      const key = `${name}/${protocol}`
      if (name !== '' && !found.has(key)) found.set(key, { name, number: containerPort, protocol })
    }
  }
  return [...found.values()]
}

export const formatNamedPorts = (ports: readonly NamedPort[]): string =>
  ports.map(({ name, number, protocol }) => `${name}:${number}/${protocol}`).join(',')

/** What cannot be read as a port is left out: a name that leads nowhere opens nothing. */
export function parseNamedPorts(text: string | undefined): NamedPort[] {
  return (text ?? '').split(',').flatMap((part): NamedPort[] => {
    const [, name = '', digits = '', protocol = ''] = /^([a-z0-9-]+):(\d{1,5})\/(TCP|UDP|SCTP)$/.exec(part) ?? []
    const number = Number(digits)
    return name === '' || number < 1 || number > 65_535 ? [] : [{ name, number, protocol: protocol as PortProtocol }]
  })
}

/** Undefined where there is none, or one that nobody may have. */
export function parseIdentity(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,8}$/.test(text)) return undefined
  const number = Number(text)
  return number >= identityFirst && number <= identityLast ? number : undefined
}
