import { join } from 'node:path'
import { latencyBuckets } from '#gateway/engine.ts'

/** What the configuration file depends on, and nothing else does: everything that a reload is needed for. */
export interface Capacity {
  /** Pools of each class: a backend of a Service takes one. */
  readonly pools: Readonly<Record<PoolClass, number>>
  /** Sockets with certificates of their own, by class. */
  readonly tlsSlots: Readonly<Record<TlsClass, number>>
}

export const poolClasses = ['h1', 'h2c'] as const
export type PoolClass = (typeof poolClasses)[number]

/** `strict`: a name that no certificate has is refused in the handshake; `lax`: it gets the first certificate. */
export const tlsClasses = ['strict', 'lax'] as const
export type TlsClass = (typeof tlsClasses)[number]

/** Listening sockets by descriptor, as HAProxy inherits them: both families. */
export interface ListenFds {
  readonly plain: readonly number[]
  readonly tls: Readonly<Record<TlsClass, readonly (readonly number[])[]>>
}

export interface ConfigOptions {
  readonly capacity: Capacity
  readonly fds: ListenFds
  /** Holds maps, sockets and lists. */
  readonly dir: string
  readonly luaFile: string
  readonly threads: number
  readonly connectionsMax: number
  /** Servers of each pool at the start: those that the run-time API added since are not in the file otherwise. */
  readonly servers: ReadonlyMap<string, readonly ServerLine[]>
  /** Requests are counted by rule, backend, status and time. */
  readonly goldenSignals: boolean
  /** Names the socket of the run-time API, so that an old process and a new one are told apart. */
  readonly generation: number
}

export interface ServerLine {
  readonly name: string
  readonly address: string
  readonly port: number
}

/** Pools of a class are `p<letter><number>`: a row that begins with `p` needs no second look. */
export const poolName = (kind: PoolClass, number: number): string => `p${kind === 'h1' ? 'a' : 'b'}${number}`

/** What `add server` says after the name and address; the two about pools are why connections are used again. */
export const serverOptions = (kind: PoolClass): string =>
  `${kind === 'h2c' ? 'proto h2 ' : ''}pool-purge-delay 5s pool-max-conn -1`

export const crtListPath = (dir: string, kind: TlsClass, slot: number): string =>
  join(dir, 'tls', `${kind}-${slot}.list`)

/**
 * One line a request, of words and hexadecimal digits: status, how it ended, row, who asked whom, milliseconds, method,
 * endpoint, host and path. Told of requests that no backend answered, and of all while somebody listens.
 */
const eventFormat =
  '%ST|%ts|%[var(txn.row)]|%ci|%cp|%fi|%fp|%Ta|%HV|%[var(txn.method)]|%s|%[var(txn.host),hex]|%[var(txn.path),hex]'
const eventRingBytes = 4 << 20

/** A client that asks one listener by SNI and another by Host on its connection is told to connect anew (RFC 9110, 15.5.20). */
const misdirected = [
  'tcp-request session set-var(sess.sni) ssl_fc_sni,lower',
  'http-request lua.misdirected if { ssl_fc_has_sni } !{ var(txn.host),strcmp(sess.sni) eq 0 }',
]

/** Headers and request line together; a request with more is refused with 400 and counted. */
const bufferBytes = 32_768
/** A header that is not complete by then: 408. A slow body is the backend's business. */
const headerWithinSeconds = 10

/**
 * The whole configuration. No name, path, header or other text of a user's is in it. Sources: HAProxy 2.6 configuration
 * manual, sections 3, 4.2, 5.
 */
export function configText(options: ConfigOptions): string {
  const { capacity, fds, dir, luaFile, threads, connectionsMax, servers, goldenSignals, generation } = options
  const lines: string[] = []
  const section = (head: string, ...body: readonly string[]): void => {
    lines.push(head, ...body.map((line) => `  ${line}`), '')
  }
  section(
    'global',
    `nbthread ${threads}`,
    `maxconn ${connectionsMax}`,
    `stats socket ${join(dir, `cli-${generation}.sock`)} mode 600 level admin`,
    'stats timeout 1d',
    `setenv WEFT_ENGINE_DIR ${dir}`,
    `lua-load-per-thread ${luaFile}`,
    `tune.bufsize ${bufferBytes}`,
    'tune.maxrewrite 4096',
    // Every pattern of ours is found in a tree; remembering what was not found costs more than to look again.
    'tune.pattern.cache-size 0',
    // A client that opens streams and resets them costs what a client that asks does.
    'tune.h2.max-concurrent-streams 100',
    'ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets',
    // A WebSocket of an old worker may live as long as it likes, within reason.
    'hard-stop-after 15m',
  )
  section(
    'defaults common',
    'mode http',
    `timeout http-request ${headerWithinSeconds}s`,
    'timeout client 1h',
    'timeout http-keep-alive 60s',
    'timeout connect 2s',
    // Inactivity only: deadlines of rules are kept by the side engine.
    'timeout server 1h',
    'timeout tunnel 24h',
    'timeout queue 5s',
    'option forwardfor',
    // Without it a reload cuts idle connections in the face of the next request.
    'option idle-close-on-response',
    'option http-ignore-probes',
  )
  section('defaults h1 from common', 'balance roundrobin', 'retries 3', 'option redispatch 1', 'retry-on conn-failure')
  section(
    'defaults h2c from common',
    'balance roundrobin',
    'retries 3',
    'option redispatch 1',
    'retry-on conn-failure',
    // A request of HTTP/1 has no scheme, and HAProxy would say https.
    'http-request set-uri http://%[req.hdr(host)]%[pathq] if HTTP_1.1',
  )
  section('ring events', 'format raw', `size ${eventRingBytes}`, 'maxlen 4000')
  const counted = (...rules: readonly string[]): readonly string[] => (goldenSignals ? rules : [])
  if (goldenSignals)
    section('backend signals from common', 'stick-table type string len 48 size 200k store http_req_cnt')
  frontend(
    'plain',
    fds.plain.map((fd) => `bind fd@${fd}`),
    'http',
  )
  const binds = tlsClasses.flatMap((kind) =>
    fds.tls[kind].flatMap((slot, i) =>
      slot.map(
        (fd) =>
          `bind fd@${fd} ssl crt-list ${crtListPath(dir, kind, i)} alpn h2,http/1.1${kind === 'strict' ? ' strict-sni' : ''}`,
      ),
    ),
  )
  if (binds.length > 0) frontend('tls', binds, 'https')
  section(
    'backend answer from common',
    ...counted('http-request track-sc1 "var(txn.row),concat(|,txn.code)" table signals'),
    'http-request set-log-level silent unless { var(proc.tell) -m bool }',
    ...[301, 302, 303, 307, 308].map(
      (code) =>
        `http-request return status ${code} hdr location %[var(txn.location)] if { var(txn.code) -m str ${code} }`,
    ),
    ...corsHeaders.map(
      (name) =>
        `http-after-response set-header ${name} %[var(txn.${name.replaceAll('-', '_')})] if { var(txn.${name.replaceAll('-', '_')}) -m found }`,
    ),
    ...['204', '404', '421', '500', '503'].map(
      (code) => `http-request return status ${returned(code)} if { var(txn.code) -m str ${code} }`,
    ),
    'http-request return status 500',
  )
  for (const [name, proto] of [
    ['pside', ''],
    ['pside2', ' proto h2'],
  ] as const)
    section(
      `backend ${name} from h1`,
      'http-request del-header x-weft- -m beg',
      'http-request set-header x-weft-rule %[var(txn.row),field(2,|)]',
      'http-request set-header x-weft-scheme %[ssl_fc,iif(https,http)]',
      ...(proto === '' ? [] : ['http-request set-uri http://%[req.hdr(host)]%[pathq] if HTTP_1.1']),
      `server side unix@${join(dir, proto === '' ? 'side.sock' : 'side2.sock')}${proto} pool-purge-delay 5s pool-max-conn -1`,
    )
  for (const kind of poolClasses)
    for (let i = 0; i < capacity.pools[kind]; i++) {
      const name = poolName(kind, i)
      const own = (servers.get(name) ?? []).map(
        ({ name: server, address, port }) => `server ${server} ${hostPort(address, port)} ${serverOptions(kind)}`,
      )
      lines.push(`backend ${name} from ${kind}`, ...own.map((line) => `  ${line}`))
    }
  return `${lines.join('\n')}\n`

  function frontend(name: string, bindLines: readonly string[], scheme: string): void {
    section(
      `frontend ${name} from common`,
      ...bindLines,
      'tcp-request session set-var-fmt(sess.at) "%[dst]:%[dst_port]"',
      `tcp-request session set-var(sess.place) var(sess.at),map_str(${join(dir, 'places.map')})`,
      'http-request set-var(txn.host) req.hdr(host),host_only,lower',
      'http-request set-var(txn.path) path',
      // One look-up: the longest row that the key begins with. No host has a \x02 and no path a \x01: HAProxy refuses both.
      `http-request set-var(txn.row) "var(sess.place),concat(,txn.host,\\x02),concat(,txn.path,/\\x01),map_beg(${join(dir, 'routes.map')})"`,
      'http-request set-var-fmt(txn.split) "%[var(txn.row)]|%[rand(65536),hex]" if { var(txn.row) -m beg w }',
      // Where there is no split nothing is set.
      `http-request set-var(txn.row) var(txn.split),map_beg(${join(dir, 'splits.map')})`,
      'http-request lua.route if !{ var(txn.row) -m beg p }',
      ...(scheme === 'https' ? misdirected : []),
      ...counted('http-request set-var(txn.from) date(0,us)'),
      'http-request set-var(txn.method) method if { var(proc.tell) -m bool }',
      `http-request set-header x-forwarded-proto ${scheme}`,
      'http-response lua.respond if { var(txn.after) -m found }',
      ...counted(
        `http-response set-var(txn.bucket) date(0,us),sub(txn.from),map_int(${join(dir, 'latency.map')},${latencyBuckets.length})`,
        'http-response set-var(txn.status) status',
        'http-response track-sc1 "var(txn.row),concat(|,txn.status),concat(|,txn.bucket)" table signals',
      ),
      // What a backend answered is counted by now. What HAProxy had to answer itself never comes here, and is told.
      'http-response set-log-level silent unless { var(proc.tell) -m bool }',
      'log ring@events local0',
      `log-format "${eventFormat}"`,
      'use_backend %[var(txn.row),field(1,|)]',
    )
  }
}

/** Answers to a preflight; Lua gives the values. */
const corsHeaders = [
  'access-control-allow-origin',
  'access-control-allow-methods',
  'access-control-allow-headers',
  'access-control-allow-credentials',
  'access-control-expose-headers',
  'access-control-max-age',
  'vary',
]

const returned = (code: string): string =>
  ({ 404: '404 content-type text/plain string "no route\\n"', 421: '421', 500: '500', 503: '503', 204: '204' })[code] ??
  code

/** Ranges of microseconds to the number of a bucket of `latencyBuckets`. */
export const latencyMap = (): string =>
  latencyBuckets
    .map((le, i) => `${Math.round((latencyBuckets[i - 1] ?? 0) * 1e6)}:${Math.round(le * 1e6) - 1} ${i}\n`)
    .join('')

export const hostPort = (address: string, port: number): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

/** A server is named by its address: the same endpoint is the same server, also for an agent that comes back. */
export const serverName = (address: string, port: number): string => `${address}:${port}`
