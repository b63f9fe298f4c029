import type { DeleteOptions } from '#api/gen/meta-v1.ts'
import type { KubeObject, Resource } from '#api/meta/resource.ts'
import { StatusError } from '#api/meta/status.ts'
import type { ApiRequest } from '#api/wire.ts'
import type { ListOptions, ObjectKey, PatchType, WatchEvent, WatchOptions, WriteOptions } from './client.ts'

/** Requests and answers of the API as values: which path, which query, which body; nothing here sends anything. */

export interface RequestParts extends Pick<ApiRequest, 'method' | 'path' | 'query'> {
  readonly accept: string
  readonly contentType?: string
  readonly body?: unknown
}

const json = 'application/json'
/** The plain form comes second, for a server that does not know the other. */
const partialObject = `${json};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,${json}`
const partialList = `${json};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,${json}`

const patchTypes: Readonly<Record<PatchType, string>> = {
  json: 'application/json-patch+json',
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  apply: 'application/apply-patch+yaml',
}

/** `/apis/apps/v1/namespaces/a/deployments/b/scale`. */
export function pathOf(resource: Resource, key: Partial<ObjectKey> = {}, subresource?: string): string {
  const { group, version } = resource
  const parts = group === '' ? ['api', version] : ['apis', group, version]
  if (key.namespace) parts.push('namespaces', key.namespace)
  parts.push(resource.resource)
  if (key.name) parts.push(key.name)
  if (subresource) parts.push(...subresource.split('/'))
  return `/${parts.map(encodeURIComponent).join('/')}`
}

function queryOf(values: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== '' && value !== false) query.set(name, String(value))
  }
  return query.toString()
}

const selection = (o: ListOptions) => ({ labelSelector: o.labelSelector, fieldSelector: o.fieldSelector })

const writeQuery = (o: WriteOptions) =>
  queryOf({ dryRun: o.dryRun === true ? 'All' : undefined, fieldManager: o.fieldManager })

export const getRequest = (resource: Resource, key: ObjectKey, subresource?: string): RequestParts => ({
  method: 'GET',
  path: pathOf(resource, key, subresource),
  query: '',
  accept: json,
})

export const listRequest = (resource: Resource, options: ListOptions): RequestParts => ({
  method: 'GET',
  path: pathOf(resource, { namespace: options.namespace }),
  query: queryOf({
    ...selection(options),
    limit: options.limit,
    continue: options.continue,
    resourceVersion: options.resourceVersion,
  }),
  accept: options.metadataOnly === true ? partialList : json,
})

export const watchRequest = (resource: Resource, options: WatchOptions): RequestParts => ({
  method: 'GET',
  path: pathOf(resource, { namespace: options.namespace }),
  query: queryOf({
    watch: true,
    allowWatchBookmarks: true,
    ...selection(options),
    resourceVersion: options.resourceVersion,
    sendInitialEvents: options.sendInitialEvents,
    resourceVersionMatch: options.sendInitialEvents === true ? 'NotOlderThan' : undefined,
  }),
  accept: options.metadataOnly === true ? partialObject : json,
})

export const createRequest = (
  resource: Resource,
  key: Partial<ObjectKey>,
  body: unknown,
  options: WriteOptions,
): RequestParts => ({
  method: 'POST',
  path: pathOf(resource, key, options.subresource),
  query: writeQuery(options),
  accept: json,
  contentType: json,
  body,
})

export const updateRequest = (resource: Resource, object: KubeObject, options: WriteOptions): RequestParts => ({
  method: 'PUT',
  path: pathOf(resource, object.metadata, options.subresource),
  query: writeQuery(options),
  accept: json,
  contentType: json,
  body: object,
})

export const patchRequest = (
  resource: Resource,
  key: ObjectKey,
  type: PatchType,
  patch: unknown,
  options: WriteOptions,
): RequestParts => ({
  method: 'PATCH',
  path: pathOf(resource, key, options.subresource),
  query: writeQuery(options),
  accept: json,
  contentType: patchTypes[type],
  body: patch,
})

function deleteBody(options: Partial<DeleteOptions>): DeleteOptions {
  const { gracePeriodSeconds, preconditions, orphanDependents, propagationPolicy, dryRun } = options
  return {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    ...(gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }),
    ...(preconditions === undefined ? {} : { preconditions }),
    ...(orphanDependents === undefined ? {} : { orphanDependents }),
    ...(propagationPolicy === undefined ? {} : { propagationPolicy }),
    ...(dryRun === undefined ? {} : { dryRun }),
  }
}

export const deleteRequest = (resource: Resource, key: ObjectKey, options: Partial<DeleteOptions>): RequestParts => ({
  method: 'DELETE',
  path: pathOf(resource, key),
  query: '',
  accept: json,
  contentType: json,
  body: deleteBody(options),
})

export const deleteCollectionRequest = (
  resource: Resource,
  options: ListOptions & Partial<DeleteOptions>,
): RequestParts => ({
  method: 'DELETE',
  path: pathOf(resource, { namespace: options.namespace }),
  query: queryOf({ ...selection(options), resourceVersion: options.resourceVersion }),
  accept: json,
  contentType: json,
  body: deleteBody(options),
})

/** The error an answer of 400 and above stands for, whatever its body is. */
export function statusErrorOf(status: number, body: string, retryAfter: string | undefined): StatusError {
  const retryAfterSeconds = Number(retryAfter)
  const details =
    Number.isFinite(retryAfterSeconds) && retryAfter !== undefined ? { details: { retryAfterSeconds } } : {}
  try {
    const parsed: unknown = JSON.parse(body)
    if (isStatusBody(parsed)) {
      return new StatusError({ ...details, ...parsed, code: parsed.code ?? status })
    }
  } catch {
    // Not JSON: a proxy in between, or plain text from a health endpoint. It becomes the message below.
  }
  const message = body.slice(0, 1024).trim() || `the server answered with status ${status}`
  return new StatusError({ status: 'Failure', code: status, reason: reasons[status] ?? 'Unknown', message, ...details })
}

const reasons: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  409: 'Conflict',
  410: 'Gone',
  415: 'UnsupportedMediaType',
  422: 'Invalid',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
}

type StatusBody = {
  readonly kind: 'Status'
  readonly code?: number
  readonly message?: string
  readonly reason?: string
}

const isStatusBody = (value: unknown): value is StatusBody & ConstructorParameters<typeof StatusError>[0] =>
  value !== null && typeof value === 'object' && (value as { kind?: unknown }).kind === 'Status'

const initialEventsEnd = 'k8s.io/initial-events-end'

/** One line of a watch. Throws the StatusError of an ERROR event. */
export function parseWatchLine<K extends KubeObject>(line: string): WatchEvent<K> {
  const { type, object } = JSON.parse(line) as { type: string; object: K }
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return { type, object }
    case 'BOOKMARK': {
      const { resourceVersion, annotations } = object.metadata
      return { type, resourceVersion, initialEventsEnd: annotations?.[initialEventsEnd] === 'true' }
    }
    case 'ERROR':
      throw statusErrorOf(500, JSON.stringify(object), undefined)
    default:
      throw new Error(`Cannot read a watch event of type ${JSON.stringify(type)}`)
  }
}

/** The lines of a stream of bytes. `lineBytesMax` bounds what is kept while a line is not complete. */
export async function* linesOf(body: AsyncIterable<Uint8Array>, lineBytesMax: number): AsyncGenerator<string, void> {
  // Pieces are joined once, when the line's end has come: joining at each would be quadratic for a large object.
  let pieces: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of body) {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(10, start)
      if (end < 0) break
      const last = chunk.subarray(start, end)
      const line = pieces.length === 0 ? last : Buffer.concat([...pieces, last])
      pieces = []
      bytes = 0
      start = end + 1
      if (line.length > 0) yield Buffer.from(line.buffer, line.byteOffset, line.length).toString()
    }
    if (start < chunk.length) {
      pieces.push(chunk.subarray(start))
      bytes += chunk.length - start
      if (bytes > lineBytesMax) throw new Error(`Cannot read a line of more than ${lineBytesMax} bytes`)
    }
  }
  if (bytes > 0) yield Buffer.concat(pieces).toString()
}
