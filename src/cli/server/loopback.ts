import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { pipeline } from 'node:stream'
import type { Service } from '#api/gen/core-v1.ts'
import { services } from '#api/gen/resources.ts'
import { systemClock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { Informers, type Store } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { ingressService } from '#gateway/ingress.ts'
import { type Gateway, gateways } from '#gateway/objects.ts'
import { hasCode } from '#kernel/errno.ts'
import { Namespace } from '#kernel/netns.ts'

/** A port of 127.0.0.1 on the machine, and where it leads to in the fabric. */
export interface LoopbackPort {
  /** `namespace/name` of the Gateway, or `Ingress` for the one that all Ingresses share. */
  readonly gateway: string
  /** Names of the listeners behind it. */
  readonly listeners: readonly string[]
  readonly protocol: string
  readonly address: string
  readonly port: number
  /** On 127.0.0.1; 0 where none could be had. */
  readonly loopback: number
}

export interface LoopbackOptions {
  /** May read Gateways and Services. */
  readonly client: Client
  /** The machine's own network namespace; this process is in the fabric's. */
  readonly machineNamespace: string
  /** Where `weft status` reads what there is. */
  readonly file: string
  readonly log: Log
}

const connectionsMax = 1024
/** Ports are tried from a place that the Gateway's name decides, so that it keeps its port when the server starts anew. */
const firstPort = 20_000
const portRange = 10_000
const attemptsMax = 32
const settleMs = 50

/** What `weft status` shows; nothing where the server keeps no such ports. */
export function readLoopbackPorts(file: string): readonly LoopbackPort[] {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as LoopbackPort[]
  } catch {
    return []
  }
}

/**
 * Gateways of a `weft up` cluster on the machine's loopback: for each port that a listener has, a port of 127.0.0.1. Bytes are
 * passed on as they are, so TLS ends at the Gateway. Runs until `signal` aborts.
 */
export async function serveLoopback(options: LoopbackOptions, signal: AbortSignal): Promise<void> {
  const { client, file, log } = options
  using machine = Namespace.open(options.machineNamespace)
  await using informers = new Informers({ client, clock: systemClock, log })
  const copies = { gateways: informers.of(gateways), services: informers.of(services) }
  const open = new Map<string, { readonly server: Server; readonly port: LoopbackPort }>()
  const bring = (): void => {
    const wanted = new Map(wantedPorts(copies).map((port) => [`${port.gateway} ${port.address} ${port.port}`, port]))
    for (const [key, { server }] of open) {
      if (wanted.has(key)) continue
      server.close()
      open.delete(key)
    }
    for (const [key, port] of wanted) {
      const present = open.get(key)
      const opened =
        present === undefined
          ? openPort(machine, port, log)
          : { ...present, port: { ...port, loopback: present.port.loopback } }
      if (opened !== undefined) open.set(key, opened)
    }
    write(
      file,
      [...open.values()].map(({ port }) => port),
    )
  }
  let timer: NodeJS.Timeout | undefined
  const soon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined
      bring()
    }, settleMs)
  }
  await Promise.all([copies.gateways.whenSynced(signal), copies.services.whenSynced(signal)])
  copies.gateways.onChange(soon, signal)
  copies.services.onChange((next, old) => {
    const service = next ?? old
    if (service !== undefined && keyOf(service) === keyOf({ metadata: ingressService })) soon()
  }, signal)
  bring()
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  clearTimeout(timer)
  for (const { server } of open.values()) server.close()
}

function wantedPorts(copies: { readonly gateways: Store<Gateway>; readonly services: Store<Service> }): LoopbackPort[] {
  const found: LoopbackPort[] = []
  for (const gateway of copies.gateways.list()) {
    const address = gateway.status?.addresses?.[0]?.value
    if (address === undefined) continue
    const byPort = new Map<number, { readonly listeners: string[]; readonly protocol: string }>()
    for (const { name, port, protocol } of gateway.spec.listeners ?? []) {
      const entry = byPort.get(port) ?? { listeners: [], protocol }
      entry.listeners.push(name)
      byPort.set(port, entry)
    }
    for (const [port, entry] of byPort) found.push({ gateway: keyOf(gateway), ...entry, address, port, loopback: 0 })
  }
  const shared = copies.services.get(keyOf({ metadata: ingressService }))
  const address = shared?.status.loadBalancer?.ingress?.[0]?.ip
  if (shared !== undefined && address !== undefined) {
    for (const { port } of shared.spec.ports ?? [])
      found.push({
        gateway: 'Ingress',
        listeners: [],
        protocol: port === 443 ? 'HTTPS' : 'HTTP',
        address,
        port,
        loopback: 0,
      })
  }
  return found
}

function openPort(machine: Namespace, port: LoopbackPort, log: Log) {
  const hash = createHash('sha256').update(`${port.gateway} ${port.port}`).digest().readUInt32BE(0)
  for (let i = 0; i < attemptsMax; i++) {
    const loopback = firstPort + ((hash + i) % portRange)
    try {
      const fd = machine.listen('127.0.0.1', loopback)
      const server = createServer({ allowHalfOpen: true }, (client) => pass(client, port))
      server.maxConnections = connectionsMax
      server.on('error', (error) => log.warn({ err: error, loopback }, 'a port of the loopback cannot be served'))
      // The server owns the descriptor from here on.
      server.listen({ fd: fd.release() })
      return { server, port: { ...port, loopback } }
    } catch (error) {
      if (!hasCode(error, 'EADDRINUSE')) {
        log.warn(
          { err: error, gateway: port.gateway, port: port.port },
          'no port of the loopback could be opened for a Gateway',
        )
        return undefined
      }
    }
  }
  log.warn({ gateway: port.gateway, port: port.port }, 'no port of the loopback is free for a Gateway')
  return undefined
}

function pass(client: Socket, { address, port }: LoopbackPort): void {
  const upstream = connect({ host: address, port, allowHalfOpen: true })
  // Either end's failure ends both: who asked sees a closed connection, as from the Gateway itself.
  pipeline(client, upstream, client, () => {})
}

function write(file: string, ports: readonly LoopbackPort[]): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  writeFileSync(`${file}.new`, `${JSON.stringify(ports.toSorted((a, b) => (a.gateway < b.gateway ? -1 : 1)))}\n`, {
    mode: 0o600,
  })
  renameSync(`${file}.new`, file)
}
