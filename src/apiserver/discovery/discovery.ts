import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import type { KindDefinition } from '#api/kind.ts'
import { notAcceptable } from '#api/meta/status.ts'
import type { ApiResponse } from '#api/wire.ts'
import { aggregated, apiGroup, apiGroupList, apiResourceList, apiVersions, groupsOf } from './documents.ts'

/** The parts of a GET that discovery looks at. */
export interface DiscoveryRequest {
  /** `/api`, `/apis`, `/api/v1`, `/apis/apps`, `/apis/apps/v1`. */
  readonly path: string
  readonly accept: string | undefined
  readonly ifNoneMatch: string | undefined
}

/** Undefined for a path that discovery does not have: 404. */
export type Discovery = (request: DiscoveryRequest) => ApiResponse | undefined

/**
 * Answers for what is served now. Documents are made when first asked for and kept as bytes; build anew when a
 * custom resource comes or goes.
 */
export function buildDiscovery(kinds: readonly KindDefinition[], address: string): Discovery {
  const groups = groupsOf(kinds)
  const core = groups.filter((g) => g.name === '')
  const named = groups.filter((g) => g.name !== '')
  const cache = new Map<string, { bytes: Uint8Array; etag: string }>()
  const respond = ({ path, ifNoneMatch }: DiscoveryRequest, form: Form, make: () => object): ApiResponse => {
    const key = `${path} ${form}`
    let document = cache.get(key)
    if (document === undefined) {
      const bytes = Buffer.from(JSON.stringify(make()))
      document = { bytes, etag: `"${createHash('sha512').update(bytes).digest('hex').toUpperCase()}"` }
      cache.set(key, document)
    }
    const { bytes, etag } = document
    const headers = {
      'content-type': contentTypes[form],
      ...(form === 'plain' ? {} : { etag, vary: 'Accept', 'cache-control': 'public' }),
    }
    if (form !== 'plain' && matches(ifNoneMatch, etag)) return { status: 304, headers, body: new Uint8Array() }
    return { status: 200, headers, body: bytes }
  }

  return (request) => {
    const [, root, group = '', version, more] = request.path.replace(/\/$/, '').split('/')
    if (more !== undefined) return undefined
    if (root === 'api' && group === '') {
      const form = negotiate(request.accept, true)
      return respond(request, form, () => (form === 'plain' ? apiVersions(address) : aggregated(core, form)))
    }
    if (root === 'apis' && group === '') {
      const form = negotiate(request.accept, true)
      return respond(request, form, () => (form === 'plain' ? apiGroupList(groups) : aggregated(named, form)))
    }
    const wanted = root === 'api' ? { group: '', version: group } : { group, version }
    const served = (root === 'api' || root === 'apis') && groups.find((g) => g.name === wanted.group)
    if (!served || (root === 'apis' && group === '')) return undefined
    if (wanted.version === undefined) {
      return respond(request, negotiate(request.accept, false), () => apiGroup(served))
    }
    const list = served.versions.find((v) => v.version === wanted.version)
    if (list === undefined || (root === 'api' && version !== undefined)) return undefined
    return respond(request, negotiate(request.accept, false), () =>
      apiResourceList(served.name, list.version, list.kinds),
    )
  }
}

type Form = 'plain' | 'v2' | 'v2beta1'
const contentTypes: Readonly<Record<Form, string>> = {
  plain: 'application/json',
  v2: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList',
  v2beta1: 'application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList',
}

/** The first form of an Accept header that we have; of those with a q the greatest. Throws 406. */
function negotiate(accept: string | undefined, hasAggregated: boolean): Form {
  const entries = (accept ?? '*/*')
    .split(',')
    .map((entry) => {
      const [type = '', ...parameters] = entry.split(';').map((p) => p.trim())
      return { type, parameters: new Map(parameters.map((p) => p.split('=', 2) as [string, string])) }
    })
    .toSorted((a, b) => Number(b.parameters.get('q') ?? 1) - Number(a.parameters.get('q') ?? 1))
  for (const { type, parameters } of entries) {
    if (!['application/json', 'application/*', '*/*', ''].includes(type)) continue
    const as = parameters.get('as')
    if (as === undefined) return 'plain'
    const version = parameters.get('v')
    const known = as === 'APIGroupDiscoveryList' && parameters.get('g') === 'apidiscovery.k8s.io'
    if (hasAggregated && known && (version === 'v2' || version === 'v2beta1')) return version
  }
  throw notAcceptable('only the following media types are accepted: application/json')
}

const matches = (header: string | undefined, etag: string): boolean =>
  header?.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag) === true
