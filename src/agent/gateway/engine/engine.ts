import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { CompiledObject } from '#datapath/compile.ts'
import type { EngineState, HttpEvent, L7Engine, Outcome, Signals } from '#gateway/engine.ts'
import { Netlink } from '#kernel/netlink/netlink.ts'
import type { Namespace } from '#kernel/netns.ts'
import type { Capacity } from '../haproxy/config.ts'
import { HaproxyEngine } from '../haproxy/haproxy.ts'
import { SideEngine } from '../side/side.ts'
import { GatewayAddresses } from '../sockets/addresses.ts'
import { ListenSockets } from '../sockets/sockets.ts'
import { type Listening, Steering } from '../sockets/steer.ts'

export interface NodeEngineOptions {
  /** All of bpf/, of which it loads sk_lookup. */
  readonly objects: readonly CompiledObject[]
  /** A directory on a bpffs that is this node's alone. */
  readonly pinDir: string
  /** Survives the agent, not a reboot. */
  readonly dir: string
  /** Device that leads to the outside; its neighbours are not answered for Gateway addresses. */
  readonly uplink?: string
  /** The node's network namespace; absent: the one that this process is in. */
  readonly namespace?: Namespace
  readonly threads?: number
  readonly capacity?: Capacity
  /** Requests are counted by route, backend, status and time. Default true. */
  readonly goldenSignals?: boolean
  readonly binary?: string
  readonly clock?: Clock
  readonly log?: Log
}

/** The node's L7 engine with everything that traffic needs to get to it: sockets, steering, addresses, HAProxy. */
export class NodeEngine implements L7Engine {
  readonly #haproxy: HaproxyEngine
  readonly #side: SideEngine
  readonly #parts: readonly Disposable[]

  private constructor(haproxy: HaproxyEngine, side: SideEngine, parts: readonly Disposable[]) {
    this.#haproxy = haproxy
    this.#side = side
    this.#parts = parts
  }

  /** What an earlier agent left goes on serving meanwhile. Throws where this kernel or machine lacks something. */
  static async open(options: NodeEngineOptions): Promise<NodeEngine> {
    const { objects, pinDir, dir, uplink, namespace, threads, capacity, goldenSignals, binary } = options
    const { clock, log = silentLog } = options
    const object = objects.find((o) => o.name === 'sk_lookup')
    if (object === undefined) throw new Error('Cannot open the L7 engine: sk_lookup is not among the objects')
    const parts: Disposable[] = []
    try {
      const steering = Steering.open(object, pinDir, namespace)
      parts.push(steering)
      const sockets = new ListenSockets(namespace)
      parts.push(sockets)
      const netlink = Netlink.open(namespace)
      parts.push(netlink)
      if (uplink !== undefined) GatewayAddresses.quiet(uplink, namespace)
      const addresses = new GatewayAddresses(netlink)
      const side = new SideEngine({
        dir: join(dir, 'haproxy'),
        ...(namespace === undefined ? {} : { namespace }),
        ...(clock === undefined ? {} : { clock }),
        log,
      })
      const haproxy = await HaproxyEngine.open({
        side,
        dir: join(dir, 'haproxy'),
        sockets,
        publish: (slot, socket) => steering.setSocket(slot, socket),
        steer: async (listening) => {
          // The way to the engine is there before the address is.
          steering.set(listening)
          await addresses.set([...new Set(listening.map((l: Listening) => l.address))])
        },
        ...(namespace === undefined ? {} : { namespace }),
        ...(threads === undefined ? {} : { threads }),
        ...(capacity === undefined ? {} : { capacity }),
        ...(goldenSignals === undefined ? {} : { goldenSignals }),
        ...(binary === undefined ? {} : { binary }),
        ...(clock === undefined ? {} : { clock }),
        log,
      })
      return new NodeEngine(haproxy, side, parts)
    } catch (error) {
      for (const part of parts.toReversed()) part[Symbol.dispose]()
      throw error
    }
  }

  /** Process id of the HAProxy that serves now. */
  get pid(): number | undefined {
    return this.#haproxy.pid
  }

  /** The side engine, where a rule needs it: its process and what it counted. */
  get side(): SideEngine {
    return this.#side
  }

  apply(desired: EngineState): Promise<Outcome> {
    return this.#haproxy.apply(desired)
  }

  signals(): Promise<readonly Signals[]> {
    return this.#haproxy.signals()
  }

  /** What was refused or could not be done, by reason, for metrics. */
  async refused(): Promise<ReadonlyMap<string, number>> {
    const [{ malformed, denied, faults }, side] = await Promise.all([this.#haproxy.refused(), this.#side.counts()])
    return new Map([
      ['malformed', malformed],
      ['denied', denied],
      ['program', faults],
      ['deadline', side?.deadlines ?? 0],
      ['mirror-failed', side?.mirrorsFailed ?? 0],
      ['mirror-dropped', side?.mirrorsDropped ?? 0],
      // A side engine that an older agent started does not count them.
      ['tunnel-failed', side?.tunnelsFailed ?? 0],
    ])
  }

  events(listener: (event: HttpEvent) => void, signal: AbortSignal): void {
    this.#haproxy.events(listener, signal)
  }

  /** Lets go of everything; requests are served on, and the next agent finds it all. */
  async detach(): Promise<void> {
    await this.#haproxy.detach()
    await this.#side.detach()
    this.#close()
  }

  /** Ends the engine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#haproxy[Symbol.asyncDispose]()
    await this.#side[Symbol.asyncDispose]()
    this.#close()
  }

  #close(): void {
    for (const part of this.#parts.toReversed()) part[Symbol.dispose]()
  }
}
