import { formatApiVersion } from '#api/meta/gvk.ts'
import { managerFromUserAgent } from '#api/meta/managed-fields.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest, fieldError, invalid, StatusError } from '#api/meta/status.ts'
import type { Expected } from '#api/schema/decode.ts'
import { messageOfKind } from '#api/schema/protobuf.ts'
import { type FieldValidation, fieldValidationOf } from '#api/schema/strict.ts'
import type { ApiRequest, ApiResponse } from '#api/wire.ts'
import { type Form, includeObjectOf } from './negotiate.ts'
import type { Options } from './registry/delete.ts'
import type { Encoding } from './registry/encoding.ts'
import type { Served } from './registry/served.ts'
import type { WriteContext } from './registry/write.ts'
import { asYaml, bytesResponse } from './respond.ts'
import type { Route } from './route.ts'
import type { Attributes } from './step.ts'

/** A request about a resource: authenticated, authorized, its body not yet read as anything. */
export interface ResourceCall {
  readonly route: Route
  readonly request: ApiRequest
  readonly attributes: Attributes
  readonly query: URLSearchParams
  warn(text: string): void
  /** Whether the same user may also do this: PUT of an absent object is a create. Throws Forbidden. */
  authorize(attributes: Attributes): void
}

/** 404 for a resource that nobody serves, in upstream's words. */
export const notServed = (): StatusError =>
  new StatusError({
    status: 'Failure',
    code: 404,
    reason: 'NotFound',
    message: 'the server could not find the requested resource',
    details: {},
  })

/** Of the URL; empty for what has none. */
export const namespaceOf = ({ definition }: Served, { namespace }: Route): string =>
  definition.resource.namespaced ? namespace : ''

/** What the caller accepts an object as: itself, its metadata, a table's rows. */
export function encodingFor(served: Served, form: Form, query: URLSearchParams): Encoding {
  switch (form.as) {
    case 'object':
      return served.asObject
    case 'metadata':
      return served.asMetadata
    case 'table':
      return served.asTable(includeObjectOf(query))
    default:
      return form.as satisfies never
  }
}

/** The answer with these bytes; as YAML where that was asked for. */
export function shown(
  status: number,
  bytes: Uint8Array,
  encoding: Encoding,
  form: Form,
): ApiResponse | Promise<ApiResponse> {
  const response = bytesResponse(status, bytes, encoding.contentType)
  return form.format === 'yaml' ? asYaml(response) : response
}

/** What a handler's body should be: declared with the subresource, or the virtual kind itself. */
export function handlerExpected(served: Served | undefined, { subresource }: Route): Expected | undefined {
  if (served === undefined) return undefined
  if (subresource === '') return served.expected
  const declared = served.definition.subresources.find((each) => each.name === subresource)
  if (declared?.kind === undefined) return served.expected
  const { group, version } = served.definition.resource
  const at = { group: declared.group ?? group, version: declared.version ?? version }
  const apiVersion = formatApiVersion(at)
  return { apiVersion, kind: declared.kind, message: messageOfKind(apiVersion, declared.kind) }
}

/** The namespace of the URL, in the object. Throws 400 where they differ. */
export function placeIn({ definition }: Served, object: KubeObject, route: Route): void {
  const { metadata } = object
  if (!definition.resource.namespaced) {
    delete metadata.namespace
    return
  }
  if (metadata.namespace && metadata.namespace !== route.namespace) {
    throw badRequest(`the namespace of the provided object does not match the namespace sent on the request`)
  }
  metadata.namespace = route.namespace
}

/** The object, if its name is the URL's. Throws 400. */
export function checkedName(object: KubeObject, name: string): KubeObject {
  if (object.metadata.name !== name) {
    throw badRequest(`the name of the object (${object.metadata.name}) does not match the name on the URL (${name})`)
  }
  return object
}

/** Empty where there is none. */
export function bodyOf({ request }: ResourceCall): Uint8Array {
  return request.body ?? new Uint8Array()
}

/** `fieldValidation` of the query. Throws 422 for a word that it does not know. */
export function validationOf(query: URLSearchParams, options: string): FieldValidation {
  return fieldValidationOf(query.get('fieldValidation'), options)
}

const managerLengthMax = 128

/** On whose behalf and how a write is made. `options`: the kind that a bad parameter is said of. Throws 422. */
export function contextOf(call: ResourceCall, query: URLSearchParams, options: string, sent?: Options): WriteContext {
  const { attributes, request } = call
  const asked = query.get('fieldManager')
  if (asked !== null && (asked.length > managerLengthMax || /[^\x20-\x7e]/.test(asked))) {
    throw invalid('meta.k8s.io', options, '', [
      fieldError.invalid('fieldManager', asked, 'must be at most 128 printable characters'),
    ])
  }
  return {
    attributes,
    dryRun: sent?.dryRun === undefined ? dryRunOf(query, options) : dryRunIn(sent.dryRun, options),
    manager: asked || managerFromUserAgent(request.headers['user-agent']),
    warn: (text) => call.warn(text),
  }
}

/** Throws 422 for anything but `All`. */
export const dryRunOf = (query: URLSearchParams, options: string): boolean => dryRunIn(query.getAll('dryRun'), options)

function dryRunIn(values: readonly string[], options: string): boolean {
  const some = values.filter((value) => value !== '')
  if (some.length === 0) return false
  if (some.some((value) => value !== 'All')) {
    throw invalid('meta.k8s.io', options, '', [fieldError.notSupported('dryRun', some, ['All'])])
  }
  return true
}

/** A parameter of the query, 0 where it is absent. Throws 400. */
export function integer(query: URLSearchParams, name: string): number {
  const text = query.get(name)
  if (text === null || text === '') return 0
  if (!/^-?\d{1,15}$/.test(text)) throw badRequest(`${name}: ${JSON.stringify(text)} is not an integer`)
  return Number(text)
}
