import type { PodSpec } from '#api/gen/core-v1.ts'

/** A port of the node that a pod takes. */
export interface HostPort {
  readonly key: string
  readonly protocol: string
  readonly ip: string
  readonly port: number
}

const anyAddress = '0.0.0.0'

export function hostPorts({ containers, initContainers = [] }: PodSpec): HostPort[] {
  const result: HostPort[] = []
  // Of the init containers only those that keep running keep their ports.
  for (const { ports = [] } of [...containers, ...initContainers.filter((c) => c.restartPolicy === 'Always')]) {
    for (const { hostPort = 0, hostIP, protocol = 'TCP' } of ports) {
      if (hostPort <= 0) continue
      const ip = hostIP === undefined || hostIP === '' ? anyAddress : hostIP
      result.push({ key: `${protocol}/${ip}/${hostPort}`, protocol, ip, port: hostPort })
    }
  }
  return result
}

/** The same port on the same or on every address. */
export const conflicts = (a: HostPort, b: HostPort): boolean =>
  a.port === b.port && a.protocol === b.protocol && (a.ip === b.ip || a.ip === anyAddress || b.ip === anyAddress)
