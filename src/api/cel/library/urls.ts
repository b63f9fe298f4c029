import { type Overload, overload } from '../functions.ts'
import { EvaluationError, type Opaque } from '../values.ts'
import { overText } from './standard.ts'

interface Parts {
  readonly scheme: string
  /** As it was written: `[::1]:8080`. */
  readonly host: string
  readonly path: string
  readonly query: string
}

class Url implements Opaque {
  readonly typeName = 'kubernetes.URL'
  readonly parts: Parts
  readonly text: string
  constructor(text: string, parts: Parts) {
    this.text = text
    this.parts = parts
  }
  equals(other: Opaque): boolean {
    return other instanceof Url && other.text === this.text
  }
}

const isBadEscape = (text: string): boolean => /%(?![0-9A-Fa-f]{2})/.test(text)
const quoteEscape = (text: string): string => JSON.stringify(/%(?:.{0,2})/.exec(text)?.[0] ?? '%')

/**
 * Whether Go's url.ParseRequestURI takes it (an absolute URI or an absolute path), and what its url.Parse makes of it: the
 * fragment is no part of the path. A text is what is wrong.
 */
function parse(text: string): Url | string {
  const fail = (words: string): string =>
    `URL parse error during conversion from string: parse ${JSON.stringify(text)}: ${words}`
  if (text === '') return fail('empty url')
  if (/\p{Cc}/u.test(text)) return fail('net/url: invalid control character in URL')
  const [, scheme = '', rest = text] = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s.exec(text) ?? []
  if (scheme === '' && text.startsWith(':')) return fail('missing protocol scheme')
  const mark = rest.indexOf('?')
  const before = mark < 0 ? rest : rest.slice(0, mark)
  const query = withoutFragment(mark < 0 ? '' : rest.slice(mark + 1))
  const parts = { scheme: scheme.toLowerCase(), host: '', path: '', query }
  if (!before.startsWith('/')) return scheme === '' ? fail('invalid URI for request') : new Url(text, parts)
  const hasHost = before.startsWith('//') && (scheme !== '' || !before.startsWith('///'))
  const [, authority = '', path = before] = hasHost ? (/^\/\/([^/]*)(.*)$/s.exec(before) ?? []) : []
  if (isBadEscape(path)) return fail(`invalid URL escape ${quoteEscape(path)}`)
  const host = parseHost(authority.replace(/^.*@/s, ''))
  if ('words' in host) return fail(host.words)
  return new Url(text, { ...parts, host: host.host, path: withoutFragment(path) })
}

const withoutFragment = (text: string): string => text.split('#', 1)[0] ?? ''

/** A host may only escape what is not ASCII; a zone within brackets, its percent sign. */
function parseHost(text: string): { readonly host: string } | { readonly words: string } {
  const forbidden = /%(?![89A-Fa-f][0-9A-Fa-f]|25[^\]]*\])/.exec(text)
  if (forbidden !== null)
    return { words: `invalid URL escape ${JSON.stringify(text.slice(forbidden.index, forbidden.index + 3))}` }
  const odd = /[\s#/?@^`{|}\\]/.exec(text)
  if (odd !== null) return { words: `invalid character ${JSON.stringify(odd[0])} in host name` }
  if (text.startsWith('[') && !text.includes(']')) return { words: "missing ']' in host" }
  const port = text.startsWith('[') ? text.slice(text.indexOf(']') + 1) : /:.*$/s.exec(text)?.[0]
  if (port !== undefined && port !== '' && !/^:\d*$/.test(port))
    return { words: `invalid port ${JSON.stringify(port)} after host` }
  try {
    return { host: decodeURIComponent(text) }
  } catch {
    return { host: text }
  }
}

function urlOf(text: string): Url {
  const url = parse(text)
  if (typeof url === 'string') throw new EvaluationError(url)
  return url
}

const hostname = ({ parts }: Url): string =>
  /^\[([^\]]*)\]|^([^:]*)/
    .exec(parts.host)
    ?.slice(1)
    .find((p) => p !== undefined) ?? ''
const port = ({ parts }: Url): string => /:(\d*)$/.exec(parts.host)?.[1] ?? ''

/** What Go escapes in a path, beyond what is escaped already. */
const escaped = (path: string): string =>
  path.replace(/[^A-Za-z0-9\-._~!$&'()*+,;=:@/%[\]]+/g, (part) => encodeURIComponent(part))

/** Pairs that are written wrongly are left out, as Go does. */
function queryOf({ parts }: Url): Map<string, string[]> {
  const map = new Map<string, string[]>()
  for (const pair of parts.query.split('&')) {
    if (pair === '' || pair.includes(';') || isBadEscape(pair)) continue
    for (const [key, value] of new URLSearchParams(pair)) map.set(key, [...(map.get(key) ?? []), value])
  }
  return map
}

/** Kubernetes' URL functions. */
export const urls: readonly Overload[] = [
  overload('url(string): kubernetes.URL', urlOf, overText()),
  overload('isURL(string): bool', (text: string) => typeof parse(text) !== 'string'),
  overload('kubernetes.URL.getScheme(): string', ({ parts }: Url) => parts.scheme),
  overload('kubernetes.URL.getHost(): string', ({ parts }: Url) => parts.host),
  overload('kubernetes.URL.getHostname(): string', hostname),
  overload('kubernetes.URL.getPort(): string', port),
  overload('kubernetes.URL.getEscapedPath(): string', ({ parts }: Url) => escaped(parts.path)),
  overload('kubernetes.URL.getQuery(): map<string, list<string>>', queryOf),
]
