import type { DeleteOptions, ListMeta, ObjectMeta } from '#api/gen/meta-v1.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'

/** An object as one writes it: everything optional that the server fills in. */
export type Draft<K extends KubeObject> = DeepPartial<Omit<K, 'metadata'>> & { metadata: Partial<ObjectMeta> }
export type DeepPartial<T> = T extends (infer U)[]
  ? DeepPartial<U>[]
  : T extends object
    ? { [P in keyof T]?: DeepPartial<T[P]> }
    : T

/** `namespace` is absent for cluster-scoped resources. */
export interface ObjectKey {
  readonly namespace?: string | undefined
  readonly name: string
}

export interface ListOptions {
  /** Absent: all namespaces. */
  readonly namespace?: string | undefined
  readonly labelSelector?: string
  readonly fieldSelector?: string
  readonly limit?: number
  readonly continue?: string
  readonly resourceVersion?: string
  /** Ask for `PartialObjectMetadata`: `apiVersion`, `kind` and `metadata` only (for the garbage collector). */
  readonly metadataOnly?: boolean
}

export interface KubeList<K extends KubeObject> {
  readonly metadata: ListMeta
  readonly items: readonly K[]
}

export type WatchEvent<K extends KubeObject> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: K }
  /** `initialEventsEnd` is true on the bookmark that ends the initial events (KEP-3157). */
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string; readonly initialEventsEnd: boolean }

export interface WatchOptions extends Omit<ListOptions, 'limit' | 'continue'> {
  /** Sends the present objects first, then a bookmark (KEP-3157); otherwise starts after `resourceVersion`. */
  readonly sendInitialEvents?: boolean
  readonly signal: AbortSignal
}

export type PatchType = 'json' | 'merge' | 'strategic' | 'apply'

export interface WriteOptions {
  /** `status`, `scale`, `binding`, `eviction`, `token`, `approval`, … */
  readonly subresource?: string
  readonly dryRun?: boolean
  readonly fieldManager?: string
  readonly signal?: AbortSignal
}

/**
 * The API as a program sees it. Two real implementations (`http.ts`, `direct.ts`) and `fake.ts`, all proved by
 * `conformance.ts`. Every failure that the server answered is a `StatusError` (#api/meta/status.ts); a watch that the
 * server ends with an ERROR event throws it.
 */
export interface Client {
  get<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    options?: { readonly subresource?: string; readonly signal?: AbortSignal },
  ): Promise<K>
  list<K extends KubeObject>(
    resource: Resource<K>,
    options?: ListOptions & { readonly signal?: AbortSignal },
  ): Promise<KubeList<K>>
  watch<K extends KubeObject>(resource: Resource<K>, options: WatchOptions): AsyncIterable<WatchEvent<K>>
  /** With a subresource (`binding`, `token`, `eviction`) the body and answer are of that subresource's kind. */
  create<K extends KubeObject>(resource: Resource<K>, object: Draft<K>, options?: WriteOptions): Promise<K>
  createSubresource<B extends KubeObject>(
    resource: Resource,
    key: ObjectKey,
    subresource: string,
    body: Draft<B>,
    options?: WriteOptions,
  ): Promise<B>
  update<K extends KubeObject>(resource: Resource<K>, object: K, options?: WriteOptions): Promise<K>
  patch<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    type: PatchType,
    patch: unknown,
    options?: WriteOptions,
  ): Promise<K>
  delete<K extends KubeObject>(
    resource: Resource<K>,
    key: ObjectKey,
    options?: Partial<DeleteOptions> & { readonly signal?: AbortSignal },
  ): Promise<void>
  deleteCollection<K extends KubeObject>(
    resource: Resource<K>,
    options: ListOptions & Partial<DeleteOptions> & { readonly signal?: AbortSignal },
  ): Promise<void>
  /** A request that is not about objects: discovery, health, logs. Throws `StatusError` for a status of 400 or above. */
  raw(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    body?: unknown,
    signal?: AbortSignal,
  ): Promise<unknown>
}
