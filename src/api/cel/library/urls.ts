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

/** As Go's url.ParseRequestURI takes it: an absolute URI or an absolute path. A text is what is wrong. */
function parse(text: string): Url | string {
  const fail = (words: string): string =>
    `URL parse error during conversion from string: parse ${JSON.stringify(text)}: ${words}`
  if (text === '') return fail('empty url')
  if (/\p{Cc}/u.test(text)) return fail('net/url: invalid control character in URL')
  const [, scheme, rest = text] = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/s.exec(text) ?? []
  if (scheme === undefined && text.startsWith(':')) return fail('missing protocol scheme')
  if (scheme === undefined && !text.startsWith('/')) return fail('invalid URI for request')
  const mark = rest.indexOf('?')
  const before = mark < 0 ? rest : rest.slice(0, mark)
  const query = mark < 0 ? '' : rest.slice(mark + 1)
  if (scheme !== undefined && !before.startsWith('/')) return fail('invalid URI for request')
  const authority = scheme !== undefined || !before.startsWith('///') ? /^\/\/([^/]*)(.*)$/s.exec(before) : null
  const isHosted = authority !== null && (scheme !== undefined || before.startsWith('//'))
  const host = isHosted ? (authority?.[1] ?? '').replace(/^.*@/, '') : ''
  const path = isHosted ? (authority?.[2] ?? '') : before
  if (/%(?![0-9A-Fa-f]{2})/.test(path))
    return fail(`invalid URL escape ${JSON.stringify(/%.{0,2}/.exec(path)?.[0] ?? '%')}`)
  if (isHosted && !/^(\[[^\]]*\]|[^:[\]\s<>"{}|\\^`]*)(:\d*)?$/.test(host))
    return fail('invalid character in host name')
  return new Url(text, { scheme: (scheme ?? '').toLowerCase(), host, path, query })
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

function queryOf({ parts }: Url): Map<string, string[]> {
  const map = new Map<string, string[]>()
  for (const [key, value] of new URLSearchParams(parts.query)) map.set(key, [...(map.get(key) ?? []), value])
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
