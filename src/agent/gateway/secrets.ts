import type { Secret } from '#api/gen/core-v1.ts'
import { secrets } from '#api/gen/resources.ts'
import { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client } from '#client/client.ts'
import { Informer } from '#client/informer.ts'

export interface SecretCopiesOptions {
  readonly client: Client
  /** A Secret came, changed or went. */
  readonly changed: (namespace: string, name: string) => void
  readonly clock: Clock
  readonly log: Log
}

interface Followed {
  readonly informer: Informer<Secret>
  readonly stop: AbortController
}

/**
 * Copies of the Secrets that Gateways name, one by one: a node may read those and no others (the gateway controller gives
 * it the right), so it cannot follow them all.
 */
export class SecretCopies implements AsyncDisposable {
  readonly #options: SecretCopiesOptions
  readonly #scope = new Scope()
  readonly #followed = new Map<string, Followed>()

  constructor(options: SecretCopiesOptions) {
    this.#options = options
  }

  get(namespace: string, name: string): Secret | undefined {
    return this.#followed.get(`${namespace}/${name}`)?.informer.get(`${namespace}/${name}`)
  }

  /** Follows these from now on, by `namespace/name`, and no others. */
  follow(keys: ReadonlySet<string>): void {
    for (const [key, { stop }] of this.#followed) {
      if (keys.has(key)) continue
      stop.abort(new DOMException('nobody names the Secret any more', 'AbortError'))
      this.#followed.delete(key)
    }
    for (const key of keys) if (!this.#followed.has(key)) this.#begin(key)
  }

  /** Resolves once all that are followed are there, or after `ms`: one that may not be read must not hold up the others. */
  async settled(ms: number, signal: AbortSignal): Promise<void> {
    const over = new AbortController()
    const both = AbortSignal.any([signal, over.signal])
    const cancel = this.#options.clock.schedule(ms, () => over.abort(new DOMException('late', 'AbortError')))
    try {
      await Promise.allSettled([...this.#followed.values()].map(({ informer }) => informer.whenSynced(both)))
    } finally {
      cancel()
    }
    signal.throwIfAborted()
  }

  #begin(key: string): void {
    const { client, changed, clock, log } = this.#options
    const slash = key.indexOf('/')
    const [namespace, name] = [key.slice(0, slash), key.slice(slash + 1)]
    const informer = new Informer(client, secrets, { namespace, fieldSelector: `metadata.name=${name}`, clock, log })
    const stop = new AbortController()
    this.#followed.set(key, { informer, stop })
    informer.onChange(() => changed(namespace, name), stop.signal)
    this.#scope.start(async (signal) => {
      try {
        await informer.run(AbortSignal.any([signal, stop.signal]))
      } catch (error) {
        if (!stop.signal.aborted) throw error
      }
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]()
  }
}
