import type { Duplex } from 'node:stream'
import { finished } from 'node:stream/promises'
import { badRequest } from '#api/meta/status.ts'
import type { SubresourceCall, SubresourceHandler, UpgradeHandler } from '../step.ts'
import { bearerProtocol } from './bearer.ts'
import { chooseContainer } from './container.ts'
import { type Kubelets, kubeletOf, podNamed } from './kubelet.ts'

/** `exec` and `attach` name their streams otherwise at the kubelet. */
const streamNames = [
  ['stdin', 'input'],
  ['stdout', 'output'],
  ['stderr', 'error'],
  ['tty', 'tty'],
] as const

/** What belongs to the upgrade and goes through; everything else, credentials first of all, stays here. */
const isPassed = (name: string): boolean =>
  name === 'upgrade' || name.startsWith('sec-websocket-') || name === 'x-stream-protocol-version' || name === 'origin'

/** The path at the kubelet that serves what was asked for here. */
export function kubeletPath({ attributes, query, registry }: SubresourceCall): string {
  const pod = podNamed(registry, attributes.namespace, attributes.name)
  const { namespace, name } = pod.metadata
  const wanted = new URLSearchParams()
  if (attributes.subresource === 'portforward') {
    for (const port of query.getAll('ports')) wanted.append('port', port)
    for (const port of query.getAll('port')) wanted.append('port', port)
    return withQuery(`/portForward/${namespace}/${name}`, wanted)
  }
  const container = chooseContainer(pod, query.get('container') ?? undefined)
  for (const [ours, theirs] of streamNames) if (isTrue(query.get(ours))) wanted.set(theirs, '1')
  if (!wanted.has('input') && !wanted.has('output') && !wanted.has('error')) {
    throw badRequest('you must specify at least one of stdin, stdout, stderr')
  }
  if (attributes.subresource === 'exec') {
    const command = query.getAll('command')
    if (command.length === 0) throw badRequest('you must specify at least one command for the container')
    for (const word of command) wanted.append('command', word)
  }
  return withQuery(`/${attributes.subresource}/${namespace}/${name}/${encodeURIComponent(container)}`, wanted)
}

const isTrue = (text: string | null): boolean => text === 'true' || text === '1'
const withQuery = (path: string, query: URLSearchParams): string => (query.size === 0 ? path : `${path}?${query}`)

/** The request head for the kubelet: the caller's own, with another path and without credentials. */
export function upgradeHead(
  method: string,
  path: string,
  host: string,
  headers: Readonly<Record<string, string>>,
): string {
  const lines = [`${method} ${path} HTTP/1.1`, `Host: ${host}`, 'Connection: Upgrade']
  for (const [name, value] of Object.entries(headers)) {
    if (!isPassed(name)) continue
    // Several lines of one name arrive joined; older servers look at one line at a time.
    const values = value.split(',').map((v) => v.trim())
    if (name === 'x-stream-protocol-version') for (const each of values) lines.push(`${name}: ${each}`)
    else lines.push(`${name}: ${values.filter((v) => !v.startsWith(bearerProtocol)).join(', ')}`)
  }
  if (method !== 'GET') lines.push('Content-Length: 0')
  return `${lines.join('\r\n')}\r\n\r\n`
}

/**
 * exec, attach, port-forward: the kubelet's connection and the caller's become one. Bytes are not looked at, so every
 * protocol the kubelet speaks (SPDY/3.1, WebSocket v4 and v5, port-forward by channels or tunnelled) works here, half-close included.
 * Throws a StatusError before anything was written to the caller, and nothing afterwards.
 */
export function upgradeHandler(kubelets: Kubelets): UpgradeHandler {
  return async (call, socket, head) => {
    const { method, headers, signal } = call.request
    const path = kubeletPath(call)
    const address = kubeletOf(call.registry, podNamed(call.registry, call.attributes.namespace, call.attributes.name))
    const kubelet = await kubelets.connect(address, signal)
    const host = address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
    kubelet.write(upgradeHead(method, path, host, headers))
    if (head.length > 0) kubelet.write(head)
    await join(socket, kubelet)
  }
}

/** After one end has closed the other gets this long to take what is still on its way to it. */
const lingerMs = 30_000

/** Copies both ways until both ends are closed. An end of one direction is passed on; a failure ends both. */
async function join(a: Duplex, b: Duplex): Promise<void> {
  a.pipe(b)
  b.pipe(a)
  follow(a, b)
  follow(b, a)
  // Who broke off and how is the caller's and the kubelet's affair: nobody is left here to be told.
  await Promise.allSettled([finished(a), finished(b)])
}

function follow(gone: Duplex, other: Duplex): void {
  gone.on('error', () => other.destroy())
  gone.once('close', () => {
    // Nobody reads what the other still says, but what was said to it must arrive.
    other.resume()
    other.end()
    if (other.writableFinished) return void other.destroy()
    const timer = setTimeout(() => other.destroy(), lingerMs)
    other.once('close', () => clearTimeout(timer))
    other.once('finish', () => other.destroy())
  })
}

/** The same subresources without an Upgrade. */
export const upgradeRequired: SubresourceHandler = async () => {
  throw badRequest('Upgrade request required')
}
