import { connect } from 'node:net'
import type { Node } from '#api/gen/core-v1.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Informer } from '#client/informer.ts'

/** Whether something at the address answered, be it with a refusal. */
export type Dial = (address: string, port: number, signal: AbortSignal) => Promise<'answered' | 'silent'>

export interface HealthOptions {
  readonly nodes: Informer<Node>
  readonly nodeName: string
  readonly clock: Clock
  readonly log: Log
  readonly dial?: Dial
}

export interface HealthStatus {
  /** Other nodes that were asked, each at its addresses. */
  readonly asked: number
  /** `node-2 (172.30.0.12)`, in order. */
  readonly unreachable: readonly string[]
  readonly trouble: string
}

/** The kubelet's: every node has it, and a node whose kubelet is down refuses, which is an answer too. */
const port = 10_250
const everyMs = 10_000
const dialMs = 2_000
/** Nodes asked in one round: in a large cluster each is asked every few minutes, and by all others. */
const roundMax = 32
const namedMax = 5
/** Once may be our own fault: a process that is held up hears neither the answer nor the clock. */
const silentTimes = 2

interface Heard {
  /** Addresses that were silent when the node was last asked. */
  readonly silent: readonly string[]
  /** How many times running. */
  readonly times: number
}

/** Asks the other nodes, a few at a time, whether they can be reached from here. */
export class NodeHealth {
  readonly #options: HealthOptions
  readonly #heard = new Map<string, Heard>()
  #next = 0

  constructor(options: HealthOptions) {
    this.#options = options
  }

  status(): HealthStatus {
    const unreachable = [...this.#heard]
      .flatMap(([name, { silent, times }]) => (times < silentTimes ? [] : [`${name} (${silent.join(' ')})`]))
      .toSorted()
    const more = unreachable.length > namedMax ? ` and ${unreachable.length - namedMax} more` : ''
    const trouble = unreachable.length === 0 ? '' : `no answer from ${unreachable.slice(0, namedMax).join(', ')}${more}`
    return { asked: this.#heard.size, unreachable, trouble }
  }

  /** `started` at once: nobody waits for other nodes. */
  async run(signal: AbortSignal, started: () => void = () => {}): Promise<void> {
    const { nodes, clock } = this.#options
    started()
    await nodes.whenSynced(signal)
    while (!signal.aborted) {
      await this.round(signal)
      await delay(everyMs, signal, clock).catch(() => {})
    }
  }

  /** The next few nodes. */
  async round(signal: AbortSignal): Promise<void> {
    const { nodes, nodeName, log, dial = dialTcp } = this.#options
    const others = nodes.list().filter(({ metadata }) => metadata.name !== nodeName)
    const known = new Set(others.map(({ metadata }) => metadata.name))
    for (const name of this.#heard.keys()) if (!known.has(name)) this.#heard.delete(name)
    const first = others.length <= roundMax ? 0 : this.#next % others.length
    this.#next = first + roundMax
    await Promise.all(
      [...others, ...others]
        .slice(first, first + Math.min(roundMax, others.length))
        .map(async ({ metadata, status }) => {
          const addresses = (status.addresses ?? []).flatMap((a) => (a.type === 'InternalIP' ? [a.address] : []))
          const limit = AbortSignal.any([signal, AbortSignal.timeout(dialMs)])
          const answers = await Promise.all(addresses.map((address) => dial(address, port, limit)))
          if (signal.aborted) return
          const silent = addresses.filter((_, i) => answers[i] === 'silent')
          const before = this.#heard.get(metadata.name)?.times ?? 0
          const times = silent.length === 0 ? 0 : before + 1
          this.#heard.set(metadata.name, { silent, times })
          if (times === silentTimes) log.warn({ other: metadata.name, silent }, 'another node does not answer')
          if (times === 0 && before >= silentTimes) log.info({ other: metadata.name }, 'another node answers again')
        }),
    )
  }
}

/** By TCP, in this process' namespace. */
const dialTcp: Dial = (address, toPort, signal) =>
  new Promise((resolve) => {
    const socket = connect({ host: address, port: toPort, signal })
    const end = (outcome: 'answered' | 'silent'): void => {
      socket.destroy()
      resolve(outcome)
    }
    socket.once('connect', () => end('answered'))
    // A refusal comes from the node itself; anything else is said on the way, or not at all.
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED' ? 'answered' : 'silent'))
  })
