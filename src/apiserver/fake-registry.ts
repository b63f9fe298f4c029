import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { alreadyExists, conflict, notFound } from '#api/meta/status.ts'
import type { Registry, User } from './step.ts'

type Listener = (next: KubeObject | undefined, old: KubeObject | undefined) => void

const keyOf = ({ group, resource }: Resource): string => `${group}/${resource}`

const namespaceOf = (resource: Resource, { metadata }: KubeObject): string =>
  resource.namespaced ? (metadata.namespace ?? '') : ''

/** The registry for tests of the steps: objects in a map, no defaults, no validation, and everything is served. */
export class FakeRegistry implements Registry {
  readonly #objects = new Map<string, Map<string, KubeObject>>()
  readonly #listeners = new Map<string, Listener[]>()
  readonly unserved = new Set<string>()
  /** What `resources()` tells of. */
  readonly known: Resource[] = []
  #revision = 0

  /** Puts objects in as they are: `fake.put(pods, pod)`. */
  put<K extends KubeObject>(resource: Resource<K>, ...objects: K[]): this {
    for (const object of objects) this.#commit(resource, namespaceOf(resource, object), object.metadata.name, object)
    return this
  }

  get<K extends KubeObject>(resource: Resource<K>, namespace: string, name: string): K | undefined {
    return this.#objects.get(keyOf(resource))?.get(`${namespace}/${name}`) as K | undefined
  }

  *list<K extends KubeObject>(resource: Resource<K>, namespace?: string): Iterable<K> {
    for (const object of this.#objects.get(keyOf(resource))?.values() ?? []) {
      if (namespace === undefined || object.metadata.namespace === namespace) yield object as K
    }
  }

  async create<K extends KubeObject>(resource: Resource<K>, object: K, _user?: User): Promise<K> {
    const { name } = object.metadata
    const namespace = namespaceOf(resource, object)
    if (this.get(resource, namespace, name)) throw alreadyExists(resource, name)
    return this.#commit(resource, namespace, name, object) as K
  }

  async change<K extends KubeObject>(
    resource: Resource<K>,
    namespace: string,
    name: string,
    _user: User,
    change: (copy: K) => K | undefined,
  ): Promise<K> {
    const present = this.get(resource, namespace, name)
    if (present === undefined) throw notFound(resource, name)
    const next = change(structuredClone(present))
    return next === undefined ? present : (this.#commit(resource, namespace, name, next) as K)
  }

  async delete(
    resource: Resource,
    namespace: string,
    name: string,
    preconditions: { readonly uid?: string; readonly resourceVersion?: string } = {},
  ): Promise<void> {
    const present = this.get(resource, namespace, name)
    if (present === undefined) throw notFound(resource, name)
    for (const field of ['uid', 'resourceVersion'] as const) {
      const wanted = preconditions[field]
      if (wanted !== undefined && wanted !== present.metadata[field]) {
        throw conflict(resource, name, `the ${field} in the precondition (${wanted}) does not match`)
      }
    }
    this.#commit(resource, namespace, name, undefined)
  }

  async remove(
    resource: Resource,
    namespace: string,
    name: string,
    _user: User,
    options: Partial<DeleteOptions>,
  ): Promise<void> {
    await this.delete(resource, namespace, name, options.preconditions)
  }

  resources(): Iterable<Resource> {
    return this.known
  }

  serves(resource: Resource): boolean {
    return !this.unserved.has(keyOf(resource))
  }

  onChange<K extends KubeObject>(
    resource: Resource<K>,
    listener: (next: K | undefined, old: K | undefined) => void,
  ): void {
    const listeners = this.#listeners.get(keyOf(resource)) ?? []
    listeners.push(listener as Listener)
    this.#listeners.set(keyOf(resource), listeners)
  }

  onTouch(resource: Resource, namespace: string, name: string | undefined, listener: () => void): void {
    this.onChange(resource, (next, old) => {
      const object = next ?? old
      if (object === undefined) return
      if (name === undefined || (object.metadata.name === name && namespaceOf(resource, object) === namespace))
        listener()
    })
  }

  #commit(resource: Resource, namespace: string, name: string, next: KubeObject | undefined): KubeObject | undefined {
    const objects = this.#objects.get(keyOf(resource)) ?? new Map<string, KubeObject>()
    this.#objects.set(keyOf(resource), objects)
    const old = objects.get(`${namespace}/${name}`)
    let stored: KubeObject | undefined
    if (next === undefined) objects.delete(`${namespace}/${name}`)
    else {
      const { uid = old?.metadata.uid ?? `uid-of-${name}` } = next.metadata
      stored = { ...next, metadata: { ...next.metadata, uid, resourceVersion: String(++this.#revision) } }
      objects.set(`${namespace}/${name}`, stored)
    }
    for (const listener of this.#listeners.get(keyOf(resource)) ?? []) listener(stored, old)
    return stored
  }
}
