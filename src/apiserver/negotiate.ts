import { notAcceptable, unsupportedMediaType } from '#api/meta/status.ts'
import type { Format } from '#api/schema/decode.ts'
import { protobufType } from '#api/schema/protobuf.ts'
import type { IncludeObject } from './registry/encoding.ts'

/** In what form a client wants its answer. */
export interface Form {
  readonly as: 'object' | 'metadata' | 'table'
  readonly format: 'json' | 'yaml'
}

const jsonObject: Form = { as: 'object', format: 'json' }
const known = new Map<string, Form>()
const knownMax = 256

/** The first form of an Accept header that we have, by its q. Throws 406. */
export function negotiate(accept: string | undefined): Form {
  if (accept === undefined || accept === '' || accept === 'application/json') return jsonObject
  const before = known.get(accept)
  if (before) return before
  const form = choose(accept)
  if (known.size >= knownMax) known.clear()
  if (accept.length < 1024) known.set(accept, form)
  return form
}

function choose(accept: string): Form {
  const clauses = accept
    .split(',')
    .map((clause) => {
      const [type = '', ...parameters] = clause.split(';').map((part) => part.trim())
      const of = new Map(parameters.map((part) => part.split('=', 2) as [string, string]))
      return { type: type.toLowerCase(), of, q: Number(of.get('q') ?? 1) }
    })
    .toSorted((a, b) => b.q - a.q)
  for (const { type, of, q } of clauses) {
    const format = formats[type]
    if (format === undefined || !(q > 0)) continue
    const as = forms[of.get('as') ?? '']
    if (as === undefined) continue
    if (as !== 'object' && (of.get('g') !== 'meta.k8s.io' || !/^v1(beta1)?$/.test(of.get('v') ?? ''))) continue
    return { as, format }
  }
  throw notAcceptable(
    'only the following media types are accepted: application/json, application/yaml, application/json;stream=watch',
  )
}

const formats: Readonly<Record<string, 'json' | 'yaml'>> = {
  'application/json': 'json',
  'application/*': 'json',
  '*/*': 'json',
  'application/yaml': 'yaml',
}
const forms: Readonly<Record<string, Form['as']>> = {
  '': 'object',
  Table: 'table',
  PartialObjectMetadata: 'metadata',
  PartialObjectMetadataList: 'metadata',
}

/** What a table's rows carry beside the cells. */
export function includeObjectOf(query: URLSearchParams): IncludeObject {
  const asked = query.get('includeObject')
  return asked === 'None' || asked === 'Object' ? asked : 'Metadata'
}

/** The encoding of a request body. Custom resources have no protobuf form. Throws 415. */
export function bodyFormat(contentType: string | undefined, hasProtobuf: boolean): Format {
  const type = (contentType ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  switch (type) {
    case '':
    case 'application/json':
      return 'json'
    case 'application/yaml':
      return 'yaml'
  }
  if (type === protobufType && hasProtobuf) return 'protobuf'
  const accepted = ['application/json', 'application/yaml', ...(hasProtobuf ? [protobufType] : [])]
  throw unsupportedMediaType(
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
  )
}
