import type { Filter, HeaderChange, PathChange } from './engine.ts'
import type { HeaderFilter, PathModifier, RouteBackendRef, RouteFilter } from './objects.ts'
import type { Translation } from './translation.ts'

/** Filters of a rule, or with `ofBackend` of one backend, where only headers can be changed. */
export function translateFilters(
  filters: readonly RouteFilter[],
  where: 'rule' | 'backend',
  into: Translation,
): Filter[] {
  const types = filters.map(({ type }) => type)
  if (types.includes('RequestRedirect') && types.includes('URLRewrite'))
    into.refuse('IncompatibleFilters', 'a rule cannot both redirect and rewrite')
  return filters.flatMap((filter) => translateFilter(filter, where, into))
}

function translateFilter(filter: RouteFilter, where: 'rule' | 'backend', into: Translation): Filter[] {
  const { type, requestHeaderModifier, responseHeaderModifier, requestMirror, requestRedirect, urlRewrite, cors } =
    filter
  if (type === 'RequestHeaderModifier' && requestHeaderModifier)
    return [{ type: 'request-headers', ...headerChange(requestHeaderModifier) }]
  if (type === 'ResponseHeaderModifier' && responseHeaderModifier)
    return [{ type: 'response-headers', ...headerChange(responseHeaderModifier) }]
  if (where === 'backend') {
    into.refuse('UnsupportedValue', `backendRefs.filters: ${type} cannot be done for one backend`)
    return []
  }
  if (type === 'RequestMirror' && requestMirror) return mirror(requestMirror, into)
  if (type === 'RequestRedirect' && requestRedirect) return redirect(requestRedirect, into)
  if (type === 'URLRewrite' && urlRewrite) {
    const { hostname, path } = urlRewrite
    const change = path && pathChange(path, into)
    return [
      {
        type: 'rewrite',
        ...(hostname === undefined ? {} : { hostname }),
        ...(change === undefined ? {} : { path: change }),
      },
    ]
  }
  if (type === 'CORS' && cors) {
    return [
      {
        type: 'cors',
        allowOrigins: cors.allowOrigins ?? [],
        allowCredentials: cors.allowCredentials ?? false,
        allowMethods: cors.allowMethods ?? [],
        allowHeaders: cors.allowHeaders ?? [],
        exposeHeaders: cors.exposeHeaders ?? [],
        maxAgeSeconds: cors.maxAge ?? 5,
      },
    ]
  }
  into.refuse('UnsupportedValue', `filters: ${type} is not known here`)
  return []
}

function mirror(
  { backendRef, percent, fraction }: { backendRef: RouteBackendRef } & NonNullable<RouteFilter['requestMirror']>,
  into: Translation,
): Filter[] {
  const backend = into.backend(backendRef)
  if (backend === undefined) return []
  const share = fraction ?? { numerator: percent ?? 100, denominator: 100 }
  return [{ type: 'mirror', backend, fraction: { numerator: share.numerator, denominator: share.denominator ?? 100 } }]
}

const redirectCodes = [301, 302, 303, 307, 308] as const

function redirect(asked: NonNullable<RouteFilter['requestRedirect']>, into: Translation): Filter[] {
  const { scheme, hostname, path, port, statusCode = 302 } = asked
  const code = redirectCodes.find((known) => known === statusCode)
  if (code === undefined) {
    into.refuse('UnsupportedValue', `requestRedirect.statusCode: ${statusCode} is no redirect`)
    return []
  }
  if (scheme !== undefined && scheme !== 'http' && scheme !== 'https') {
    into.refuse('UnsupportedValue', `requestRedirect.scheme: ${JSON.stringify(scheme)} is neither http nor https`)
    return []
  }
  const change = path && pathChange(path, into)
  // A scheme without a port means that scheme's own port, whatever the listener's is.
  const target = port ?? (scheme === undefined ? undefined : scheme === 'https' ? 443 : 80)
  return [
    {
      type: 'redirect',
      code,
      ...(scheme === undefined ? {} : { scheme }),
      ...(hostname === undefined ? {} : { hostname }),
      ...(change === undefined ? {} : { path: change }),
      ...(target === undefined ? {} : { port: target }),
    },
  ]
}

function pathChange(
  { type, replaceFullPath, replacePrefixMatch }: PathModifier,
  into: Translation,
): PathChange | undefined {
  if (type === 'ReplaceFullPath') return { type: 'full', value: replaceFullPath ?? '/' }
  if (type === 'ReplacePrefixMatch') return { type: 'prefix', value: replacePrefixMatch ?? '/' }
  into.refuse('UnsupportedValue', `path: ${type} is not known here`)
  return undefined
}

/** Of several entries of one name, compared without case, the first counts. */
function headerChange({ set = [], add = [], remove = [] }: HeaderFilter): HeaderChange {
  return {
    set: firstOfName(set),
    add: firstOfName(add),
    remove: [...new Set(remove.map((name) => name.toLowerCase()))],
  }
}

export function firstOfName<E extends { readonly name: string }>(entries: readonly E[]): E[] {
  const seen = new Set<string>()
  return entries.filter(({ name }) => {
    const key = name.toLowerCase()
    if (seen.has(key)) return false
    seen.add(key)
    return true
  })
}
