import { readFile } from 'node:fs/promises'
import { parse, stringify } from 'yaml'
import type { HttpOptions } from './http.ts'

/** What a kubeconfig says of one cluster and one user: enough to connect. */
export interface Kubeconfig {
  readonly server: string
  readonly cluster: string
  readonly user: string
  /** PEM. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly token?: string
  readonly serverName?: string
  readonly namespace?: string
}

/** The file as kubectl reads it: one cluster, one user, one context, which is the current one. */
export function formatKubeconfig(config: Kubeconfig): string {
  const { server, cluster, user, ca, cert, key, token, serverName, namespace } = config
  const base64 = (text: string) => Buffer.from(text).toString('base64')
  const context = `${user}@${cluster}`
  const file = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: cluster,
        cluster: {
          server,
          ...(ca === undefined ? {} : { 'certificate-authority-data': base64(ca) }),
          ...(serverName === undefined ? {} : { 'tls-server-name': serverName }),
        },
      },
    ],
    users: [
      {
        name: user,
        user: {
          ...(cert === undefined ? {} : { 'client-certificate-data': base64(cert) }),
          ...(key === undefined ? {} : { 'client-key-data': base64(key) }),
          ...(token === undefined ? {} : { token }),
        },
      },
    ],
    contexts: [{ name: context, context: { cluster, user, ...(namespace === undefined ? {} : { namespace }) } }],
    'current-context': context,
  }
  // Quoted, on one line: every reader of YAML, of whichever version, takes it for the same text.
  return stringify(file, { defaultStringType: 'QUOTE_DOUBLE', defaultKeyType: 'PLAIN', lineWidth: 0 })
}

type Fields = Readonly<Record<string, unknown>>

const fieldsOf = (value: unknown): Fields => (value !== null && typeof value === 'object' ? (value as Fields) : {})

/**
 * Reads the current context, or the one named. Throws with the name of what is missing. Login programs (`exec`) and
 * passwords are not taken; `insecure-skip-tls-verify` is refused rather than obeyed.
 */
export async function parseKubeconfig(
  text: string,
  { context: wanted, readFile: read = (path: string) => readFile(path, 'utf8') }: KubeconfigOptions = {},
): Promise<Kubeconfig> {
  const file = fieldsOf(parse(text))
  const contextName = wanted ?? textOf(file['current-context'])
  if (contextName === undefined) throw new Error('Cannot use the kubeconfig: it names no current context')
  const context = named(file, 'contexts', 'context', contextName)
  const cluster = textOf(context.cluster) ?? ''
  const user = textOf(context.user) ?? ''
  const c = named(file, 'clusters', 'cluster', cluster)
  const u = user === '' ? {} : named(file, 'users', 'user', user)
  const server = textOf(c.server)
  if (server === undefined) throw new Error(`Cannot use the kubeconfig: cluster "${cluster}" has no server`)
  if (c['insecure-skip-tls-verify'] === true)
    throw new Error(`Cannot use the kubeconfig: cluster "${cluster}" asks not to verify the server`)
  if (u.exec !== undefined || u['auth-provider'] !== undefined)
    throw new Error(`Cannot use the kubeconfig: user "${user}" logs in by another program`)
  /** Data in the file wins over a path, as in kubectl. */
  const pem = async (from: Fields, name: string): Promise<string | undefined> => {
    const data = textOf(from[`${name}-data`])
    if (data !== undefined) return Buffer.from(data, 'base64').toString()
    const path = textOf(from[name])
    return path === undefined ? undefined : read(path)
  }
  const tokenFile = textOf(u.tokenFile)
  const token = textOf(u.token) ?? (tokenFile === undefined ? undefined : (await read(tokenFile)).trim())
  const [ca, cert, key] = [
    await pem(c, 'certificate-authority'),
    await pem(u, 'client-certificate'),
    await pem(u, 'client-key'),
  ]
  const serverName = textOf(c['tls-server-name'])
  const namespace = textOf(context.namespace)
  return {
    server,
    cluster,
    user,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(token === undefined ? {} : { token }),
    ...(serverName === undefined ? {} : { serverName }),
    ...(namespace === undefined ? {} : { namespace }),
  }
}

export interface KubeconfigOptions {
  readonly context?: string
  readonly readFile?: (path: string) => Promise<string>
}

/** What `createHttpClient` needs of it. */
export function httpOptionsOf({ server, ca, cert, key, token, serverName }: Kubeconfig): HttpOptions {
  return {
    server,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined || key === undefined ? {} : { certificate: () => ({ cert, key }) }),
    ...(token === undefined ? {} : { token: () => token }),
    ...(serverName === undefined ? {} : { serverName }),
  }
}

const textOf = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined)

function named(file: Fields, list: string, field: string, name: string): Fields {
  const entries = Array.isArray(file[list]) ? (file[list] as unknown[]) : []
  const found = entries.map(fieldsOf).find((entry) => entry.name === name)
  if (found === undefined) throw new Error(`Cannot use the kubeconfig: ${list} has no entry "${name}"`)
  return fieldsOf(found[field])
}
