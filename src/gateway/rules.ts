import { parseDuration } from './durations.ts'
import type { Match, PathMatch, Retry, Rule, Target, Timeouts, ValueMatch } from './engine.ts'
import { firstOfName, translateFilters } from './filters.ts'
import type { GrpcRule, HttpMatch, HttpRule, RouteBackendRef, ValueMatch as WrittenMatch } from './objects.ts'
import { regexFault } from './regex.ts'
import type { Translation } from './translation.ts'

/**
 * One rule of an HTTPRoute. What is in it and cannot be done is told to `into`; a rule that was refused must not be
 * served as if that were not there.
 */
export function httpRule(id: string, rule: HttpRule, into: Translation): Rule {
  const timeouts = timeoutsOf(rule.timeouts ?? {}, into)
  const retry = rule.retry && retryOf(rule.retry, into)
  if (rule.sessionPersistence !== undefined)
    into.refuse('UnsupportedValue', 'sessionPersistence cannot be done by this gateway')
  return {
    id,
    matches: (rule.matches ?? []).map((match) => httpMatch(match, into)),
    filters: translateFilters(rule.filters ?? [], 'rule', into),
    targets: targetsOf(rule.backendRefs ?? [], into),
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(retry === undefined ? {} : { retry }),
  }
}

function httpMatch({ path, method, headers = [], queryParams = [] }: HttpMatch, into: Translation): Match {
  return {
    ...(path === undefined ? {} : { path: pathMatch(path.type ?? 'PathPrefix', path.value ?? '/', into) }),
    ...(method === undefined ? {} : { method }),
    headers: firstOfName(headers).map((header) => valueMatch(header, 'headers', into)),
    query: firstOfExactName(queryParams).map((param) => valueMatch(param, 'queryParams', into)),
  }
}

/** Names of query parameters differ by case. */
function firstOfExactName(entries: readonly WrittenMatch[]): WrittenMatch[] {
  return entries.filter(({ name }, i) => entries.findIndex((other) => other.name === name) === i)
}

function pathMatch(type: string, value: string, into: Translation): PathMatch {
  if (type === 'Exact') return { type: 'exact', value }
  if (type === 'PathPrefix') return { type: 'prefix', value }
  if (type === 'RegularExpression') return { type: 'regex', value: checked(value, 'path', into) }
  into.refuse('UnsupportedValue', `matches.path.type: ${type} is not known here`)
  return { type: 'exact', value }
}

function valueMatch({ type = 'Exact', name, value }: WrittenMatch, field: string, into: Translation): ValueMatch {
  if (type === 'Exact') return { type: 'exact', name, value }
  if (type === 'RegularExpression') return { type: 'regex', name, value: checked(value, field, into) }
  into.refuse('UnsupportedValue', `matches.${field}.type: ${type} is not known here`)
  return { type: 'exact', name, value }
}

function checked(pattern: string, field: string, into: Translation): string {
  const fault = regexFault(pattern)
  if (fault !== undefined) into.refuse('UnsupportedValue', `matches.${field}: ${JSON.stringify(pattern)}: ${fault}`)
  return pattern
}

function targetsOf(refs: readonly RouteBackendRef[], into: Translation): Target[] {
  return refs.map((ref) => {
    const backend = into.backend(ref)
    const filters = translateFilters(ref.filters ?? [], 'backend', into)
    return { weight: ref.weight ?? 1, ...(backend === undefined ? {} : { backend }), filters }
  })
}

function timeoutsOf(
  { request, backendRequest }: NonNullable<HttpRule['timeouts']>,
  into: Translation,
): Timeouts | undefined {
  const read = (text: string | undefined, field: string): number | undefined => {
    if (text === undefined) return undefined
    const ms = parseDuration(text)
    if (ms === undefined) into.refuse('UnsupportedValue', `timeouts.${field}: ${JSON.stringify(text)} is no duration`)
    return ms
  }
  const requestMs = read(request, 'request')
  const backendRequestMs = read(backendRequest, 'backendRequest')
  if (requestMs === undefined && backendRequestMs === undefined) return undefined
  return {
    ...(requestMs === undefined ? {} : { requestMs }),
    ...(backendRequestMs === undefined ? {} : { backendRequestMs }),
  }
}

function retryOf({ codes = [], attempts = 1, backoff }: NonNullable<HttpRule['retry']>, into: Translation): Retry {
  const backoffMs = backoff === undefined ? undefined : parseDuration(backoff)
  if (backoff !== undefined && backoffMs === undefined)
    into.refuse('UnsupportedValue', `retry.backoff: ${JSON.stringify(backoff)} is no duration`)
  return { codes, attempts, ...(backoffMs === undefined ? {} : { backoffMs }) }
}

/** One rule of a GRPCRoute: a method is a path. */
export function grpcRule(id: string, rule: GrpcRule, into: Translation): Rule {
  if (rule.sessionPersistence !== undefined)
    into.refuse('UnsupportedValue', 'sessionPersistence cannot be done by this gateway')
  return {
    id,
    matches: (rule.matches ?? []).map(({ method, headers = [] }) => {
      const path = method && grpcPath(method, into)
      return {
        ...(path === undefined ? {} : { path }),
        headers: firstOfName(headers).map((header) => valueMatch(header, 'headers', into)),
        query: [],
      }
    }),
    filters: translateFilters(rule.filters ?? [], 'rule', into),
    targets: targetsOf(rule.backendRefs ?? [], into),
  }
}

function grpcPath(
  { type = 'Exact', service, method }: { type?: string; service?: string; method?: string },
  into: Translation,
): PathMatch | undefined {
  if (service === undefined && method === undefined) return undefined
  if (type === 'Exact') {
    if (service === undefined) return { type: 'regex', value: `/[^/]+/${escaped(method ?? '')}` }
    return method === undefined
      ? { type: 'prefix', value: `/${service}` }
      : { type: 'exact', value: `/${service}/${method}` }
  }
  if (type === 'RegularExpression') {
    const part = (text: string | undefined): string =>
      text === undefined ? '[^/]+' : `(?:${checked(text, 'method', into)})`
    return { type: 'regex', value: `/${part(service)}/${part(method)}` }
  }
  into.refuse('UnsupportedValue', `matches.method.type: ${type} is not known here`)
  return undefined
}

const escaped = (text: string): string => text.replaceAll(/[^A-Za-z0-9_]/g, (char) => `\\${char}`)
