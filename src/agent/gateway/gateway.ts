import type { Node } from '#api/gen/core-v1.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import type { Informer } from '#client/informer.ts'
import type { HttpEvent, L7Engine, Signals } from '#gateway/engine.ts'
import type { GatewayModel } from '#gateway/model.ts'
import { Signal } from '../signal.ts'
import { writeLoop } from '../write-loop.ts'
import { acknowledge, wantedSecrets } from './plan.ts'
import { allCopies, type GatewayCopies, modelOf, watchCopies } from './reflect.ts'
import { SecretCopies } from './secrets.ts'
import { Acknowledger } from './target.ts'

export interface GatewaysOptions {
  readonly nodeName: string
  readonly client: Client
  readonly copies: GatewayCopies
  readonly nodes: Informer<Node>
  /** Called when there is first something to serve, or something that an earlier agent left; again where it failed. */
  readonly openEngine: () => Promise<NodeL7>
  /** Whether an earlier agent left an engine that serves on. */
  readonly leftBehind: () => boolean
  readonly clock: Clock
  readonly log: Log
}

/** An engine that may be left to serve on while the agent is away. */
export interface NodeL7 extends L7Engine {
  /** What it refused or could not do, by reason, since it was started. */
  refused(): Promise<ReadonlyMap<string, number>>
  detach(): Promise<void>
}

export interface GatewaysStatus {
  readonly gateways: number
  readonly listeners: number
  readonly routes: number
  readonly backends: number
  /** How often the engine was reloaded since it was opened. */
  readonly reloads: number
  readonly trouble: string
}

/** How long the first state waits for certificates: a listener without one would be taken away from a running engine. */
const firstSecretsMs = 3_000

/**
 * Gateways on this node: copies of the API -> what they come to (src/gateway, the same everywhere) -> the engine -> a word
 * on the Node that it is in force. Nothing is given to the engine before every copy is complete, so that a restart of
 * the agent takes nothing away.
 */
export class Gateways {
  readonly #options: GatewaysOptions
  readonly #wake = new Signal()
  readonly #acknowledger: Acknowledger
  #model: GatewayModel | undefined
  #engine: NodeL7 | undefined
  readonly #followers = new Map<(event: HttpEvent) => void, AbortSignal>()
  #reloads = 0
  #trouble: unknown

  constructor(options: GatewaysOptions) {
    this.#options = options
    this.#acknowledger = new Acknowledger(options)
  }

  status(): GatewaysStatus {
    const state = this.#model?.engineState()
    return {
      gateways: this.#model?.gateways.size ?? 0,
      listeners: state?.listeners.size ?? 0,
      routes: state?.routes.size ?? 0,
      backends: state?.backends.size ?? 0,
      reloads: this.#reloads,
      trouble: this.#trouble === undefined ? '' : String(this.#trouble),
    }
  }

  /** Read from the engine now; empty while there is none. */
  async signals(): Promise<readonly Signals[]> {
    return (await this.#engine?.signals()) ?? []
  }

  /** By reason, read from the engine now; empty while there is none. */
  async refused(): Promise<ReadonlyMap<string, number>> {
    return (await this.#engine?.refused()) ?? new Map()
  }

  /** Tells of every request that the engine answers, from when there is one, until `signal` aborts. */
  requests(listener: (event: HttpEvent) => void, signal: AbortSignal): void {
    if (signal.aborted) return
    this.#followers.set(listener, signal)
    signal.addEventListener('abort', () => this.#followers.delete(listener), { once: true })
    this.#engine?.events(listener, signal)
  }

  /** `started` at once: a cluster whose Gateway API is missing or late must not hold up the node's network. */
  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    started()
    const { client, copies, openEngine, leftBehind, clock, log } = this.#options
    await Promise.all(allCopies(copies).map((copy) => copy.whenSynced(signal)))
    await using scope = new Scope(signal)
    const wake = (): void => this.#wake.raise()
    await using secrets = new SecretCopies({
      client,
      clock,
      log,
      changed: (namespace, name) => {
        model.touchSecret(namespace, name)
        wake()
      },
    })
    const model = modelOf(copies, (namespace, name) => secrets.get(namespace, name))
    this.#model = model
    watchCopies(copies, model, wake, scope.signal)
    model.touchAll()
    model.refresh()
    secrets.follow(wantedSecrets(model.gateways, copies.grants.list()))
    await secrets.settled(firstSecretsMs, scope.signal)
    const write = async (): Promise<void> => {
      model.refresh()
      secrets.follow(wantedSecrets(model.gateways, copies.grants.list()))
      const results = new Map(model.gateways)
      const state = model.engineState()
      if (this.#engine === undefined && state.listeners.size === 0 && !leftBehind()) {
        this.#acknowledger.say(acknowledge(results, { revision: state.revision, faults: new Map(), reloads: 0 }))
        return
      }
      if (this.#engine === undefined) {
        this.#engine = await openEngine()
        for (const [listener, until] of this.#followers) this.#engine.events(listener, until)
      }
      const outcome = await this.#engine.apply(state)
      this.#reloads = outcome.reloads
      for (const [id, { message }] of outcome.faults) log.warn({ id, fault: message }, 'the gateway cannot do this')
      this.#acknowledger.say(acknowledge(results, outcome))
    }
    const tell = (trouble: unknown): void => {
      this.#trouble = trouble
    }
    const sentence = 'Gateways could not be brought into force, trying again'
    scope.start((stop) => this.#acknowledger.run(stop))
    scope.start((stop) => writeLoop({ wake: this.#wake, write, tell, sentence, clock, log }, stop, () => {}))
    try {
      await scope.done()
    } finally {
      // Requests are served on; the next agent finds it all.
      await this.#engine?.detach()
      this.#engine = undefined
    }
  }
}
