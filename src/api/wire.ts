/**
 * A request to the API and its answer, without a transport. The http2 server, the in-process client and the tests all
 * meet here: `client/direct.ts` is given an `ApiHandler`, the API server is one.
 */
export interface ApiRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** `/api/v1/namespaces/default/pods`, still percent-encoded. */
  readonly path: string
  /** Raw query without the `?`; empty when there is none. */
  readonly query: string
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array | undefined
  /** Aborts when the caller has gone: a watch ends, a slow write is not begun. */
  readonly signal: AbortSignal
}

export interface ApiResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** Bytes, or chunks as they come (watches, logs, long lists). */
  readonly body: Uint8Array | AsyncIterable<Uint8Array>
}

export type ApiHandler = (request: ApiRequest) => Promise<ApiResponse>
