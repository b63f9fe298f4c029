import { Buffer } from 'node:buffer'
import type { KindDefinition } from '#api/kind.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import { badRequest } from '#api/meta/status.ts'
import { formatApiVersion } from '../meta/gvk.ts'
import { conform, DecodeError } from './conform.ts'
import { parseJson, SyntaxProblem } from './json.ts'
import { messageOfKind, openEnvelope } from './protobuf.ts'
import { decodeMessage } from './protobuf-decode.ts'
import { findMessage } from './table.ts'
import { parseYaml } from './yaml.ts'

export type Format = 'json' | 'yaml' | 'protobuf'
type Json = Record<string, unknown>

/** What a body should be: the kind of the URL, or of the subresource (`Scale`, `DeleteOptions`). */
export interface Expected {
  readonly apiVersion: string
  readonly kind: string
  /** Undefined for custom resources. */
  readonly message: string | undefined
  /** Custom resources: their own schema's check and pruning. */
  readonly conform?: KindDefinition['conform']
}

export interface Decoded {
  readonly object: KubeObject
  /** `unknown field "spec.foo"`, `duplicate field "spec.x"`: what fieldValidation is about. */
  readonly problems: readonly string[]
}

/**
 * A request's body as the object it should be: parsed, typed, pruned, with what upstream always writes filled in.
 * Throws a StatusError (400) in upstream's words.
 */
export function decodeBody(body: Uint8Array, format: Format, expected: Expected): Decoded {
  const { value, duplicates, messageRead } = parse(body, format, expected)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const got = Array.isArray(value)
      ? 'array'
      : value === null
        ? 'null'
        : typeof value === 'boolean'
          ? 'bool'
          : typeof value
    throw unrecognized(
      body,
      expected,
      `couldn't get version/kind; json parse error: json: cannot unmarshal ${got} into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }`,
    )
  }
  const object = value as Json
  checkKind(object, body, expected, messageRead)
  const unknown = wordsOf(expected, () => conformExpected(object, expected))
  const problems = [...unknown.map((path) => `unknown field ${JSON.stringify(path)}`), ...duplicates]
  return { object: object as unknown as KubeObject, problems }
}

/** The same check for an object that a patch made. Returns the paths that were unknown (and are gone). */
export function conformExpected(object: Json, expected: Expected): readonly string[] {
  if (expected.message !== undefined) return conform(expected.message, object)
  const meta = { metadata: object.metadata }
  const unknown = conform('meta/v1.PartialObjectMetadata', meta)
  object.metadata = meta.metadata
  return expected.conform === undefined ? unknown : [...unknown, ...expected.conform(object)]
}

/** What to expect for a body of this kind. */
export function expectedOf(kind: KindDefinition): Expected {
  const { group, version, kind: name } = kind.resource
  const apiVersion = formatApiVersion({ group, version })
  return { apiVersion, kind: name, message: kind.message, ...(kind.conform ? { conform: kind.conform } : {}) }
}

/** Runs a decoding step and puts upstream's words around what it throws. */
export function wordsOf<T>({ apiVersion, kind }: Expected, step: () => T): T {
  try {
    return step()
  } catch (cause) {
    if (cause instanceof DecodeError) throw cannotBeHandled(kind, apiVersion, kind, cause.message)
    throw cause
  }
}

interface Read {
  readonly value: unknown
  readonly duplicates: readonly string[]
  /** The kind that protobuf bytes were read as. */
  readonly messageRead?: string
}

function parse(body: Uint8Array, format: Format, expected: Expected): Read {
  try {
    if (format === 'protobuf') return parseProtobuf(body, expected)
    const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8')
    const { value, duplicates } = format === 'yaml' ? parseYaml(text) : parseJson(text)
    const isYamlText = duplicates[0]?.startsWith('line ') === true
    if (isYamlText) return { value, duplicates: [`yaml: unmarshal errors:\n  ${duplicates.join('\n  ')}`] }
    return { value, duplicates: duplicates.map((path) => `duplicate field ${JSON.stringify(path)}`) }
  } catch (cause) {
    if (cause instanceof SyntaxProblem)
      throw unrecognized(
        body,
        expected,
        format === 'yaml'
          ? `error converting YAML to JSON: ${cause.message}`
          : `couldn't get version/kind; json parse error: ${cause.message}`,
      )
    if (cause instanceof DecodeError) throw unrecognized(body, expected, cause.message)
    throw cause
  }
}

function parseProtobuf(body: Uint8Array, expected: Expected): Read {
  if (expected.message === undefined)
    throw new DecodeError(
      `object *unstructured.Unstructured does not implement the protobuf marshalling interface and cannot be decoded`,
    )
  const { apiVersion, kind, raw } = openEnvelope(body)
  const known =
    kind === '' ? expected.message : messageOfKind(apiVersion === '' ? expected.apiVersion : apiVersion, kind)
  const message = known ?? expected.message
  const value = { apiVersion: apiVersion || expected.apiVersion, kind: kind || expected.kind }
  if (known === undefined) return { value, duplicates: [] }
  try {
    return { value: { ...value, ...decodeMessage(message, raw) }, duplicates: [], messageRead: message }
  } catch (cause) {
    if (cause instanceof DecodeError) throw cannotBeHandled(value.kind, value.apiVersion, expected.kind, cause.message)
    throw cause
  }
}

/** Fills in a kind or version that the body leaves out, and refuses another. */
function checkKind(object: Json, body: Uint8Array, expected: Expected, messageRead: string | undefined): void {
  const { apiVersion = '', kind = '' } = object
  for (const [name, value] of Object.entries({ apiVersion, kind }))
    if (typeof value !== 'string')
      throw unrecognized(
        body,
        expected,
        `couldn't get version/kind; json parse error: json: cannot unmarshal ${typeof value === 'object' ? 'object' : typeof value === 'boolean' ? 'bool' : typeof value} into Go struct field .${name} of type string`,
      )
  if (expected.message === undefined && kind === '')
    throw unrecognized(body, expected, `Object 'Kind' is missing in '${summary(body)}'`)
  object.apiVersion = apiVersion === '' || apiVersion === null ? expected.apiVersion : apiVersion
  object.kind = kind === '' || kind === null ? expected.kind : kind
  const got = { apiVersion: String(object.apiVersion), kind: String(object.kind) }
  if (got.kind === expected.kind && got.apiVersion === expected.apiVersion) return
  const message = messageRead ?? messageOfKind(got.apiVersion, got.kind)
  // Options are registered in every version: kubectl sends `v1 DeleteOptions` and `policy/v1 DeleteOptions` alike.
  if (got.kind === expected.kind && expected.message?.startsWith('meta/v1.')) return
  if (got.kind === expected.kind && (message !== undefined || expected.message === undefined))
    throw badRequest(
      `the API version in the data (${got.apiVersion}) does not match the expected API version (${expected.apiVersion})`,
    )
  if (message === undefined || findMessage(message) === undefined)
    throw cannotBeHandled(
      got.kind,
      got.apiVersion,
      expected.kind,
      `no kind ${JSON.stringify(got.kind)} is registered for version ${JSON.stringify(got.apiVersion)}`,
    )
  throw cannotBeHandled(
    got.kind,
    got.apiVersion,
    expected.kind,
    `converting (${goPackage(got.apiVersion, true)}.${got.kind}) to (${goPackage(expected.apiVersion, false)}.${expected.kind}): unknown conversion`,
  )
}

/** Go's package of an external version (`v1`) or of the internal one (`core`, `apps`). */
function goPackage(apiVersion: string, external: boolean): string {
  const [group = '', version] = apiVersion.includes('/') ? apiVersion.split('/') : ['core', apiVersion]
  return external ? (version ?? '') : (group.split('.')[0] ?? group)
}

function cannotBeHandled(kind: string, apiVersion: string, as: string, why: string): Error {
  const version = apiVersion.slice(apiVersion.indexOf('/') + 1)
  return badRequest(`${kind} in version ${JSON.stringify(version)} cannot be handled as a ${as}: ${why}`)
}

const unrecognized = (body: Uint8Array, { kind }: Expected, why: string): Error =>
  badRequest(`the object provided is unrecognized (must be of type ${kind}): ${why} (${summary(body)})`)

/** The first bytes of a body, as text when it is JSON, else in hexadecimal. */
function summary(body: Uint8Array): string {
  if (body.length === 0) return '<empty>'
  const start = Buffer.from(body.subarray(0, 30))
  return `${start.toString(body[0] === 0x7b ? 'utf8' : 'hex')}${body.length > 30 ? ' ...' : ''}`
}
