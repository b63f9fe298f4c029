import type { KubeObject } from '#api/meta/resource.ts'

const kinds: Readonly<Record<string, string>> = {
  exec: 'PodExecOptions',
  attach: 'PodAttachOptions',
  portforward: 'PodPortForwardOptions',
}

/** A stream that is opened to do something: whoever may `create` it. A log is only read. */
export const isConnect = (subresource: string): boolean => subresource in kinds

/** What admission sees of a stream that is about to open: the query's parameters as the object that upstream makes of them. */
export function connectOptions(subresource: string, query: URLSearchParams): KubeObject {
  const isOn = (name: string): boolean => ['1', 'true', ''].includes(query.get(name) ?? '0')
  const shared = { apiVersion: 'v1', kind: kinds[subresource] ?? 'Options', metadata: {} }
  const options =
    subresource === 'portforward'
      ? { ports: query.getAll('ports').flatMap((text) => text.split(',').map(Number)) }
      : {
          stdin: isOn('stdin'),
          stdout: isOn('stdout'),
          stderr: isOn('stderr'),
          tty: isOn('tty'),
          container: query.get('container') ?? '',
          ...(subresource === 'exec' ? { command: query.getAll('command') } : {}),
        }
  return { ...shared, ...options } as unknown as KubeObject
}
