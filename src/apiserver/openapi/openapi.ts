import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { KindDefinition } from '#api/kind.ts'
import { notAcceptable } from '#api/meta/status.ts'
import type { ApiResponse } from '#api/wire.ts'
import { isCustom } from '../crd/kind.ts'
import { encodeDocument } from './gnostic.ts'
import { buildPaths } from './paths.ts'
import { buildSchemas, type Schema } from './schemas.ts'

/** The parts of a GET that OpenAPI looks at. */
export interface OpenApiRequest {
  /** `/openapi/v2`, `/openapi/v3`, `/openapi/v3/apis/apps/v1`. */
  readonly path: string
  readonly query: URLSearchParams
  readonly accept: string | undefined
  readonly ifNoneMatch: string | undefined
}

/** Undefined for a path that OpenAPI does not have: 404. */
export type OpenApi = (request: OpenApiRequest) => ApiResponse | undefined

/** Raise when the documents change for the same kinds: kubectl keeps v3 documents by their hash. */
const formatVersion = 1
const protobufAccepted = [
  'application/com.github.proto-openapi.spec.v2@v1.0+protobuf',
  'application/com.github.proto-openapi.spec.v2.v1.0+protobuf',
]
const protobufAnswered = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'

/**
 * Answers for what is served now. Documents are built when first asked for; build anew when a custom resource comes or
 * goes. `version` is the server's (`v1.36.0`).
 */
export function buildOpenApi(kinds: readonly KindDefinition[], version: string): OpenApi {
  const documents = new Map<string, Document>()
  const groupVersions = new Map<string, KindDefinition[]>()
  for (const kind of kinds) {
    const path = pathOf(kind)
    groupVersions.set(path, [...(groupVersions.get(path) ?? []), kind])
  }
  const once = (key: string, make: () => Uint8Array): Document => {
    const known = documents.get(key)
    if (known !== undefined) return known
    const bytes = make()
    const document = { bytes, etag: `"${createHash('sha512').update(bytes).digest('hex').toUpperCase()}"` }
    documents.set(key, document)
    return document
  }
  const info = { title: 'Weft', version }

  const v2 = (accept: string | undefined, ifNoneMatch: string | undefined): ApiResponse => {
    const build = (): Schema => ({
      swagger: '2.0',
      info,
      paths: buildPaths(kinds, 'v2'),
      definitions: buildSchemas(kinds, 'v2'),
    })
    const type = negotiateV2(accept)
    const document =
      type === 'json' ? once('v2', () => json(build())) : once('v2 protobuf', () => encodeDocument(build()))
    return answer(document, type === 'json' ? 'application/json' : protobufAnswered, ifNoneMatch)
  }

  const v3 = (path: string, list: readonly KindDefinition[], request: OpenApiRequest): ApiResponse => {
    const document = once(path, () =>
      json({
        openapi: '3.0.0',
        info,
        paths: buildPaths(list, 'v3'),
        components: { schemas: buildSchemas(list, 'v3') },
      }),
    )
    const hash = request.query.get('hash')
    const isCurrent = hash !== null && hash === hashOf(list)
    return answer(
      document,
      'application/json',
      request.ifNoneMatch,
      isCurrent ? { 'cache-control': 'public, immutable' } : {},
    )
  }

  return (request) => {
    const path = request.path.replace(/\/$/, '')
    if (path === '/openapi/v2') return v2(request.accept, request.ifNoneMatch)
    if (path !== '/openapi/v3' && !path.startsWith('/openapi/v3/')) return undefined
    if (!acceptsJson(request.accept))
      throw notAcceptable('only the following media types are accepted: application/json')
    if (path === '/openapi/v3') {
      const paths = Object.fromEntries(
        [...groupVersions].map(([gv, list]) => [gv, { serverRelativeURL: `/openapi/v3/${gv}?hash=${hashOf(list)}` }]),
      )
      return answer(
        once('v3', () => json({ paths })),
        'application/json',
        request.ifNoneMatch,
      )
    }
    const gv = path.slice('/openapi/v3/'.length)
    const list = groupVersions.get(gv)
    return list === undefined ? undefined : v3(gv, list, request)
  }
}

interface Document {
  readonly bytes: Uint8Array
  readonly etag: string
}

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))

function pathOf({ resource: { group, version } }: KindDefinition): string {
  return group === '' ? `api/${version}` : `apis/${group}/${version}`
}

let tableDigest: string | undefined

/** From what the document is built of, so that the index needs no document. */
function hashOf(kinds: readonly KindDefinition[]): string {
  tableDigest ??= createHash('sha512')
    .update(readFileSync(new URL('../../api/gen/table.json', import.meta.url)))
    .update(readFileSync(new URL('../../api/schema/describe.ts', import.meta.url)))
    .update(readFileSync(new URL('../../api/schema/describe-fields.ts', import.meta.url)))
    .digest('hex')
  const facts = kinds.map((k) => [
    k.resource,
    k.verbs,
    k.subresources,
    k.description,
    isCustom(k) ? k.schema : k.message,
  ])
  const text = JSON.stringify([formatVersion, tableDigest, facts])
  return createHash('sha512').update(text).digest('hex').toUpperCase()
}

function answer(
  { bytes, etag }: Document,
  type: string,
  ifNoneMatch: string | undefined,
  more: Readonly<Record<string, string>> = {},
): ApiResponse {
  const headers = { 'content-type': type, etag, vary: 'Accept', ...more }
  const isKnown = ifNoneMatch?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag) === true
  return isKnown ? { status: 304, headers, body: new Uint8Array() } : { status: 200, headers, body: bytes }
}

const typesOf = (accept: string | undefined): string[] =>
  (accept ?? '*/*').split(',').map((entry) => (entry.split(';')[0] ?? '').trim())

const isJson = (type: string): boolean => ['application/json', 'application/*', '*/*', ''].includes(type)

const acceptsJson = (accept: string | undefined): boolean => typesOf(accept).some(isJson)

function negotiateV2(accept: string | undefined): 'json' | 'protobuf' {
  for (const type of typesOf(accept)) {
    if (protobufAccepted.includes(type)) return 'protobuf'
    if (isJson(type)) return 'json'
  }
  throw notAcceptable(`only the following media types are accepted: application/json, ${protobufAccepted[0]}`)
}
