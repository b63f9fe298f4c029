import type { Duplex } from 'node:stream'
import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'

/** The words that the steps of a request share: authenticate, authorize, admit, subresources. */

/** Who asks, as authentication found it. */
export interface User {
  readonly name: string
  readonly uid?: string
  readonly groups: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

/** What a caller shows: a bearer token in the headers, or the certificate of its TLS session (DER, already verified). */
export interface Credentials {
  readonly authorization: string | undefined
  readonly certificate: Uint8Array | undefined
}

/** Undefined: no credentials were shown. Throws `unauthorized()` for credentials that are wrong. */
export type Authenticate = (credentials: Credentials) => User | undefined | Promise<User | undefined>

/** What is asked, as authorization and admission look at it. */
export interface Attributes {
  readonly user: User
  /** get, list, watch, create, update, patch, delete, deletecollection; lower-case HTTP method for non-resource paths. */
  readonly verb: string
  readonly group: string
  readonly version: string
  readonly resource: string
  readonly subresource: string
  readonly namespace: string
  readonly name: string
  /** Set when the request is not about a resource: `/metrics`. */
  readonly path: string | undefined
  readonly fieldSelector?: string
  readonly labelSelector?: string
}

/** Of authorization. */
export interface Decision {
  readonly allowed: boolean
  /** Why, in upstream's words; shown in the Forbidden message and the audit annotation. */
  readonly reason: string
}

/** Synchronous: it answers from what it has cached, because it is on the path of every request. */
export type Authorize = (attributes: Attributes) => Decision

/** A write on its way through admission. */
export interface AdmissionRequest {
  readonly attributes: Attributes
  /** CONNECT: a stream is about to open; only `validate` is asked, and the object is its options. */
  readonly operation: 'CREATE' | 'UPDATE' | 'DELETE' | 'CONNECT'
  /** The request's own copy: mutating steps change it in place. Absent on DELETE. */
  readonly object: KubeObject | undefined
  readonly old: KubeObject | undefined
  readonly dryRun: boolean
  warn(text: string): void
}

/** A list of steps in one place, in upstream's order. Throws a StatusError to refuse. */
export interface Admission {
  /**
   * Before `mutate`: waits, at most a few seconds, where something the request needs may be about to appear (a fresh
   * namespace's default ServiceAccount). Undefined, as nearly always, when there is nothing to wait for.
   */
  prepare?(request: AdmissionRequest): Promise<void> | undefined
  mutate(request: AdmissionRequest): void
  validate(request: AdmissionRequest): void
  /** After the write is durable, or has failed: release or keep what was reserved (addresses, ports). */
  settled(request: AdmissionRequest, outcome: 'written' | 'failed'): void
}

/** Typed reads and writes of the registry, for steps and subresources. Reads are the newest committed state, from memory. */
export interface Registry {
  get<K extends KubeObject>(resource: Resource<K>, namespace: string, name: string): K | undefined
  list<K extends KubeObject>(resource: Resource<K>, namespace?: string): Iterable<K>
  create<K extends KubeObject>(resource: Resource<K>, object: K, user: User): Promise<K>
  /** Reads, changes a copy, writes it, and tries again on conflict. Returning undefined writes nothing. */
  change<K extends KubeObject>(
    resource: Resource<K>,
    namespace: string,
    name: string,
    user: User,
    change: (copy: K) => K | undefined,
  ): Promise<K>
  /** Removes at once, whatever the grace; finalizers still hold it. */
  delete(
    resource: Resource,
    namespace: string,
    name: string,
    preconditions?: { readonly uid?: string; readonly resourceVersion?: string },
  ): Promise<void>
  /**
   * What a DELETE request does once it is authorized and admitted: grace, preconditions, propagation, finalizers.
   * Throws NotFound and Conflict as that does.
   */
  remove(
    resource: Resource,
    namespace: string,
    name: string,
    user: User,
    options: Partial<DeleteOptions>,
  ): Promise<void>
  /** False for a resource that this server does not have (yet): PodDisruptionBudget, PriorityClass. */
  serves(resource: Resource): boolean
  /** What this server has, each in every version that it is served in. */
  resources(): Iterable<Resource>
  /** Called for every committed change of the resource, in order, before the write is answered. */
  onChange<K extends KubeObject>(
    resource: Resource<K>,
    listener: (next: K | undefined, old: K | undefined) => void,
  ): void
  /**
   * The same for one object (its namespace empty if it has none), or with no name for all, without saying how it changed:
   * nothing is parsed for it, so it may watch over a resource that others write much.
   */
  onTouch(resource: Resource, namespace: string, name: string | undefined, listener: () => void): void
}

/** A subresource or virtual kind that is not plain reading and writing of its parent. */
export interface SubresourceCall {
  readonly request: ApiRequest
  readonly attributes: Attributes
  /** Decoded body with its kind and apiVersion checked; undefined where there is none. */
  readonly body: KubeObject | undefined
  readonly query: URLSearchParams
  readonly dryRun: boolean
  readonly registry: Registry
}
/** An object to be encoded as the caller wants it, or an answer as it is. */
export type SubresourceAnswer = { readonly status: number; readonly object: unknown } | ApiResponse
/** Throws a StatusError to refuse. */
export type SubresourceHandler = (call: SubresourceCall) => Promise<SubresourceAnswer>

/** A request that becomes a byte stream (exec, attach, port-forward, log over WebSocket): HTTP/1.1 Upgrade, already authorized. */
export type UpgradeHandler = (call: SubresourceCall, socket: Duplex, head: Buffer) => Promise<void>
