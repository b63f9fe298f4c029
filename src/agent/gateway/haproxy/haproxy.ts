import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, systemClock } from '#base/clock.ts'
import { type Log, silentLog } from '#base/log/log.ts'
import type { EngineState, Fault, HttpEvent, L7Engine, Listener, Outcome, Signals } from '#gateway/engine.ts'
import { changedKeys } from '#gateway/table.ts'
import type { Fd } from '#kernel/fd.ts'
import type { Namespace } from '#kernel/netns.ts'
import { isAside } from '../side/orders.ts'
import type { ListenSockets } from '../sockets/sockets.ts'
import type { Listening } from '../sockets/steer.ts'
import { Certificates as CertificateSlots, type Certificates } from './certificates.ts'
import type { Cli } from './cli.ts'
import { type Capacity, configText, latencyMap } from './config.ts'
import { type MapName, mapNames, RowMap } from './maps.ts'
import { placeholderAt } from './placeholder.ts'
import { atOf } from './places.ts'
import { Pools } from './pools.ts'
import { boundLog, childFds, cliPath, HaproxyProcess, lastGeneration } from './process.ts'
import { Routing } from './routing.ts'
import { connections, defaultCapacity, fdsOf, luaFile, pairOf, pairsOf, shapeOfProgram } from './shape.ts'
import { SignalReader } from './signals.ts'
import { Telling } from './telling.ts'

export interface HaproxyOptions {
  /** Maps, lists, sockets and the record of what runs; survives the agent, not a reboot. */
  readonly dir: string
  readonly sockets: ListenSockets
  /** Where an address and port leads, by socket pair: told when rows are in place. */
  readonly steer: (listening: readonly Listening[]) => Promise<void>
  /** Makes the sockets of these pairs known under their slots. */
  readonly publish: (slot: number, socket: Fd) => void
  /** The side engine: told of its rules before HAProxy sends it the first request. */
  readonly side?: L7Engine
  readonly namespace?: Namespace
  readonly binary?: string
  readonly threads?: number
  readonly capacity?: Capacity
  /** Requests are counted by rule, backend, status and time. Default true. */
  readonly goldenSignals?: boolean
  readonly clock?: Clock
  readonly log?: Log
}

/** How soon servers that left are looked after again. */
const sweepAfterMs = 1000
/** Pause before a process that ended is started again; doubled up to a minute while it keeps ending. */
const restartFirstMs = 50

/**
 * HAProxy behind the seam. One process on sockets that the agent owns; its configuration file says how large it is and
 * nothing about any route; routes, weights, endpoints and certificates go through the run-time API and are read back. A
 * larger one is started beside it on the same sockets before the old one is told to finish.
 */
export class HaproxyEngine implements L7Engine {
  readonly #options: HaproxyOptions
  readonly #log: Log
  readonly #clock: Clock
  readonly #routing: Routing
  readonly #pools = new Pools()
  readonly #certificates: Certificates
  readonly #maps: { readonly [name in MapName]: RowMap }
  readonly #signals = new SignalReader()
  readonly #telling: Telling
  #capacity: Capacity
  #process: HaproxyProcess | undefined
  /** Undefined until the first state is in force; what HAProxy has is then known to be this. */
  #applied: EngineState | undefined
  #desired: EngineState | undefined
  /** Of listeners' certificates, as of the last time that they were looked at. */
  readonly #tlsFaults = new Map<string, Fault>()
  #reloads = 0
  #closed = false
  /** Something failed half-way: everything is read and compared before the next change. */
  #suspect = false
  /** The process that was found was started by an agent of another version: it serves until ours is there. */
  #outdated = false
  #turn: Promise<unknown> = Promise.resolve()
  #waiting: Promise<Outcome> | undefined
  #cancelSweep: (() => void) | undefined
  #restartMs = restartFirstMs

  private constructor(options: HaproxyOptions, placeholder: string) {
    this.#options = options
    this.#log = options.log ?? silentLog
    this.#clock = options.clock ?? systemClock
    const { dir } = options
    this.#capacity = options.capacity ?? defaultCapacity
    this.#routing = new Routing((rule) => options.side !== undefined && isAside(rule))
    this.#certificates = new CertificateSlots(dir, placeholder)
    this.#certificates.capacity = this.#capacity.tlsSlots
    this.#pools.capacity = this.#capacity.pools
    const map = (name: MapName): RowMap => new RowMap(name, join(dir, `${name}.map`))
    this.#maps = {
      routes: map('routes'),
      programs: map('programs'),
      splits: map('splits'),
      names: map('names'),
      places: map('places'),
    }
    const cli = <T>(work: (cli: Cli) => Promise<T>): Promise<T | undefined> =>
      this.#queue(async () => (this.#process === undefined ? undefined : await work(this.#process.cli)))
    this.#telling = new Telling({ signals: this.#signals, cli, clock: this.#clock, log: this.#log })
  }

  /** Finds the process that an earlier agent left, with its sockets; starts none before the first state. */
  static async open(options: HaproxyOptions): Promise<HaproxyEngine> {
    mkdirSync(options.dir, { recursive: true, mode: 0o700 })
    const engine = new HaproxyEngine(options, await placeholderAt(join(options.dir, 'placeholder.pem')))
    await engine.#find()
    return engine
  }

  get reloads(): number {
    return this.#reloads
  }

  /** Process id of the HAProxy that serves now; for status. */
  get pid(): number | undefined {
    return this.#process?.generation.pid
  }

  apply(desired: EngineState): Promise<Outcome> {
    this.#desired = desired
    // Whoever waits for a turn waits for the newest state.
    this.#waiting ??= this.#queue(async () => {
      this.#waiting = undefined
      return await this.#applyNow()
    })
    return this.#waiting
  }

  /** None where requests are not counted. */
  async signals(): Promise<readonly Signals[]> {
    if (this.#options.goldenSignals === false) return []
    const own = await this.#queue(async () => {
      if (this.#process !== undefined) await this.#signals.read(this.#process.cli, this.#desired)
      return this.#signals.signals()
    })
    return [...own, ...((await this.#options.side?.signals()) ?? [])]
  }

  /** Requests that the engine did not take for one, and what its Lua part could not do; since it was started. */
  async refused(): Promise<{ readonly malformed: number; readonly denied: number; readonly faults: number }> {
    return await this.#queue(async () => {
      const { cli } = this.#process ?? {}
      if (cli === undefined) return { malformed: 0, denied: 0, faults: 0 }
      const [head = '', ...rows] = (await cli.command('show stat -1 1 -1')).split('\n')
      const columns = head.replace(/^# /, '').split(',')
      const sum = (name: string): number =>
        rows.reduce((total, row) => total + Number(row.split(',')[columns.indexOf(name)] ?? 0), 0)
      const faults = [...(await cli.command('weft faults')).matchAll(/\d+/g)].reduce(
        (total, [n]) => total + Number(n),
        0,
      )
      return { malformed: sum('ereq'), denied: sum('dreq'), faults }
    })
  }

  events(listener: (event: HttpEvent) => void, signal: AbortSignal): void {
    this.#telling.listen(listener, signal)
  }

  /** Ends HAProxy. An agent that only restarts does not call it: the process goes on and is found again. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#cancelSweep?.()
    this.#telling.close()
    await this.#queue(async () => {
      this.#process?.kill()
      this.#process = undefined
    })
  }

  /** Lets go of a process that shall go on without us. */
  async detach(): Promise<void> {
    this.#closed = true
    this.#cancelSweep?.()
    this.#telling.close()
    await this.#queue(async () => {
      this.#process?.cli[Symbol.dispose]()
      this.#process = undefined
    })
  }

  #queue<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work)
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #find(): Promise<void> {
    const { dir, sockets } = this.#options
    try {
      const found = await HaproxyProcess.find(dir)
      if (found === undefined) return
      const { capacity, pid, reloads, shape } = found.generation
      sockets.adopt({ pid, fds: childFds(2 * pairsOf(capacity)) })
      this.#outdated = shape !== shapeOfProgram(dir, this.#options.goldenSignals !== false)
      this.#capacity = capacity
      this.#reloads = reloads
      this.#use(found)
      this.#suspect = true
      this.#log.info({ pid, outdated: this.#outdated }, 'found the HAProxy of an earlier agent')
    } catch (error) {
      // It serves by what it was last told, but nobody can tell it anything: another takes its place with the first state.
      this.#log.warn({ err: error }, 'the HAProxy of an earlier agent does not answer and is ended')
      HaproxyProcess.killFound(dir, ({ pid, capacity }) => {
        // Whoever connects meanwhile waits.
        if (sockets.pairs.length === 0) sockets.adopt({ pid, fds: childFds(2 * pairsOf(capacity)) })
      })
    }
  }

  #use(process: HaproxyProcess): void {
    this.#process = process
    this.#pools.capacity = this.#capacity.pools
    this.#certificates.capacity = this.#capacity.tlsSlots
    this.#telling.follow(cliPath(this.#options.dir, process.generation.number))
    process.cli.onEnd(() => {
      if (this.#process !== process || this.#closed) return
      this.#process = undefined
      this.#log.warn({ pid: process.generation.pid }, 'HAProxy has gone, starting it again')
      this.#restart()
    })
  }

  /** Again and again until one serves. */
  #restart(): void {
    this.#clock.schedule(this.#restartMs, () => {
      this.#restartMs = Math.min(this.#restartMs * 2, 60_000)
      this.#queue(() => this.#mend()).catch((error: unknown) => {
        this.#log.error({ err: error }, 'HAProxy could not be started again, trying once more')
        this.#restart()
      })
    })
  }

  async #mend(): Promise<void> {
    if (this.#process !== undefined || this.#closed || this.#desired === undefined) return
    await this.#applyNow()
  }

  async #applyNow(): Promise<Outcome> {
    const state = this.#desired
    if (state === undefined) throw new Error('Cannot apply a state: there is none')
    try {
      const faults = new Map<string, Fault>()
      const side = this.#options.side
      if (side !== undefined) for (const [id, fault] of (await side.apply(state)).faults) faults.set(id, fault)
      await this.#bring(state, faults)
      for (const [id, fault] of this.#routing.faults()) faults.set(id, fault)
      for (const [id, { tls }] of state.backends)
        if (tls !== undefined)
          faults.set(id, { of: 'backend', message: 'TLS to backends is not spoken by this engine' })
      this.#applied = state
      this.#restartMs = restartFirstMs
      this.#scheduleSweep()
      boundLog(this.#options.dir)
      return { revision: state.revision, faults, reloads: this.#reloads }
    } catch (error) {
      this.#suspect = true
      throw error
    }
  }

  async #bring(state: EngineState, faults: Map<string, Fault>): Promise<void> {
    const adopting = this.#suspect && this.#process !== undefined && !this.#outdated
    if (adopting && this.#process !== undefined) await this.#adopt(this.#process.cli, state)
    const gone = [...(this.#applied?.backends.keys() ?? [])].filter((id) => !state.backends.has(id))
    const pools = this.#pools.allocate(state.backends)
    // Certificates are parsed only where a listener has changed.
    const sameListeners = !adopting && this.#applied !== undefined && this.#applied.listeners === state.listeners
    if (!sameListeners) this.#tlsFaults.clear()
    const tls = sameListeners
      ? { enough: true, capacity: this.#capacity.tlsSlots }
      : this.#certificates.plan(state.listeners.values(), this.#tlsFaults)
    const larger = !pools.enough || !tls.enough || this.#outdated
    if (larger) this.#grow({ pools: pools.capacity, tlsSlots: tls.capacity }, state, gone)
    for (const [id, fault] of this.#tlsFaults) faults.set(id, fault)
    // A backend that went keeps its pool until no row names it.
    const change = this.#routing.update(
      state,
      // In the clear to a backend that wants TLS would be worse than 500.
      (id) =>
        state.backends.get(id)?.tls === undefined && state.backends.has(id) ? this.#pools.nameOf(id) : undefined,
      this.#moved(state),
    )
    if (larger || this.#process === undefined) {
      for (const id of gone) this.#pools.release(id)
      await this.#start(state)
      this.#suspect = false
      return
    }
    const { cli } = this.#process
    const changed = adopting
      ? [...state.backends.keys()]
      : changedKeys(this.#applied?.backends ?? new Map<string, never>(), state.backends)
    // What rows will point to is there before they do.
    const sameBackends = !adopting && this.#applied?.backends === state.backends
    const names = sameBackends && sameListeners ? undefined : this.#names(state)
    if (names !== undefined) await this.#maps.names.set(cli, names)
    for (const id of changed) {
      const backend = state.backends.get(id)
      if (backend !== undefined) await this.#pools.setEndpoints(cli, backend)
    }
    if (!sameListeners) await this.#certificates.apply(cli)
    const all = this.#routing
    await this.#maps.programs.set(cli, adopting ? all.programs : change.programs.set)
    await this.#maps.splits.set(cli, adopting ? all.splits : change.splits.set)
    await this.#maps.routes.set(cli, adopting ? all.routes : change.routes.set)
    // Connections that are open keep the name of their place as long as its rows are there.
    if (!sameListeners) {
      await this.#maps.places.set(cli, all.places)
      await this.#steer(state)
    }
    for (const name of ['routes', 'programs', 'splits'] as const) {
      const extra = adopting
        ? [...this.#maps[name].rows.keys()].filter((key) => !all[name].has(key))
        : change[name].remove
      for (const key of extra) await this.#maps[name].remove(cli, key)
    }
    if (!sameListeners)
      for (const key of [...this.#maps.places.rows.keys()])
        if (!all.places.has(key)) await this.#maps.places.remove(cli, key)
    for (const id of gone) {
      const pool = this.#pools.release(id)
      if (pool !== undefined) await this.#pools.empty(cli, pool)
    }
    if (names !== undefined) {
      for (const pool of this.#pools.stray()) await this.#pools.empty(cli, pool)
      for (const key of [...this.#maps.names.rows.keys()]) if (!names.has(key)) await this.#maps.names.remove(cli, key)
    }
    this.#suspect = false
  }

  /** Which backend has which pool, and which hostnames listeners with TLS have at an address and port. */
  #names(state: EngineState): Map<string, string> {
    const names = new Map(this.#pools.names())
    for (const { protocol, addresses, port, hostname = '' } of state.listeners.values())
      if (protocol === 'HTTPS')
        for (const address of addresses)
          names.set(`${this.#routing.places.get(atOf(address, port))}${hostname}`, 'listener')
    return names
  }

  /** Backends whose pool is another than in the last state: another protocol. */
  #moved(state: EngineState): Set<string> {
    const before = this.#applied?.backends
    return new Set(
      [...state.backends.values()].flatMap(({ id, protocol }) =>
        before?.get(id) !== undefined && before.get(id)?.protocol !== protocol ? [id] : [],
      ),
    )
  }

  /** Reads every table that HAProxy has: what we believed may be wrong. */
  async #adopt(cli: Cli, state: EngineState): Promise<void> {
    for (const map of Object.values(this.#maps)) await map.adopt(cli)
    this.#certificates.plan(state.listeners.values(), new Map())
    await this.#certificates.adopt(cli)
    await this.#pools.adopt(cli, this.#maps.names.rows, state.backends)
  }

  #grow(capacity: Capacity, state: EngineState, gone: readonly string[]): void {
    // The new process never hears of them.
    for (const id of gone) this.#pools.release(id)
    this.#capacity = capacity
    this.#pools.capacity = capacity.pools
    this.#certificates.capacity = capacity.tlsSlots
    this.#pools.allocate(state.backends)
    this.#certificates.plan(state.listeners.values(), this.#tlsFaults)
  }

  /** A process with all of it from its first moment, on the same sockets; then the one before it finishes. */
  async #start(state: EngineState): Promise<void> {
    const { dir, sockets, binary = '/usr/sbin/haproxy', threads = 1, namespace, publish } = this.#options
    const before = this.#process
    const pairs = sockets.ensure(pairsOf(this.#capacity))
    for (const [i, { v4, v6 }] of pairs.entries()) {
      publish(2 * i, v4)
      publish(2 * i + 1, v6)
    }
    const rows = {
      routes: this.#routing.routes,
      programs: this.#routing.programs,
      splits: this.#routing.splits,
      names: this.#names(state),
      places: this.#routing.places,
    }
    for (const name of mapNames) {
      this.#maps[name].assume(rows[name])
      writeFileSync(join(dir, `${name}.map`), this.#maps[name].text(), { mode: 0o600 })
    }
    writeFileSync(join(dir, 'latency.map'), latencyMap(), { mode: 0o600 })
    this.#certificates.write()
    const servers = this.#pools.lines(state.backends)
    const number = lastGeneration(dir) + 1
    if (before !== undefined && this.#options.goldenSignals !== false) await this.#signals.read(before.cli, state)
    const process = await HaproxyProcess.start({
      dir,
      binary,
      config: configText({
        capacity: this.#capacity,
        fds: fdsOf(this.#capacity),
        dir,
        luaFile,
        threads,
        connectionsMax: connections(),
        servers,
        goldenSignals: this.#options.goldenSignals !== false,
        generation: number,
      }),
      sockets: pairs.flatMap(({ v4, v6 }) => [v4, v6]),
      capacity: this.#capacity,
      number,
      shape: shapeOfProgram(dir, this.#options.goldenSignals !== false),
      reloads: before === undefined ? this.#reloads : this.#reloads + 1,
      ...(namespace === undefined ? {} : { namespacePath: namespace.path }),
      clock: this.#clock,
    })
    this.#outdated = false
    this.#signals.restart()
    this.#pools.assume(servers)
    this.#use(process)
    await this.#steer(state)
    if (before !== undefined) {
      this.#reloads++
      await before.retire()
      this.#log.info({ capacity: this.#capacity, pid: process.generation.pid }, 'HAProxy was reloaded with more room')
    }
  }

  async #steer(state: EngineState): Promise<void> {
    const listening: Listening[] = []
    for (const listener of state.listeners.values()) {
      const pair = this.#pairOf(listener)
      if (pair === undefined) continue
      for (const address of listener.addresses)
        listening.push({ address, port: listener.port, slot: 2 * pair + (address.includes(':') ? 1 : 0) })
    }
    await this.#options.steer(listening)
  }

  #pairOf(listener: Listener): number | undefined {
    if (listener.protocol === 'HTTP') return 0
    const slot = this.#certificates.slotOf(listener)
    if (slot === undefined) return undefined
    return pairOf(slot)
  }

  #scheduleSweep(): void {
    this.#cancelSweep?.()
    this.#cancelSweep = undefined
    if (this.#pools.leaving === 0 || this.#closed) return
    this.#cancelSweep = this.#clock.schedule(sweepAfterMs, () => {
      this.#queue(async () => {
        if (this.#process === undefined) return
        await this.#pools.sweep(this.#process.cli)
      })
        .catch((error: unknown) =>
          this.#log.warn({ err: error }, 'servers that left could not be removed, trying again'),
        )
        .finally(() => this.#scheduleSweep())
    })
  }
}
