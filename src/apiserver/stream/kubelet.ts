import { Agent } from 'node:https'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { badRequest, internalError, notFound } from '#api/meta/status.ts'
import type { CertificateAndKey } from '../pki/certificate.ts'
import type { Registry } from '../step.ts'

/** Where a kubelet listens. */
export interface KubeletAddress {
  readonly host: string
  readonly port: number
}

export interface KubeletsOptions {
  /** How this server shows itself; asked for at each connection, because it is renewed. */
  readonly credentials: () => CertificateAndKey
  /** PEM of the authority that signs the kubelets' serving certificates. */
  readonly authority: string
}

/** Nearest first; the address types that a server inside the cluster's network can use. */
const addressTypes = ['InternalIP', 'InternalDNS', 'Hostname', 'ExternalIP', 'ExternalDNS'] as const
const kubeletPort = 10_250
const connectMs = 30_000
/** Idle connections kept for log requests; exec and port-forward have their own. */
const idleConnectionsMax = 4

/** The way to the kubelets: finds the one that runs a pod, and opens connections as the API server. */
export class Kubelets {
  /** Shares connections between requests of the same `tls`. */
  readonly agent = new Agent({ keepAlive: true, maxFreeSockets: idleConnectionsMax, timeout: connectMs })
  readonly #options: KubeletsOptions

  constructor(options: KubeletsOptions) {
    this.#options = options
  }

  get tls(): ConnectionOptions {
    const { credentials, authority } = this.#options
    const { certificate, key } = credentials()
    return { cert: certificate, key, ca: authority, minVersion: 'TLSv1.2' }
  }

  /** A TLS connection of its own, half-closable, verified against the kubelet's address. Throws InternalError. */
  async connect({ host, port }: KubeletAddress, signal: AbortSignal): Promise<TLSSocket> {
    // The types do not know allowHalfOpen here, tls.connect does.
    const options: ConnectionOptions & { allowHalfOpen: boolean } = { ...this.tls, host, port, allowHalfOpen: true }
    const socket = connect(options)
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no answer within ${connectMs / 1000} s`)), connectMs)
        const abort = () => reject(signal.reason)
        const done = (settle: () => void) => () => {
          clearTimeout(timer)
          signal.removeEventListener('abort', abort)
          settle()
        }
        signal.addEventListener('abort', abort, { once: true })
        socket.once('secureConnect', done(resolve))
        socket.once('error', (error) => done(() => reject(error))())
        if (signal.aborted) abort()
      })
    } catch (error) {
      socket.destroy()
      throw unreachable({ host, port }, error)
    }
    socket.setNoDelay(true)
    return socket
  }

  close(): void {
    this.agent.destroy()
  }
}

export const unreachable = ({ host, port }: KubeletAddress, error: unknown) =>
  internalError(`error dialing backend: dial tcp ${host}:${port}: ${error instanceof Error ? error.message : error}`)

/** The pod, which must exist. */
export function podNamed(registry: Registry, namespace: string, name: string): Pod {
  const pod = registry.get(pods, namespace, name)
  if (pod === undefined) throw notFound(pods, name)
  return pod
}

/** The kubelet that runs a pod. Throws BadRequest for one that is not bound, InternalError for a Node without address. */
export function kubeletOf(registry: Registry, pod: Pod): KubeletAddress {
  const { nodeName } = pod.spec
  if (nodeName === undefined || nodeName === '') {
    throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`)
  }
  const node = registry.get(nodes, '', nodeName)
  if (node === undefined) throw notFound(nodes, nodeName)
  const address = preferredAddress(node)
  if (address === undefined) {
    const known = (node.status?.addresses ?? []).map((a) => `${a.type}=${a.address}`)
    throw internalError(`no preferred addresses found; known addresses: [${known.join(' ')}]`)
  }
  return { host: address, port: portOf(node) }
}

function preferredAddress({ status }: Node): string | undefined {
  for (const type of addressTypes) {
    const found = status?.addresses?.find((a) => a.type === type)
    if (found) return found.address
  }
  return undefined
}

/** `daemonEndpoints.kubeletEndpoint.Port`: upstream's one field with a capital. */
function portOf({ status }: Node): number {
  const port = status?.daemonEndpoints?.kubeletEndpoint?.Port
  return port === undefined || port === 0 ? kubeletPort : port
}
