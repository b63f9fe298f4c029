import { createHash } from 'node:crypto'
import type { Filter, Rule, Target } from '#gateway/engine.ts'
import { type Candidate, type Cell, trimmed } from '#gateway/table.ts'

/**
 * What a cell comes to in HAProxy: the value of its row, and texts that the value names by their hash. A row that needs no
 * more than a pool is `p<pool>|<signal>`; weights alone make it `w<hash>`, a split; everything else is `*<hash>`, a
 * program for weft.lua. Same meaning, same text, same hash: what is there already never has to be written again.
 */
export interface RowValue {
  readonly value: string
  /** Texts by hash, for the maps of the same name. */
  readonly programs: ReadonlyMap<string, string>
  /** Rows of the split map by key. */
  readonly splits: ReadonlyMap<string, string>
}

/** What notation needs to know of the rest of the engine. */
export interface Context {
  /** Name of the pool of a backend, undefined where there is none. */
  readonly pool: (backend: string) => string | undefined
  /** The rule is done by the side engine. */
  readonly aside: (rule: Rule) => boolean
}

/** Twelve characters of a hash: names that we make, which say what they stand for. */
export const hashOf = (text: string): string => createHash('sha1').update(text).digest('base64url').slice(0, 12)

/** Key of the signals of a rule and a backend (`''`: answered by the engine). */
export const signalKey = (rule: string, backend: string): string => hashOf(`${rule}\n${backend}`)

/** Signals of what no rule took. */
export const noSignal = 'none'

/** Only what can stand in a program as it is; all else as `%XX`, byte by byte. */
export const encodeToken = (text: string): string =>
  /^[\w.~:/@*+-]*$/.test(text)
    ? text
    : [...Buffer.from(text, 'utf8')]
        .map((byte) => (/[\w.~:/@*+-]/.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : hexByte(byte)))
        .join('')

const hexByte = (byte: number): string => `%${byte.toString(16).padStart(2, '0')}`

const nothing: ReadonlyMap<string, string> = new Map()

export function rowOf(cell: Cell, context: Context): RowValue {
  const [only] = cell.candidates
  if (only === undefined) {
    if (cell.otherwise === 'not-found') return { value: 'n', programs: nothing, splits: nothing }
  } else if (!only.conditional) {
    const simple = simpleRow(only.rule, context)
    if (simple !== undefined) return simple
  }
  const parts = cell.candidates.map((candidate) => candidateText(candidate, context))
  const sure = cell.candidates.some((c) => !c.conditional)
  if (!sure && cell.otherwise === 'not-found') parts.push(`A,404,${noSignal},`)
  const text = parts.join(';')
  const hash = hashOf(text)
  return { value: `*${hash}`, programs: new Map([[hash, text]]), splits: nothing }
}

/** A pool or a split, where the rule has nothing else to say. */
function simpleRow(rule: Rule, context: Context): RowValue | undefined {
  const targets = rule.targets.filter((t) => t.weight > 0)
  const asideOnly = (filters: readonly Filter[]): boolean => filters.every((f) => f.type === 'mirror')
  if (!asideOnly(rule.filters) || targets.length === 0 || !targets.every((t) => asideOnly(t.filters))) return undefined
  const rows = targets.map((target) => targetRow(rule, target, context))
  if (rows.some((row) => !row.startsWith('p'))) return undefined
  const [first = ''] = rows
  if (rows.length === 1) return { value: first, programs: nothing, splits: nothing }
  const shares = rows.map((row, i) => ({ row, weight: targets[i]?.weight ?? 0 }))
  const name = `w${hashOf(JSON.stringify(shares))}`
  return { value: name, programs: nothing, splits: new Map(splitRows(name, shares)) }
}

/** Where HAProxy reaches the side engine: gRPC needs HTTP/2 on the way, for its trailers. */
const sidePool = ({ id }: Rule): string => (id.startsWith('GRPC') ? 'pside2' : 'pside')

function targetRow(rule: Rule, { backend }: Target, context: Context): string {
  const pool = backend === undefined ? undefined : context.pool(backend)
  return pool === undefined || backend === undefined
    ? `e500|${signalKey(rule.id, '')}`
    : `${context.aside(rule) ? sidePool(rule) : pool}|${signalKey(rule.id, backend)}`
}

/** The hundred or so prefixes of a four-digit hexadecimal number that divide 65,536 by weight, exactly. */
export function splitRows(
  name: string,
  shares: readonly { readonly row: string; readonly weight: number }[],
): [string, string][] {
  const total = shares.reduce((sum, share) => sum + share.weight, 0)
  const rows: [string, string][] = []
  let from = 0
  let weight = 0
  for (const share of shares) {
    weight += share.weight
    const to = Math.round((weight / total) * 0x10000)
    for (const prefix of prefixesOf(from, to)) rows.push([`${name}|${randomHead}${prefix}`, share.row])
    from = to
  }
  return rows
}

/** HAProxy writes a number in hexadecimal with sixteen digits; ours is below 65,536. */
const randomHead = '000000000000'

/** Aligned blocks of powers of sixteen that make up `from` (inclusive) to `to` (exclusive), as hexadecimal prefixes. */
function* prefixesOf(from: number, to: number): Generator<string> {
  let at = from
  while (at < to) {
    let digits = 4
    let size = 1
    while (digits > 0 && at % (size * 16) === 0 && at + size * 16 <= to) {
      size *= 16
      digits--
    }
    yield at.toString(16).toUpperCase().padStart(4, '0').slice(0, digits)
    at += size
  }
}

function candidateText({ match, rule }: Candidate, context: Context): string {
  const out: string[] = []
  if (match.method !== undefined) out.push('m', match.method)
  if (match.path?.type === 'regex') out.push('x', match.path.value)
  for (const { name, type, value } of match.headers) out.push(type === 'exact' ? 'h' : 'H', name.toLowerCase(), value)
  for (const { name, type, value } of match.query) out.push(type === 'exact' ? 'q' : 'Q', name, value)
  const prefix = match.path?.type === 'prefix' ? trimmed(match.path.value) : match.path === undefined ? '' : undefined
  const own = signalKey(rule.id, '')
  const redirect = rule.filters.find((f) => f.type === 'redirect')
  const cors = rule.filters.find((f) => f.type === 'cors')
  if (cors !== undefined)
    out.push(
      ...['C', cors.allowCredentials ? '1' : '0', cors.allowMethods.join(', '), cors.allowHeaders.join(', ')],
      ...[cors.exposeHeaders.join(', '), `${cors.maxAgeSeconds}`, own, cors.allowOrigins.join(' ')],
    )
  if (redirect !== undefined) {
    const { code, scheme = '', hostname = '', port, path } = redirect
    const full = path?.type === 'full' ? path.value || '/' : ''
    const from = path?.type === 'prefix' ? (prefix ?? '') : '-'
    out.push('R', `${code}`, scheme, hostname, port === undefined ? '' : `${port}`, full, from, path?.value ?? '', own)
    return tokens(out)
  }
  out.push(...filterTokens(rule.filters, prefix))
  const targets = rule.targets.filter((t) => t.weight > 0)
  if (targets.length === 0) out.push('A', '500', own)
  for (const target of targets)
    out.push('T', `${target.weight}`, targetRow(rule, target, context), ...filterTokens(target.filters, prefix))
  return tokens(out)
}

const tokens = (list: readonly string[]): string => list.map((token) => `${encodeToken(token)},`).join('')

function filterTokens(filters: readonly Filter[], prefix: string | undefined): string[] {
  return filters.flatMap((filter): string[] => {
    switch (filter.type) {
      case 'request-headers':
      case 'response-headers': {
        const side = filter.type === 'request-headers' ? 'r' : 's'
        return [
          ...filter.set.flatMap((h) => [`${side}s`, h.name, h.value]),
          ...filter.add.flatMap((h) => [`${side}a`, h.name, h.value]),
          ...filter.remove.flatMap((name) => [`${side}d`, name]),
        ]
      }
      case 'rewrite': {
        const { hostname, path } = filter
        return [
          ...(hostname === undefined ? [] : ['uh', hostname]),
          ...(path === undefined ? [] : path.type === 'full' ? ['uf', path.value] : ['up', prefix ?? '', path.value]),
        ]
      }
      // Of the whole rule, or of the side engine.
      case 'redirect':
      case 'cors':
      case 'mirror':
        return []
      default:
        return filter satisfies never
    }
  })
}
