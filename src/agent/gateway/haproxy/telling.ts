import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { HttpEvent } from '#gateway/engine.ts'
import type { Cli } from './cli.ts'
import { type EventLine, followEvents } from './events.ts'
import type { SignalReader } from './signals.ts'

export interface TellingOptions {
  readonly signals: SignalReader
  /** Runs commands in the engine's turn; undefined where there is no process. */
  readonly cli: <T>(work: (cli: Cli) => Promise<T>) => Promise<T | undefined>
  readonly clock: Clock
  readonly log: Log
}

/**
 * What HAProxy tells in its ring: answers in a backend's place always, for they are counted nowhere else, and every request
 * while somebody listens. The ring is bounded: what is not read in time is written over.
 */
export class Telling {
  readonly #options: TellingOptions
  readonly #listeners = new Set<(event: HttpEvent) => void>()
  #following: { close(): void } | undefined

  constructor(options: TellingOptions) {
    this.#options = options
  }

  listen(listener: (event: HttpEvent) => void, signal: AbortSignal): void {
    if (signal.aborted) return
    const first = this.#listeners.size === 0
    this.#listeners.add(listener)
    signal.addEventListener('abort', () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size === 0) this.#tell('failures')
    })
    if (first) this.#tell('all')
  }

  /** Another process: its ring from now on. */
  follow(cliPath: string): void {
    this.close()
    this.#following = followEvents(cliPath, (line) => this.#heard(line))
    if (this.#listeners.size > 0) this.#tell('all')
  }

  close(): void {
    this.#following?.close()
    this.#following = undefined
  }

  #tell(what: 'all' | 'failures'): void {
    const { cli, log } = this.#options
    cli(async (to) => {
      await to.command('experimental-mode on')
      await to.command(`set var proc.tell int(${what === 'all' ? 1 : 0})`)
      await to.command('experimental-mode off')
    }).catch((error: unknown) => log.warn({ err: error }, 'HAProxy could not be asked to tell of its requests'))
  }

  #heard(line: EventLine): void {
    const { signals, clock } = this.#options
    // Answers of routes themselves (redirects, 404) are counted in the table of signals.
    const noServer = line.endpoint === '<NOSRV>'
    const instead = line.row.startsWith('p') && (noServer || line.ended[0] !== '-')
    if (instead && Number(line.code) >= 500) signals.note(line.row, line.code)
    if (this.#listeners.size === 0) return
    const names = signals.names(line.row.slice(line.row.indexOf('|') + 1)) ?? { rule: '', backend: '' }
    const { client, clientPort, address, port, method, host, path, protocol, code, latencyMs } = line
    const event: HttpEvent = {
      ...{ atMs: clock.now(), client, clientPort, address, port, method, host, path, protocol },
      ...{ code: Number(code), ...names, endpoint: noServer ? '' : line.endpoint, latencyMs },
    }
    for (const listener of this.#listeners) listener(event)
  }
}
