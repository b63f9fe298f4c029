import { once } from 'node:events'
import { Socket } from 'node:net'
import type { Namespace as KubeNamespace, Service } from '#api/gen/core-v1.ts'
import type { EndpointSlice } from '#api/gen/discovery-v1.ts'
import { delay } from '#base/async/delay.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'
import { keyOf } from '#client/key.ts'
import { type NameCounts, NameTable } from '#kernel/names.ts'
import type { Netlink } from '#kernel/netlink/netlink.ts'
import { Namespace } from '#kernel/netns.ts'
import { serviceOfSlice } from '../services/reflect.ts'
import { Signal } from '../signal.ts'
import { resolverAddresses, resolverPort } from './address.ts'
import { type ForwardCounts, Forwarder, type Upstream } from './forward.ts'
import { fixedRecords, namespaceRecords, reverseZones, serviceRecords } from './records.ts'
import { resolve } from './resolve.ts'
import { NameServer } from './server.ts'
import { serveStreams } from './tcp.ts'
import { type TableChange, Zone } from './zone.ts'

export interface NamesOptions {
  readonly services: Informer<Service>
  readonly slices: Informer<EndpointSlice>
  readonly namespaces: Informer<KubeNamespace>
  /** Of the node's namespace: the addresses are put on its `lo`. */
  readonly netlink: Netlink
  /** The node's; absent: the one that this process is in. */
  readonly namespace?: Namespace
  /** `cluster.local` */
  readonly domain?: string
  /** Networks of pods and Services: nobody else is asked for their reverse names. */
  readonly cidrs: readonly string[]
  /** Who is asked for what is not of the cluster, in this order. */
  readonly upstreams: readonly Upstream[]
  /**
   * A directory for the socket of `weft-names`, which answers over UDP in a process of its own and stays when this one
   * goes. Absent: a thread of this process answers.
   */
  readonly separateDir?: string
  readonly addresses?: readonly string[]
  readonly port?: number
  readonly clock: Clock
  readonly log: Log
}

/** A place to listen at. */
interface Place {
  readonly address: string
  readonly port: number
  /** Index of the device. */
  readonly lo: number
  readonly namespace: Namespace
}

const listenAgainMs = 10_000

export interface NamesStatus {
  /** Where it is asked; empty until it has all objects. */
  readonly listening: readonly string[]
  readonly names: number
  readonly upstreams: readonly string[]
  readonly trouble: string
  readonly queries: NameCounts | undefined
  readonly forward: ForwardCounts
}

/**
 * The node's resolver: every Service and slice becomes rows of a native table that answers by itself (native/names/);
 * here is what the table has to be told, and what it hands over. Nothing is answered before all objects are there: a
 * wrong "no such name" would be believed.
 */
export class Names {
  readonly #options: NamesOptions
  readonly #domain: string
  readonly #zone: Zone
  readonly #forwarder: Forwarder
  readonly #changed = new Set<string>()
  readonly #wake = new Signal()
  #table: NameTable | undefined
  #listening: string[] = []
  #server: NameServer | undefined
  /** By place to listen at; `''`: of the table. */
  readonly #troubles = new Map<string, unknown>()

  constructor(options: NamesOptions) {
    this.#options = options
    this.#domain = options.domain ?? 'cluster.local'
    this.#forwarder = new Forwarder(options.upstreams)
    this.#zone = new Zone({
      domain: this.#domain,
      reverseZones: options.cidrs.flatMap((cidr) => reverseZones(cidr) ?? []),
      askBelow: [`pod.${this.#domain}`],
      serial: Math.floor(options.clock.now() / 1000) >>> 0,
    })
  }

  status(): NamesStatus {
    return {
      listening: this.#server?.listening ?? this.#listening,
      names: this.#zone.names,
      upstreams: this.#forwarder.upstreams.map(({ address }) => address),
      trouble: [...this.#troubles.values(), ...(this.#server?.trouble === undefined ? [] : [this.#server.trouble])]
        .map(String)
        .join('; '),
      queries: sumOf(this.#table?.counts(), this.#server?.counts()),
      forward: this.#forwarder.counts(),
    }
  }

  /** Serves until `signal` aborts. An address that cannot be had is tried again, and said in the status. */
  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { services, slices, namespaces, log } = this.#options
    slices.index('service', serviceOfSlice)
    await Promise.all([services, slices, namespaces].map((informer) => informer.whenSynced(signal)))
    using table = new NameTable()
    this.#table = table
    try {
      const look = (keys: readonly string[]): void => {
        for (const key of keys) this.#changed.add(key)
        this.#wake.raise()
      }
      services.onChange((next, old) => look([keyOf((next ?? old) as Service)]), signal)
      slices.onChange(
        (next, old) => look([next, old].flatMap((s) => (s === undefined ? [] : serviceOfSlice(s)))),
        signal,
      )
      namespaces.onChange((next, old) => look([keyOf((next ?? old) as KubeNamespace)]), signal)
      this.#apply(table, this.#zone.start())
      this.#apply(table, this.#zone.set('', fixedRecords(this.#domain)))
      this.#write(table)

      await using scope = new Scope(signal)
      await this.#serve(table, scope)
      const { listening } = this.status()
      log.info({ names: this.#zone.names, listening }, 'names are served')
      started()
      scope.start(async (stop) => {
        for (;;) {
          await this.#wake.wait(stop)
          this.#write(table)
        }
      })
      await scope.done()
    } finally {
      this.#table = undefined
      this.#server = undefined
      this.#listening = []
    }
  }

  #apply(table: NameTable, change: TableChange): void {
    table.change(change.puts, change.removals)
    this.#server?.change(change)
  }

  /** Brings the table to what the objects are now. What fails stays changed, and does not keep others back. */
  #write(table: NameTable): void {
    this.#troubles.delete('')
    for (const key of [...this.#changed]) {
      try {
        this.#apply(table, this.#zone.set(key, this.#recordsOf(key)))
        this.#changed.delete(key)
      } catch (error) {
        this.#troubles.set('', error)
        this.#options.log.error({ err: error, key }, 'names of an object could not be written')
      }
    }
  }

  /** A key without a slash is a namespace's. */
  #recordsOf(key: string) {
    const { services, slices, namespaces } = this.#options
    if (!key.includes('/')) return namespaces.get(key) === undefined ? [] : namespaceRecords(key, this.#domain)
    const service = services.get(key)
    return service === undefined
      ? []
      : serviceRecords(service, slices.index('service', serviceOfSlice).get(key), this.#domain)
  }

  async #serve(table: NameTable, scope: Scope): Promise<void> {
    const { netlink, port = resolverPort, addresses = resolverAddresses, namespace: given, log } = this.#options
    using own = given === undefined ? Namespace.own() : undefined
    const namespace = given ?? own
    if (namespace === undefined) return
    const lo = namespace.ifindex('lo')
    await netlink.setLinkUp(lo)
    if (this.#options.separateDir === undefined) {
      const bell = new Socket({ fd: table.bell(), readable: true, writable: false })
      bell.on('data', () => this.#takeAll(table, scope.signal))
      scope.start((stop) => closed(bell, () => bell.destroy(), stop))
    }
    const tries = addresses.map((address) =>
      this.#listen({ address, port, lo, namespace }, table, scope).catch((error: unknown) => ({ address, error })),
    )
    for (const failed of (await Promise.all(tries)).filter((result) => result !== undefined)) {
      log.error({ err: failed.error, address: failed.address }, 'names are not served at an address, trying again')
      this.#troubles.set(failed.address, failed.error)
      // Somebody else's resolver may listen there, and go; or the node has no IPv6. The network does not wait for it.
      const again = { address: failed.address, port, lo, namespace: Namespace.open(namespace.path) }
      scope.start((stop) => this.#listenAgain(again, table, scope, stop))
    }
    const { separateDir } = this.#options
    if (separateDir !== undefined) await this.#serveSeparately(separateDir, addresses, table, scope)
  }

  async #serveSeparately(dir: string, addresses: readonly string[], table: NameTable, scope: Scope): Promise<void> {
    const server = new NameServer({
      dir,
      addresses,
      rows: () => table.dump(),
      onAsk: ({ query, from }) => this.#answer(table, query, (message) => server.send(from, message), scope.signal),
      clock: this.#options.clock,
      log: this.#options.log,
    })
    this.#server = server
    await new Promise<void>((started) => scope.start((stop) => server.run(stop, started)))
  }

  async #listenAgain(place: Place, table: NameTable, scope: Scope, signal: AbortSignal): Promise<void> {
    using _namespace = place.namespace
    for (;;) {
      await delay(listenAgainMs, signal, this.#options.clock)
      try {
        await this.#listen(place, table, scope)
        this.#troubles.delete(place.address)
        return
      } catch (error) {
        this.#troubles.set(place.address, error)
      }
    }
  }

  async #listen({ address, port, lo, namespace }: Place, table: NameTable, scope: Scope): Promise<void> {
    await this.#options.netlink.addAddress(lo, `${address}/${address.includes(':') ? 128 : 32}`, { isOwn: true })
    const separate = this.#options.separateDir !== undefined
    using datagrams = separate ? undefined : namespace.listen(address, port, 'udp')
    using streams = namespace.listen(address, port, 'tcp')
    const { server, close } = serveStreams((query) => this.#answerStream(table, query, scope.signal))
    server.listen({ fd: streams.release() })
    await once(server, 'listening')
    scope.start((stop) => closed(server, close, stop))
    if (datagrams !== undefined) table.serve(datagrams.release())
    this.#listening.push(address)
  }

  /** The bell rings for one or for many: all are taken. */
  #takeAll(table: NameTable, signal: AbortSignal): void {
    for (;;) {
      const ask = table.take()
      if (ask === undefined) return
      this.#answer(table, ask.query, (message) => table.send(ask.from, message), signal)
    }
  }

  /** To a question over UDP that the table does not know. */
  #answer(table: NameTable, query: Buffer, send: (message: Buffer) => void, signal: AbortSignal): void {
    this.#resolve(table, query, 'udp', signal)
      .then((message) => {
        if (message !== undefined && this.#table === table) send(message)
      })
      .catch((error: unknown) => this.#failed(error, signal))
  }

  async #answerStream(table: NameTable, query: Buffer, signal: AbortSignal): Promise<Buffer | undefined> {
    const found = table.answer(query, 'tcp')
    if (found === 'none') return undefined
    return found ?? this.#resolve(table, query, 'tcp', signal)
  }

  #resolve(
    table: NameTable,
    query: Buffer,
    transport: 'udp' | 'tcp',
    signal: AbortSignal,
  ): Promise<Buffer | undefined> {
    const { namespaces } = this.#options
    const parts = { domain: this.#domain, zone: this.#zone, table, forwarder: this.#forwarder, namespaces }
    return resolve(query, transport, parts, signal)
  }

  #failed(error: unknown, signal: AbortSignal): void {
    if (!signal.aborted) this.#options.log.warn({ err: error }, 'a question could not be answered')
  }
}

/** What this process answered, and what the other did. */
function sumOf(own: NameCounts | undefined, other: NameCounts | undefined): NameCounts | undefined {
  if (own === undefined || other === undefined) return own
  const sums = Object.entries(own).map(([name, count]) => [name, count + (other[name as keyof NameCounts] ?? 0)])
  return { ...(Object.fromEntries(sums) as NameCounts), rows: own.rows }
}

/** Resolves once it has closed, which it is told to do when `signal` aborts. */
async function closed(what: NodeJS.EventEmitter, close: () => void, signal: AbortSignal): Promise<void> {
  const end = once(what, 'close')
  if (signal.aborted) close()
  else signal.addEventListener('abort', close, { once: true })
  await end
}
