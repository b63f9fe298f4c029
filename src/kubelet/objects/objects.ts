import type { ConfigMap, Secret } from '#api/gen/core-v1.ts'
import { configMaps, secrets } from '#api/gen/resources.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import type { Scope } from '#base/async/scope.ts'
import type { Clock } from '#base/clock.ts'
import type { Client } from '#client/client.ts'
import { Informer } from '#client/informer.ts'

export interface ObjectsOptions {
  readonly client: Client
  readonly scope: Scope
  readonly clock: Clock
}

interface Watched {
  readonly informer: Informer<ConfigMap> | Informer<Secret>
  readonly stop: () => void
  /** Pods (uids) that refer to it. */
  readonly users: Set<string>
}

/** How long a pod waits for the first word about an object before it says that it cannot have it. */
const firstWordMs = 10_000

/**
 * The ConfigMaps and Secrets that the pods of this node refer to, each followed by a watch of its own: that is all a
 * node may see of them. Whoever refers to one hears of its changes.
 */
export class Objects {
  readonly #options: ObjectsOptions
  readonly #watched = new Map<string, Watched>()
  readonly #listeners = new Set<(podUid: string) => void>()

  constructor(options: ObjectsOptions) {
    this.#options = options
  }

  /** Calls `listener` with the uid of each pod whose objects have changed. */
  onChange(listener: (podUid: string) => void): void {
    this.#listeners.add(listener)
  }

  configMap(podUid: string, namespace: string, name: string): Promise<ConfigMap | undefined> {
    return this.#get(configMaps, podUid, namespace, name)
  }

  secret(podUid: string, namespace: string, name: string): Promise<Secret | undefined> {
    return this.#get(secrets, podUid, namespace, name)
  }

  /** The pod needs none of them any more. */
  release(podUid: string): void {
    for (const [key, watched] of this.#watched) {
      if (!watched.users.delete(podUid) || watched.users.size > 0) continue
      watched.stop()
      this.#watched.delete(key)
    }
  }

  async #get<K extends KubeObject>(
    resource: Resource<K>,
    podUid: string,
    namespace: string,
    name: string,
  ): Promise<K | undefined> {
    const key = `${resource.resource}/${namespace}/${name}`
    const watched = this.#watched.get(key) ?? this.#watch(resource, key, namespace, name)
    watched.users.add(podUid)
    const { informer } = watched
    const limit = AbortSignal.any([this.#options.scope.signal, AbortSignal.timeout(firstWordMs)])
    try {
      await informer.whenSynced(limit)
    } catch (error) {
      const { trouble } = informer.status()
      if (trouble instanceof StatusError) throw trouble
      throw new Error(`Cannot get ${resource.resource} "${name}": the API server does not answer`, {
        cause: trouble ?? error,
      })
    }
    return informer.get(`${namespace}/${name}`) as K | undefined
  }

  #watch<K extends KubeObject>(resource: Resource<K>, key: string, namespace: string, name: string): Watched {
    const { client, scope, clock } = this.#options
    const informer = new Informer(client, resource, { namespace, fieldSelector: `metadata.name=${name}`, clock })
    const ended = new AbortController()
    const users = new Set<string>()
    informer.onChange((_, old) => {
      // The first word is what whoever asked is waiting for.
      if (old === undefined && !informer.hasSynced()) return
      for (const uid of users) for (const listener of this.#listeners) listener(uid)
    })
    scope.start(async (signal) => {
      try {
        await informer.run(AbortSignal.any([signal, ended.signal]))
      } catch (error) {
        if (!ended.signal.aborted) throw error
      }
    })
    const watched = { informer: informer as unknown as Watched['informer'], stop: () => ended.abort(), users }
    this.#watched.set(key, watched)
    return watched
  }
}
