import { badRequest } from '#api/meta/status.ts'
import type { ApiRequest } from '#api/wire.ts'

/** What a request's method and path say, before anything is looked up. */
export interface Route {
  /** False: `/healthz`, `/apis/apps`, … */
  readonly isResource: boolean
  readonly path: string
  /** get, list, watch, create, update, patch, delete, deletecollection; the lower-case method where it is no resource. */
  readonly verb: string
  readonly group: string
  readonly version: string
  readonly namespace: string
  readonly resource: string
  readonly name: string
  readonly subresource: string
}

const collectionVerbs: Readonly<Record<ApiRequest['method'], string>> = {
  GET: 'list',
  HEAD: 'list',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'deletecollection',
}
const objectVerbs: Readonly<Record<ApiRequest['method'], string>> = {
  ...collectionVerbs,
  GET: 'get',
  HEAD: 'get',
  DELETE: 'delete',
}

/** Namespaces' own subresources; any other word after the name is a resource in the namespace. */
const namespaceSubresources = new Set(['status', 'finalize'])

/** Throws 400 for a path that cannot be decoded. */
export function parseRoute(method: ApiRequest['method'], path: string, query: URLSearchParams | undefined): Route {
  const parts = path.split('/')
  const [, root] = parts
  let at: number
  let group = ''
  let version = ''
  if (root === 'api' && parts.length > 3) {
    version = parts[2] ?? ''
    at = 3
  } else if (root === 'apis' && parts.length > 4) {
    group = parts[2] ?? ''
    version = parts[3] ?? ''
    at = 4
  } else return nonResource(method, path)
  if (parts.at(-1) === '') parts.pop()
  let watching = query !== undefined && isTrue(query.get('watch'))
  // The old form: /api/v1/watch/namespaces/default/pods
  if (parts[at] === 'watch' && parts.length > at + 1) {
    watching = true
    at++
  }
  let namespace = ''
  if (parts[at] === 'namespaces' && parts.length > at + 1) {
    namespace = decode(parts[at + 1] ?? '')
    const next = parts[at + 2]
    if (next !== undefined && !(parts.length === at + 3 && namespaceSubresources.has(next))) at += 2
  }
  const resource = decode(parts[at] ?? '')
  if (resource === '') return nonResource(method, path)
  const name = decode(parts[at + 1] ?? '')
  const subresource =
    parts.length > at + 2
      ? parts
          .slice(at + 2)
          .map(decode)
          .join('/')
      : ''
  const byName = name !== '' ? name : watching || method === 'GET' ? nameInSelector(query) : ''
  return {
    isResource: true,
    path,
    verb: watching && method === 'GET' ? 'watch' : name === '' ? collectionVerbs[method] : objectVerbs[method],
    group,
    version,
    namespace,
    resource,
    name: byName,
    subresource,
  }
}

function nonResource(method: string, path: string): Route {
  return {
    isResource: false,
    path,
    verb: method.toLowerCase(),
    group: '',
    version: '',
    namespace: '',
    resource: '',
    name: '',
    subresource: '',
  }
}

/** A list or watch of one name is authorized as that name. */
function nameInSelector(query: URLSearchParams | undefined): string {
  const selector = query?.get('fieldSelector') ?? ''
  return /^metadata\.name==?([^,=\\]+)$/.exec(selector)?.[1] ?? ''
}

function decode(part: string): string {
  if (!part.includes('%')) return part
  try {
    return decodeURIComponent(part)
  } catch (cause) {
    throw Object.assign(badRequest(`cannot decode ${JSON.stringify(part)} in the path`), { cause })
  }
}

/** As Go's ParseBool; an empty value is false. */
export const isTrue = (text: string | null): boolean => text !== null && /^(1|t|T|true|TRUE|True)$/.test(text)
