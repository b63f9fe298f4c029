/**
 * The seam between "what Gateways and routes mean" and "who proxies the bytes": a pure state that is handed over whole,
 * and an engine that makes it so. Every value is immutable: the engine tells what changed by identity first (`===`), so a
 * producer that keeps unchanged listeners, routes and backends as they are makes a change cost what changed.
 * Source: gateway-api v1.6.1, HTTPRoute, GRPCRoute, TLSRoute.
 */
export interface EngineState {
  /** Grows with every change; named in the outcome that acknowledges it. */
  readonly revision: number
  readonly listeners: ReadonlyMap<string, Listener>
  readonly routes: ReadonlyMap<string, Route>
  /** Where requests go; shared by the rules that name them. */
  readonly backends: ReadonlyMap<string, Backend>
}

/** One listener of a Gateway. Several on one address and port are told apart by their hostnames (and SNI). */
export interface Listener {
  /** Unique among all: `namespace/gateway/listener`. */
  readonly id: string
  /** Addresses of the Gateway, canonical text, both families. */
  readonly addresses: readonly string[]
  readonly port: number
  readonly protocol: 'HTTP' | 'HTTPS' | 'TLS'
  /** `example.com`, `*.example.com`; absent: every host. Lower case. */
  readonly hostname?: string
  /** Of HTTPS and TLS. */
  readonly tls?: ListenerTls
}

export interface ListenerTls {
  /** `passthrough` only with protocol TLS. */
  readonly mode: 'terminate' | 'passthrough'
  readonly certificates: readonly Certificate[]
  /** Clients must show a certificate of one of these authorities (PEM). */
  readonly clientAuthority?: { readonly caPem: string; readonly mode: 'require' | 'insecure-fallback' }
}

export interface Certificate {
  /** `namespace/secret`. */
  readonly id: string
  /** Leaf first, then the chain. */
  readonly certPem: string
  readonly keyPem: string
}

/** An HTTPRoute, GRPCRoute, TLSRoute or Ingress, as far as it was accepted. */
export interface Route {
  /** Unique among all: `kind/namespace/name`. */
  readonly id: string
  readonly kind: 'HTTP' | 'GRPC' | 'TLS'
  /** Between matches of equal weight the smaller wins: creation time, then `namespace/name` (text, compared by code unit). */
  readonly age: string
  readonly attachments: readonly Attachment[]
  readonly rules: readonly Rule[]
}

/** Where a route listens. */
export interface Attachment {
  readonly listener: string
  /** The intersection of the route's and the listener's hostnames; `''` stands for every host. Never empty. Lower case. */
  readonly hostnames: readonly string[]
}

export interface Rule {
  /** Unique among all: `kind/namespace/name/index`. Label of metrics and events, and what an outcome names. */
  readonly id: string
  /** Any of them; none in the list: every request. TLS rules have none. */
  readonly matches: readonly Match[]
  readonly filters: readonly Filter[]
  /** Weights are relative; of weight 0 none is chosen. None (and no redirect): 500, or 404 for a GRPC rule's UNIMPLEMENTED. */
  readonly targets: readonly Target[]
  readonly timeouts?: Timeouts
  readonly retry?: Retry
  readonly session?: SessionPersistence
}

/** All of its parts must hold. */
export interface Match {
  readonly path?: PathMatch
  readonly method?: string
  readonly headers: readonly ValueMatch[]
  /** Of the first value of each name, percent-decoded. */
  readonly query: readonly ValueMatch[]
}

/** `prefix` matches whole path elements; `regex` the whole path (RE2 and PCRE agree on what is allowed). */
export interface PathMatch {
  readonly type: 'exact' | 'prefix' | 'regex'
  readonly value: string
}

/** Header names are compared without case. */
export interface ValueMatch {
  readonly name: string
  readonly type: 'exact' | 'regex'
  readonly value: string
}

export type Filter =
  | ({ readonly type: 'request-headers' } & HeaderChange)
  | ({ readonly type: 'response-headers' } & HeaderChange)
  | ({ readonly type: 'redirect' } & Redirect)
  | { readonly type: 'rewrite'; readonly hostname?: string; readonly path?: PathChange }
  | { readonly type: 'mirror'; readonly backend: string; readonly fraction: Fraction }
  | ({ readonly type: 'cors' } & Cors)

export interface HeaderChange {
  readonly set: readonly Header[]
  readonly add: readonly Header[]
  readonly remove: readonly string[]
}

export interface Header {
  readonly name: string
  readonly value: string
}

/** What is absent stays as in the request. */
export interface Redirect {
  readonly scheme?: 'http' | 'https'
  readonly hostname?: string
  readonly path?: PathChange
  readonly port?: number
  readonly code: 301 | 302 | 303 | 307 | 308
}

/** `prefix` replaces what the rule's prefix match matched. */
export interface PathChange {
  readonly type: 'full' | 'prefix'
  readonly value: string
}

/** Of all requests: 1/1 for all. */
export interface Fraction {
  readonly numerator: number
  readonly denominator: number
}

export interface Cors {
  readonly allowOrigins: readonly string[]
  readonly allowCredentials: boolean
  readonly allowMethods: readonly string[]
  readonly allowHeaders: readonly string[]
  readonly exposeHeaders: readonly string[]
  readonly maxAgeSeconds: number
}

export interface Target {
  readonly weight: number
  /** Key of `EngineState.backends`; absent: the reference is broken and its share of requests is answered 500. */
  readonly backend?: string
  /** Header changes and the like for this target alone. */
  readonly filters: readonly Filter[]
}

/** Exact, from the first byte of the request; 0: none. */
export interface Timeouts {
  readonly requestMs?: number
  readonly backendRequestMs?: number
}

export interface Retry {
  readonly codes: readonly number[]
  readonly attempts: number
  readonly backoffMs?: number
}

export interface SessionPersistence {
  readonly type: 'cookie' | 'header'
  readonly name: string
  readonly absoluteTimeoutMs?: number
  readonly idleTimeoutMs?: number
}

/** A Service's port, as a proxy sees it. Without endpoints: 503. */
export interface Backend {
  /** Unique among all: `namespace/service:port` and what else tells it from others (protocol). Label of metrics. */
  readonly id: string
  readonly protocol: 'h1' | 'h2c'
  /** Absent: in the clear. */
  readonly tls?: BackendTls
  readonly endpoints: readonly Endpoint[]
}

export interface BackendTls {
  readonly sni: string
  readonly caPem: string | 'system'
  /** Any of them in the certificate instead of `sni`. */
  readonly subjectAltNames: readonly SubjectAltName[]
  readonly clientCertificate?: Certificate
}

export interface SubjectAltName {
  readonly type: 'hostname' | 'uri'
  readonly value: string
}

export interface Endpoint {
  readonly address: string
  readonly port: number
}

/** What the engine made of a state. */
export interface Outcome {
  readonly revision: number
  /** By listener id, route rule id or backend id: what could not be done, in words for a condition. All else is in force. */
  readonly faults: ReadonlyMap<string, Fault>
  /** How often the engine has been reloaded since it was opened. */
  readonly reloads: number
}

export interface Fault {
  readonly of: 'listener' | 'rule' | 'backend'
  readonly message: string
}

/** Golden signals of one rule and one backend, sums since the engine was opened. */
export interface Signals {
  readonly rule: string
  /** Backend id; `''` where the engine answered itself. */
  readonly backend: string
  /** Answers by class of status code: `2xx`, …, and exact where the engine can tell. */
  readonly codes: ReadonlyMap<string, number>
  readonly histogram: Histogram
}

/** As Prometheus has them: cumulative counts for each upper bound, in seconds. */
export interface Histogram {
  readonly buckets: readonly { readonly le: number; readonly count: number }[]
  readonly count: number
  readonly sumSeconds: number
}

/** Upper bounds of latency histograms, in seconds. */
export const latencyBuckets: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
]

/** One request, for `weft flows`. */
export interface HttpEvent {
  /** Milliseconds since the epoch, when the answer had been sent. */
  readonly atMs: number
  readonly client: string
  readonly clientPort: number
  /** Address and port that the client asked. */
  readonly address: string
  readonly port: number
  readonly method: string
  readonly host: string
  readonly path: string
  readonly protocol: string
  readonly code: number
  /** Rule and backend ids; `''` for none. */
  readonly rule: string
  readonly backend: string
  readonly endpoint: string
  readonly latencyMs: number
}

/**
 * One node's L7 proxy. Two implementations: HAProxy (src/agent/gateway/haproxy) and the side engine in Node
 * (src/agent/gateway/side), proved by one conformance suite (test/gateway).
 */
export interface L7Engine extends AsyncDisposable {
  /**
   * Makes `desired` so and resolves when requests meet it. What cannot be done is a fault and harms nothing else.
   * Calls are served in turn; of several that wait only the latest is done, and all of them resolve with its outcome.
   * Rejects where the engine cannot be reached at all: it is mended and the state applied again by the caller's retry.
   */
  apply(desired: EngineState): Promise<Outcome>
  /** Read from the engine now. */
  signals(): Promise<readonly Signals[]>
  /** Requests as they end, until `signal` aborts. Events that nobody takes in time are dropped and counted. */
  events(listener: (event: HttpEvent) => void, signal: AbortSignal): void
}
